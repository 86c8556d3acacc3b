"""One `pincex up`: from the settings to an exchange that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from exchange.stack.control import serve, take_lock
from exchange.stack.errors import StackError
from exchange.stack.files import make_home, read_json
from exchange.stack.leftovers import STATE_FILE, end_leftovers
from exchange.stack.services import build
from exchange.stack.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from exchange.stack.config import StackConfig, UpOptions

_LOCK_ATTEMPTS = 20
_LOCK_INTERVAL_S = 0.05


async def supervise(config: StackConfig, options: UpOptions, report: Callable[[dict[str, object]], None]) -> None:
    """Runs the exchange until SIGTERM, SIGINT or the command `stop`; once a process. Raises StackError if it does not start.

    `report` gets `{"event": "instance", ...}` for each change, `{"event": "database", ...}` for what happens to a pair of
    databases, and `{"event": "up", "status": ...}` once all is healthy.
    """
    make_home(config.home)
    # Held until this process ends: who finds it free, as `pincex down` does, finds no process of this folder.
    if await _lock(config.home) is None:
        raise StackError(f"an exchange runs with the data folder {config.home} already")
    end_leftovers(config.home)
    await _supervise_locked(config, options, report)


async def _lock(home: Path) -> int | None:
    """The lock of the data folder; a command that asks whether it is taken holds it for a moment itself."""
    for _ in range(_LOCK_ATTEMPTS):
        lock = take_lock(home)
        if lock is not None:
            return lock
        await asyncio.sleep(_LOCK_INTERVAL_S)
    return None


async def _supervise_locked(
    config: StackConfig,
    options: UpOptions,
    report: Callable[[dict[str, object]], None],
) -> None:
    supervisor = Supervisor(build(config, options, report), config.home, report)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.request_stop)
    up = asyncio.Event()

    async def announce() -> None:
        await up.wait()
        report({"event": "up", "status": await supervisor.status()})

    server = await serve(config.home, lambda request: _handle(supervisor, request))
    announcing = asyncio.create_task(announce())
    try:
        await supervisor.run(_wanted(config.home), up.set)
    finally:
        announcing.cancel()
        server.close()


async def _handle(supervisor: Supervisor, request: dict[str, Any]) -> object:
    match request:
        case {"command": "status"}:
            return await supervisor.status()
        case {"command": "stop"}:
            supervisor.request_stop()
            return "stopping"
        case {"command": "scale", "service": str(service), "count": int(count)}:
            return await supervisor.scale(service, count)
        case {"command": "renew", "service": str(service)}:
            await supervisor.renew(service)
            return "renewed"
        case {"command": "restart", "name": str(name)}:
            return await supervisor.restart(name)
        case {"command": "kill", "name": str(name), "signal": str(number)}:
            return supervisor.kill(name, signal.Signals[number])
    raise StackError(f"not a command of the supervisor: {request.get('command')!r}")


def _wanted(home: Path) -> dict[str, int]:
    """How many instances of each service were wanted last time; a service that was scaled to none starts again."""
    wanted = read_json(home / STATE_FILE).get("wanted")
    if not isinstance(wanted, dict):
        return {}
    return {name: max(1, count) for name, count in wanted.items() if isinstance(count, int)}

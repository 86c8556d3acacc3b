"""A real primary with its synchronous standby, run and failed over by the stack's own code, in the test's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from exchange.stack.config import PortSetting
from exchange.stack.files import make_home
from exchange.stack.instance import Instance, State
from exchange.stack.ports import PortBook
from exchange.stack.postgresql.pair import PostgresPair
from exchange.stack.postgresql.roles import ADMIN, TRADING
from exchange.stack.postgresql.state import NUMBERS
from tests.stack_fixture import temporary_home

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

READY_DEADLINE_S = 60.0
POLL_S = 0.005


class RunningPair:
    """Both servers, the controller, and what it said."""

    def __init__(self, home: Path, ports: dict[int, int]) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PINCEX_"))}
        self.said: list[str] = []
        self.pair = PostgresPair(home, ports, environment, lambda event: self.said.append(str(event["text"])))
        self.cluster = self.pair._cluster
        self._logs = home / "logs"
        self.instances = {number: self._instance(number) for number in NUMBERS}
        self._tasks: list[asyncio.Task[None]] = []
        self._attending: asyncio.Task[None] | None = None

    @property
    def trading_url(self) -> str:
        return self.pair.url(TRADING)

    @property
    def admin_url(self) -> str:
        return self.pair.url(ADMIN)

    @property
    def primary(self) -> Instance:
        return self.instances[self.cluster.state.primary]

    @property
    def standby(self) -> Instance:
        return self.instances[self.cluster.state.other]

    @property
    def in_sync(self) -> bool:
        """Whether the pair is whole: a fail-over would lose nothing, and both servers run."""
        ready = all(one.state is State.READY for one in self.instances.values())
        return ready and not self.cluster.describe()["degraded"]

    async def start(self) -> None:
        """As the supervisor does it; returns when the standby is in sync."""
        await self.pair.prepare()
        self._attending = asyncio.create_task(self.pair.attend())
        self._tasks = [asyncio.create_task(instance.run()) for instance in self.instances.values()]
        for instance in self.instances.values():
            await asyncio.wait_for(instance.ready.wait(), READY_DEADLINE_S)
        await self.pair.provision()
        await self.until(lambda: self.in_sync, "the standby is in sync")

    def restart(self, number: int) -> None:
        """Another instance in the place of one that was stopped."""
        self.instances[number] = self._instance(number)
        self._tasks.append(asyncio.create_task(self.instances[number].run()))

    def _instance(self, number: int) -> Instance:
        return Instance(self.pair, number, self._logs, lambda _: None)

    async def stop(self) -> None:
        """As `pincex down` does it."""
        if self._attending is not None:
            self._attending.cancel()
            await asyncio.gather(self._attending, return_exceptions=True)
        await asyncio.gather(*(instance.stop() for instance in self.instances.values()))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def crash(self) -> None:
        """As a power cut would: no process of either server ends in good order, and nobody looks after them."""
        assert self._attending is not None
        self._attending.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self._attending, *self._tasks, return_exceptions=True)
        for number in NUMBERS:
            await self.cluster.nodes[number].end_all()

    def signal_all(self, instance: Instance, number: signal.Signals, role: str = "") -> None:
        """To the postmaster and every process of it, or to those that PostgreSQL calls by their `role`."""
        for pid in self.cluster.nodes[instance.number].processes():
            with contextlib.suppress(OSError):
                if role in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, number)

    async def until(self, condition: Callable[[], bool], what: str, deadline_s: float = READY_DEADLINE_S) -> None:
        """Waits until the condition holds; fails naming what did not happen, and what the pair said."""
        deadline = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}; said: {self.said}"
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def running_pair() -> AsyncIterator[RunningPair]:
    """A pair in sync with the stack's roles and an empty database, in a folder that is removed afterwards."""
    with temporary_home() as home:
        make_home(home)
        book = PortBook(home / "ports.json")
        setting = PortSetting("PINCEX_POSTGRES_PORT", "PostgreSQL", 0)
        running = RunningPair(home, {number: book.choose(f"postgres-{number}", setting) for number in NUMBERS})
        try:
            await running.start()
            yield running
        finally:
            await running.stop()

"""ACCEPT_NEW_ORDERS and MAINTENANCE_MODE from the environment and from a watched folder (a mounted ConfigMap).

What they say becomes a journaled command when it changes, so that all replicas turn at the same sequence. A file that
stays as it was overrides nobody: an operator's call in between stands until the file changes again. So an instance that
joins others only notes what it finds; only the first to lead acts on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from exchange.trading.core.constants import SWITCH_ACCEPT_NEW_ORDERS, SWITCH_MAINTENANCE

POLL_S: Final = 0.25
FILES: Final = {"ACCEPT_NEW_ORDERS": SWITCH_ACCEPT_NEW_ORDERS, "MAINTENANCE_MODE": SWITCH_MAINTENANCE}
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


class SwitchWatcher:
    """Watches the folder and calls `turn(switch, on, request_id)` for each change; what fails is tried again.

    Every instance sees the same change, and asks for it under the same id: one command comes of it.
    """

    def __init__(
        self,
        folder: Path | None,
        environment: dict[int, bool],
        turn: Callable[[int, bool, str], Awaitable[None]],
        begins: Callable[[], Awaitable[bool]],
    ) -> None:
        """`begins` returns once this instance serves: whether as the leader."""
        self._folder = folder
        self._environment = environment
        self._pending: dict[int, tuple[bool, str]] = {}
        self._seen: dict[int, bool] = {}
        self._turn = turn
        self._begins = begins
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("switches")

    async def run(self) -> None:
        """Watch until cancelled."""
        acts = await self._begins()
        if acts:
            self._pending = {switch: (on, "") for switch, on in self._environment.items()}
        self._look(acts=acts)
        while True:
            for switch, (on, request_id) in list(self._pending.items()):
                try:
                    await self._turn(switch, on, request_id)
                except Exception as error:  # noqa: BLE001 - whatever it was, the switch must still turn
                    self._log.warning("a switch could not be turned yet", switch=switch, error=repr(error))
                else:
                    del self._pending[switch]
            await asyncio.sleep(POLL_S)
            self._look(acts=True)

    def _look(self, *, acts: bool) -> None:
        """Note what the files say; where `acts`, changes are to be turned."""
        for name, switch in FILES.items():
            value = self._read(name)
            if value is not None and self._seen.get(switch) != value:
                self._seen[switch] = value
                if acts:
                    self._pending[switch] = (value, self._change_id(name, on=value))

    def _change_id(self, name: str, *, on: bool) -> str:
        """The same for every instance that sees this change of the file."""
        assert self._folder is not None
        try:
            changed_ns = (self._folder / name).stat().st_mtime_ns
        except OSError:
            return ""
        return f"{name}={'true' if on else 'false'}@{changed_ns}"

    def _read(self, name: str) -> bool | None:
        if self._folder is None:
            return None
        try:
            text = (self._folder / name).read_text().strip().lower()
        except OSError:
            return None
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        if text:
            self._log.error("a switch file says neither true nor false", file=name, text=text[:32])
        return None

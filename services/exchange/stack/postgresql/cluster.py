"""What the parts of the pair share: its two servers, who is the primary, and who must hear of changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from exchange.stack.errors import StackError
from exchange.stack.postgresql.state import PairState, Standby, save

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from exchange.stack.postgresql.node import Node


class Cluster:
    """Two servers of one history. One event loop uses it."""

    def __init__(self, home: Path, nodes: Mapping[int, Node], report: Callable[[dict[str, object]], None]) -> None:
        """`report` gets `{"event": "database", "text": ..., "degraded": ...}` for everything that an operator must know."""
        self.nodes = nodes
        self.fail_overs = 0
        # Servers whose process has ended and was not started again yet.
        self.ended: set[int] = set()
        # Whether the standby has been away for so long that nothing can be hoped from it now.
        self.standby_lost = False
        self._home = home
        self._report = report
        self._state: PairState | None = None
        self._changed = asyncio.Condition()

    @property
    def state(self) -> PairState:
        """As it stands on the disk. Raises StackError before `begin`."""
        if self._state is None:
            raise StackError("the pair of PostgreSQL servers was not prepared")
        return self._state

    @property
    def primary(self) -> Node:
        """The one that may write."""
        return self.nodes[self.state.primary]

    @property
    def standby(self) -> Node:
        """The other one."""
        return self.nodes[self.state.other]

    def begin(self, state: PairState) -> None:
        """Takes what was loaded, or makes it the first state."""
        save(self._home, state)
        self._state = state

    async def become(self, state: PairState) -> None:
        """Returns when the new state is durable; only then may anybody act on it."""
        save(self._home, state)
        self._state = state
        await self.notify()

    async def notify(self) -> None:
        """Lets those who wait look again."""
        async with self._changed:
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until it holds; looked at after each change."""
        async with self._changed:
            await self._changed.wait_for(condition)

    def say(self, text: str) -> None:
        """Tells the operator."""
        degraded = self._state is None or self._state.standby is not Standby.IN_SYNC
        self._report({"event": "database", "text": text, "degraded": degraded})

    def describe(self) -> dict[str, object]:
        """For `pincex status`."""
        state = self.state
        return {
            "epoch": state.epoch,
            "primary": self.primary.name,
            "standby": state.standby.value,
            "degraded": state.standby is not Standby.IN_SYNC,
            "fail_overs": self.fail_overs,
        }

"""All streams of this service: their heartbeats, and how they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from exchange.market_data.service.feeds import Counts, StreamKind
from exchange.runtime.errors import ErrorReason
from exchange.runtime.feeds.notices import HEARTBEAT_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exchange.market_data.follower import Follower
    from exchange.runtime.clock import Clock
    from exchange.runtime.drain import Drain

# Without a word from the engines for so long nobody is told that all is well, and calls go elsewhere.
STALE_S: Final = 12.0


class Streams:
    """See the module."""

    def __init__(self, follower: Follower, clock: Clock, drain: Drain, counts: Counts) -> None:
        self._follower = follower
        self._clock = clock
        self._drain = drain
        self._counts = counts
        self._kinds: list[StreamKind] = []

    def add(self, *kinds: StreamKind) -> None:
        """Take care of these from now on."""
        self._kinds.extend(kinds)

    @property
    def messages(self) -> Mapping[str, int]:
        """Messages that were made, by kind."""
        return self._counts.messages

    @property
    def slow_closed(self) -> Mapping[str, int]:
        """Streams closed because their client read too slowly, by kind."""
        return self._counts.slow_closed

    def subscribers(self) -> dict[str, int]:
        """Streams that are open, by kind."""
        return {kind.kind: kind.subscribers() for kind in self._kinds}

    @property
    def stale(self) -> bool:
        """Whether the engines have not been heard of for too long."""
        return self._follower.lag_s > STALE_S

    async def heartbeats(self) -> None:
        """Say on every stream that all is well, as long as it is, until cancelled."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if not self.stale:
                self.heartbeat()

    def heartbeat(self) -> None:
        """Say it now."""
        now = self._clock.time_ns()
        for kind in self._kinds:
            kind.heartbeat(self._follower.head_sequence, now)

    async def end_on_drain(self) -> None:
        """Once the server is about to stop, say so on every stream, and end it."""
        await self._drain.wait()
        deadline = self._clock.time_ns() + int((self._drain.time_remaining() or 0.0) * 1e9)
        for kind in self._kinds:
            kind.end(ErrorReason.DRAINING, deadline)

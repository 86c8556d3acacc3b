"""StreamOrderBook: one copy of the book a market, kept from durable frames; what is sent of it is `runtime.feeds.book_feed`'s."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.feeds.book_feed import DEPTHS, BookFeed
from exchange.runtime.feeds.channel import follow
from exchange.trading.core.events import E_KIND, MARKET_CHANGED, MC_MARKET, MC_MODE
from exchange.trading.feeds.book_mirror import BookMirror
from exchange.trading.feeds.hub import Hub
from exchange.trading.sequencer import Committed
from exchange.trading.service.desk import Desk
from exchange.trading.service.streaming import Places

IDLE_HEARTBEATS: Final = 6
"""A copy that nobody has followed for this many heartbeats is dropped."""


class _Copy:
    """One market's copy and what is sent of it. The feed's `frame_hash` is b"" until the copy is durable."""

    def __init__(self, mirror: BookMirror, feed: BookFeed) -> None:
        self.mirror = mirror
        self.feed = feed


class BookStreams:
    """All book streams of an instance; a sink of the hub."""

    def __init__(self, desk: Desk, hub: Hub, places: Places) -> None:
        self._desk = desk
        self._hub = hub
        self._places = places
        self._copies: dict[int, _Copy] = {}

    # --- publishing ---

    def frame(self, committed: Committed) -> None:
        """Apply a durable frame to the copies and publish what changed."""
        if not self._copies:
            return
        sequence = committed.first_sequence
        modes: dict[int, int] = {}
        for events in committed.events:
            for copy in self._copies.values():
                if sequence > copy.mirror.sequence:
                    for event in events:
                        copy.mirror.apply(event)
            for event in events:
                if event[E_KIND] == MARKET_CHANGED:
                    modes[event[MC_MARKET]] = event[MC_MODE]
            sequence += 1
        for market, copy in self._copies.items():
            if committed.last_sequence <= copy.mirror.sequence:
                continue
            feed = copy.feed
            copy.mirror.sequence = feed.sequence = committed.last_sequence
            feed.frame_hash = committed.frame_hash
            feed.mode = modes.get(market, feed.mode)
            feed.publish()

    def heartbeat(self, time_ns: int) -> None:
        """Say on every channel that all is well, and drop copies that nobody follows."""
        for market, copy in list(self._copies.items()):
            feed = copy.feed
            feed.idle = 0 if feed.subscribers else feed.idle + 1
            if feed.idle > IDLE_HEARTBEATS:
                del self._copies[market]
            else:
                feed.heartbeat(self._hub.head_sequence, time_ns)

    def end(self, reason: int, drain_time_ns: int = 0) -> None:
        """End every stream, with a drain notice first where a time is given."""
        for copy in self._copies.values():
            copy.feed.end(reason, drain_time_ns)
        self._copies.clear()

    def reset(self) -> None:
        """Another core serves: end every stream, since what came in between was not seen here."""
        self.end(ErrorReason.NOT_READY)

    # --- subscribing ---

    async def serve(self, symbol: str, depth: int, resume_token: str) -> AsyncIterator[bytes]:
        """One subscriber's stream, encoded."""
        if depth not in DEPTHS:
            raise ServiceError(
                ErrorReason.INVALID_FIELD,
                "depth must be 10, 50, 200, or 0 for all",
                metadata={"field": "depth", "value": depth},
            )
        market, _ = await self._desk.find(lambda: self._desk.market(symbol))
        places = self._places.of(f"book:{market.symbol}:{depth}")
        place = await places.read(resume_token) if resume_token else None
        feed = (await self._copy(market.index)).feed
        view = feed.view(depth, 0, places)
        channel = view.channel
        position = channel.position_after(place.sequence) if place is not None else None
        feed.idle = 0
        if position is None:
            position = channel.end
            yield feed.snapshot(view)
        async for message in follow(channel, position, lambda: feed.slow_end(view), partial(feed.merged, view)):
            yield message

    async def _copy(self, index: int) -> _Copy:
        """A market's copy. The book is copied as it stands, and nothing of it let out before it is durable."""
        desk = self._desk
        seat = desk.seat
        copy = self._copies.get(index)
        if copy is None:
            copy = self._copies[index] = self._begin(index)
        if copy.feed.frame_hash:
            return copy
        try:
            await desk.settle()
        except BaseException:
            if self._copies.get(index) is copy:
                del self._copies[index]
            raise
        if self._copies.get(index) is not copy:
            raise ServiceError(ErrorReason.NOT_READY)
        if not copy.feed.frame_hash:
            copy.feed.frame_hash = seat.committed_hash
        return copy

    def _begin(self, index: int) -> _Copy:
        state, units = self._desk.state, self._desk.units(index)
        market = state.markets[index]
        mirror = BookMirror(market, state.sequence)
        feed = BookFeed(market.symbol, mirror, units.price, units.quantity, mode=market.mode, sequence=state.sequence)
        return _Copy(mirror, feed)

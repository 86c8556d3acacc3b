"""StreamOrderBook: one copy of the book a market, one channel a depth, each update encoded once for all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Final

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading.core.events import E_KIND, MARKET_CHANGED, MC_MARKET, MC_MODE
from exchange.trading.feeds.book_mirror import BookMirror, MirrorSide
from exchange.trading.feeds.channel import Channel
from exchange.trading.feeds.hub import Hub
from exchange.trading.sequencer import Committed
from exchange.trading.service.desk import Desk
from exchange.trading.service.messages import set_time
from exchange.trading.service.streaming import Places, end_message, follow
from exchange.trading.service.units import MarketUnits
from pincex.trading.v1 import market_service_pb2 as pb

DEPTHS: Final = frozenset({0, 10, 50, 200})
IDLE_HEARTBEATS: Final = 6
"""A copy that nobody has followed for this many heartbeats is dropped."""

Levels = dict[int, tuple[int, int]]


class _View:
    """What the subscribers of one depth see. `frame_hash` is that of the frame of its last message."""

    def __init__(self, depth: int, sequence: int, frame_hash: bytes, places: Places) -> None:
        self.depth = depth
        self.places = places
        self.channel = Channel(sequence)
        self.frame_hash = frame_hash
        self.bids: Levels = {}
        self.asks: Levels = {}


class _Feed:
    """One market's copy and its views. `frame_hash` is that of the frame at the copy's sequence, b"" until it is durable."""

    def __init__(self, mirror: BookMirror, units: MarketUnits, mode: int) -> None:
        self.mirror = mirror
        self.units = units
        self.mode = mode
        self.views: dict[int, _View] = {}
        self.frame_hash = b""
        self.idle = 0


class BookStreams:
    """All book streams of an instance; a sink of the hub."""

    def __init__(self, desk: Desk, hub: Hub, places: Places) -> None:
        self._desk = desk
        self._hub = hub
        self._places = places
        self._feeds: dict[int, _Feed] = {}

    # --- publishing ---

    def frame(self, committed: Committed) -> None:
        """Apply a durable frame to the copies and publish what changed."""
        if not self._feeds:
            return
        sequence = committed.first_sequence
        modes: dict[int, int] = {}
        for events in committed.events:
            for feed in self._feeds.values():
                if sequence > feed.mirror.sequence:
                    for event in events:
                        feed.mirror.apply(event)
            for event in events:
                if event[E_KIND] == MARKET_CHANGED:
                    modes[event[MC_MARKET]] = event[MC_MODE]
            sequence += 1
        for market, feed in self._feeds.items():
            if committed.last_sequence <= feed.mirror.sequence:
                continue
            feed.mirror.sequence = committed.last_sequence
            feed.frame_hash = committed.frame_hash
            if modes.get(market, feed.mode) != feed.mode:
                feed.mode = modes[market]
                self._publish_mode(feed)
            elif feed.mirror.changed:
                self._publish_changes(feed)

    def _publish_mode(self, feed: _Feed) -> None:
        """One message for a frame, or its sequence would not name a place: where the book changed too, a snapshot."""
        bids, asks = feed.mirror.take_changes()
        for view in feed.views.values():
            view.bids, view.asks = _top(feed.mirror.bids, view.depth), _top(feed.mirror.asks, view.depth)
            update = pb.OrderBookUpdate(mode=feed.mode)  # type: ignore[arg-type]
            if bids or asks:
                self._fill_snapshot(feed, view, update)
            self._publish(feed, view, update)

    def _publish_changes(self, feed: _Feed) -> None:
        mirror = feed.mirror
        changed_bids, changed_asks = mirror.take_changes()
        for view in feed.views.values():
            delta = pb.BookDelta()
            if view.depth == 0:
                _add_levels(delta.bids, feed.units, ((price, *_now(mirror.bids, price)) for price in changed_bids))
                _add_levels(delta.asks, feed.units, ((price, *_now(mirror.asks, price)) for price in changed_asks))
            else:
                view.bids = _add_difference(delta.bids, feed.units, view.bids, _top(mirror.bids, view.depth))
                view.asks = _add_difference(delta.asks, feed.units, view.asks, _top(mirror.asks, view.depth))
            if delta.bids or delta.asks:
                self._publish(feed, view, pb.OrderBookUpdate(delta=delta))

    def _publish(self, feed: _Feed, view: _View, update: pb.OrderBookUpdate) -> None:
        sequence = feed.mirror.sequence
        view.frame_hash = feed.frame_hash
        self._stamp(feed, view, update, sequence, 0 if update.HasField("snapshot") else view.channel.last_sequence)
        view.channel.publish(sequence, update.SerializeToString())

    def _again(self, feed: _Feed, view: _View, update: pb.OrderBookUpdate) -> None:
        """Publish something that is no change, at the place of the last message."""
        last = view.channel.last_sequence
        self._stamp(feed, view, update, last, last)
        view.channel.publish(last, update.SerializeToString())

    def _stamp(self, feed: _Feed, view: _View, update: pb.OrderBookUpdate, sequence: int, prev_sequence: int) -> None:
        update.symbol = feed.units.symbol
        update.sequence = sequence
        update.prev_sequence = prev_sequence
        update.checksum = feed.mirror.checksum(feed.units.price, feed.units.quantity)
        update.resume_token = view.places.token(sequence, view.frame_hash)

    def heartbeat(self, time_ns: int) -> None:
        """Say on every channel that all is well, and drop copies that nobody follows."""
        for market, feed in list(self._feeds.items()):
            feed.idle = 0 if any(view.channel.subscribers for view in feed.views.values()) else feed.idle + 1
            if feed.idle > IDLE_HEARTBEATS:
                del self._feeds[market]
                continue
            for view in feed.views.values():
                update = pb.OrderBookUpdate()
                update.heartbeat.head_sequence = self._hub.head_sequence
                set_time(update.heartbeat.server_time, time_ns)
                update.heartbeat.resume_token = view.places.token(view.channel.last_sequence, view.frame_hash)
                self._again(feed, view, update)

    def end(self, reason: int, drain_time_ns: int = 0) -> None:
        """End every stream, with a drain notice first where a time is given."""
        for feed in self._feeds.values():
            for view in feed.views.values():
                token = view.places.token(view.channel.last_sequence, view.frame_hash)
                if drain_time_ns:
                    notice = pb.OrderBookUpdate()
                    notice.drain.resume_token = token
                    set_time(notice.drain.deadline_time, drain_time_ns)
                    self._again(feed, view, notice)
                self._again(feed, view, pb.OrderBookUpdate(end=end_message(reason, token)))
                view.channel.close()
        self._feeds.clear()

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
        feed = await self._feed(market.index)
        view = feed.views.get(depth)
        if view is None:
            view = feed.views[depth] = _View(depth, feed.mirror.sequence, feed.frame_hash, places)
            view.bids, view.asks = _top(feed.mirror.bids, depth), _top(feed.mirror.asks, depth)
        channel = view.channel
        position = channel.position_after(place.sequence) if place is not None else None
        feed.idle = 0
        if position is None:
            position = channel.end
            yield self._snapshot(feed, view).SerializeToString()
        async for message in follow(channel, position, lambda: self._slow(feed, channel)):
            yield message

    async def _feed(self, index: int) -> _Feed:
        """A market's feed. The book is copied as it stands, and nothing of it let out before it is durable."""
        desk = self._desk
        seat = desk.seat
        feed = self._feeds.get(index)
        if feed is None:
            market = desk.state.markets[index]
            feed = self._feeds[index] = _Feed(BookMirror(market, desk.state.sequence), desk.units(index), market.mode)
        if feed.frame_hash:
            return feed
        try:
            await desk.settle()
        except BaseException:
            if self._feeds.get(index) is feed:
                del self._feeds[index]
            raise
        if self._feeds.get(index) is not feed:
            raise ServiceError(ErrorReason.NOT_READY)
        if not feed.frame_hash:
            feed.frame_hash = seat.committed_hash
        return feed

    def _snapshot(self, feed: _Feed, view: _View) -> pb.OrderBookUpdate:
        update = pb.OrderBookUpdate()
        self._fill_snapshot(feed, view, update)
        self._stamp(feed, view, update, view.channel.last_sequence, 0)
        return update

    @staticmethod
    def _fill_snapshot(feed: _Feed, view: _View, update: pb.OrderBookUpdate) -> None:
        snapshot = update.snapshot
        snapshot.mode = feed.mode  # type: ignore[assignment]
        mirror = feed.mirror
        for target, side in ((snapshot.bids, mirror.bids), (snapshot.asks, mirror.asks)):
            _add_levels(target, feed.units, ((price, *_now(side, price)) for price in side.best(view.depth)))

    @staticmethod
    def _slow(feed: _Feed, channel: Channel) -> bytes:
        # No token: what this subscriber has missed lies between its own last one and here.
        last = channel.last_sequence
        update = pb.OrderBookUpdate(
            symbol=feed.units.symbol, sequence=last, prev_sequence=last, end=end_message(ErrorReason.SLOW_CONSUMER)
        )
        return update.SerializeToString()


def _now(side: MirrorSide, price: int) -> tuple[int, int]:
    level = side.levels.get(price)
    return (level[0], level[1]) if level is not None else (0, 0)


def _top(side: MirrorSide, depth: int) -> Levels:
    if depth == 0:
        return {}
    return {price: (side.levels[price][0], side.levels[price][1]) for price in side.best(depth)}


def _add_levels(target: object, units: MarketUnits, levels: Iterable[tuple[int, int, int]]) -> None:
    for price, lots, count in levels:
        target.add(price=units.price(price), quantity=units.quantity(lots), order_count=count)  # type: ignore[attr-defined]


def _add_difference(target: object, units: MarketUnits, before: Levels, after: Levels) -> Levels:
    """Add what changed from one view to the next; levels that left the view get zero. Answers the next view."""
    _add_levels(target, units, ((price, 0, 0) for price in before if price not in after))
    _add_levels(target, units, ((price, *level) for price, level in after.items() if before.get(price) != level))
    return after

"""One market's book as streams of `OrderBookUpdate`: by depth, at once or conflated; each message is encoded once for all.

Whoever keeps the book changes it and calls `publish`; all rules of the messages are here, so that every service that sends
books sends the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from exchange.runtime.errors import ErrorReason
from exchange.runtime.feeds.channel import Channel
from exchange.runtime.feeds.levels import LevelBook, LevelSide
from exchange.runtime.feeds.notices import drain_notice, end_message, heartbeat
from exchange.runtime.feeds.tokens import Tokens
from pincex.trading.v1 import market_service_pb2 as pb

DEPTHS: Final = frozenset({0, 10, 50, 200})
INTERVALS_MS: Final = frozenset({0, 100, 250, 1000})

# Deltas that one message takes the place of, for a subscriber who is behind.
MAX_MERGED: Final = 64

Levels = dict[int, tuple[int, int]]
"""Price in ticks to (lots, orders)."""


class BookView:
    """What the subscribers of one depth and interval see. `bids` and `asks` are what their books hold, but for real-time
    views of the whole book, which need no memory of it; `checksum`, `mode` and `frame_hash` are of the last message.
    """

    def __init__(self, depth: int, interval_ms: int, tokens: Tokens, sequence: int) -> None:
        self.depth = depth
        self.interval_ms = interval_ms
        self.tokens = tokens
        self.channel = Channel(sequence)
        self.frame_hash = b""
        self.checksum = 0
        self.mode = 0
        self.bids: Levels = {}
        self.asks: Levels = {}
        # Prices of a conflated view of the whole book that changed since its last message.
        self.waiting_bids: set[int] = set()
        self.waiting_asks: set[int] = set()
        self.is_dirty = False
        # What was merged at the present end of the channel, by position: subscribers who are behind are so in groups.
        self.merged: dict[int, tuple[bytes, int]] = {}
        self.merged_end = -1

    @property
    def remembers(self) -> bool:
        """Whether `bids` and `asks` are kept."""
        return self.depth != 0 or self.interval_ms != 0


class BookFeed:
    """See the module. `sequence` and `frame_hash` are those of the last frame that the book has."""

    def __init__(
        self,
        symbol: str,
        book: LevelBook,
        price_text: Callable[[int], str],
        quantity_text: Callable[[int], str],
        *,
        mode: int,
        sequence: int,
        frame_hash: bytes = b"",
    ) -> None:
        self.symbol = symbol
        self.book = book
        self.mode = mode
        self.sequence = sequence
        self.frame_hash = frame_hash
        self.views: dict[tuple[int, int], BookView] = {}
        self.idle = 0
        self._price_text = price_text
        self._quantity_text = quantity_text

    @property
    def subscribers(self) -> int:
        """How many follow it."""
        return sum(view.channel.subscribers for view in self.views.values())

    def view(self, depth: int, interval_ms: int, tokens: Tokens) -> BookView:
        """The view of this depth and interval, made at its first use. `tokens` are its own."""
        found = self.views.get((depth, interval_ms))
        if found is None:
            found = self.views[depth, interval_ms] = BookView(depth, interval_ms, tokens, self.sequence)
            self._catch_up(found, self.book.checksum(self._price_text, self._quantity_text))
        return found

    def _catch_up(self, view: BookView, checksum: int) -> None:
        """Note that the view is as the book."""
        view.frame_hash = self.frame_hash
        view.checksum = checksum
        view.mode = self.mode
        view.is_dirty = False
        if view.remembers:
            view.bids, view.asks = _top(self.book.bids, view.depth), _top(self.book.asks, view.depth)
        view.waiting_bids.clear()
        view.waiting_asks.clear()

    # --- publishing ---

    def publish(self) -> int:
        """Tell what changed since the last call, in the book and of the mode; conflated views wait for `flush`. Answers how
        many messages that made.
        """
        bids, asks = self.book.take_changes()
        changes_mode = any(view.mode != self.mode for view in self.views.values())
        if not (bids or asks or changes_mode) or not self.views:
            return 0
        made = 0
        checksum = self.book.checksum(self._price_text, self._quantity_text)
        for view in self.views.values():
            if view.interval_ms:
                view.is_dirty = True
                if view.depth == 0:
                    view.waiting_bids.update(bids)
                    view.waiting_asks.update(asks)
            else:
                made += self._tell(view, bids, asks, checksum)
        return made

    def flush(self, interval_ms: int) -> int:
        """Tell the views of this interval what changed since they were told last. Answers how many messages that made."""
        made = 0
        for view in self.views.values():
            if view.interval_ms == interval_ms and view.is_dirty:
                checksum = self.book.checksum(self._price_text, self._quantity_text)
                bids, asks = sorted(view.waiting_bids, reverse=True), sorted(view.waiting_asks)
                made += self._tell(view, bids, asks, checksum)
                view.is_dirty = False
                view.waiting_bids.clear()
                view.waiting_asks.clear()
        return made

    def start_over(self) -> None:
        """The book was replaced as a whole: every view gets a snapshot, which is no gap."""
        self.book.changed.clear()
        checksum = self.book.checksum(self._price_text, self._quantity_text)
        for view in self.views.values():
            self._catch_up(view, checksum)
            self._publish(view, self._snapshot_of(view), 0)

    def _tell(self, view: BookView, bids: list[int], asks: list[int], checksum: int) -> bool:
        """One message for a frame, or its sequence would not name a place: where mode and book changed, a snapshot. Whether there
        was anything to tell.
        """
        book = self.book
        delta = pb.BookDelta()
        if not view.remembers:
            self._add_levels(delta.bids, ((price, *_now(book.bids, price)) for price in bids))
            self._add_levels(delta.asks, ((price, *_now(book.asks, price)) for price in asks))
        elif view.depth == 0:
            self._add_waiting(delta.bids, view.bids, book.bids, bids)
            self._add_waiting(delta.asks, view.asks, book.asks, asks)
        else:
            view.bids = self._add_difference(delta.bids, view.bids, _top(book.bids, view.depth))
            view.asks = self._add_difference(delta.asks, view.asks, _top(book.asks, view.depth))
        changed = bool(delta.bids or delta.asks)
        if view.mode == self.mode and not changed:
            return False
        view.frame_hash, view.checksum = self.frame_hash, checksum
        if view.mode == self.mode:
            self._publish(view, pb.OrderBookUpdate(delta=delta), view.channel.last_sequence)
            return True
        view.mode = self.mode
        # What changed outside the view counts too: who has the whole book is told by a snapshot, and so is everybody.
        if changed or bids or asks:
            self._publish(view, self._snapshot_of(view), 0)
        else:
            self._publish(view, pb.OrderBookUpdate(mode=self.mode), view.channel.last_sequence)  # type: ignore[arg-type]
        return True

    def _publish(self, view: BookView, update: pb.OrderBookUpdate, prev_sequence: int) -> None:
        self._stamp(view, update, self.sequence, prev_sequence)
        view.channel.publish(self.sequence, update.SerializeToString())

    def _again(self, view: BookView, update: pb.OrderBookUpdate) -> None:
        """Publish something that is no change, at the place of the last message."""
        last = view.channel.last_sequence
        self._stamp(view, update, last, last)
        view.channel.publish(last, update.SerializeToString())

    def _stamp(self, view: BookView, update: pb.OrderBookUpdate, sequence: int, prev_sequence: int) -> None:
        update.symbol = self.symbol
        update.sequence = sequence
        update.prev_sequence = prev_sequence
        update.checksum = view.checksum
        update.resume_token = view.tokens.token(sequence, view.frame_hash)

    def heartbeat(self, head_sequence: int, time_ns: int) -> None:
        """Say on every channel that all is well."""
        for view in self.views.values():
            token = view.tokens.token(view.channel.last_sequence, view.frame_hash)
            self._again(view, pb.OrderBookUpdate(heartbeat=heartbeat(head_sequence, time_ns, token)))

    def end(self, reason: int, drain_time_ns: int = 0) -> None:
        """End every stream, with a drain notice first where a time is given."""
        for view in self.views.values():
            token = view.tokens.token(view.channel.last_sequence, view.frame_hash)
            if drain_time_ns:
                self._again(view, pb.OrderBookUpdate(drain=drain_notice(drain_time_ns, token)))
            self._again(view, pb.OrderBookUpdate(end=end_message(reason, token)))
            view.channel.close()

    # --- subscribing ---

    def snapshot(self, view: BookView) -> bytes:
        """What a new subscriber of a view begins with: the book as of the view's last message."""
        update = self._snapshot_of(view)
        self._stamp(view, update, view.channel.last_sequence, 0)
        return update.SerializeToString()

    @staticmethod
    def merged(view: BookView, position: int) -> tuple[bytes, int]:
        """The deltas from a position on as one, each level as the last of them has it, and the position behind them. Where no
        two deltas follow each other, the message at the position.
        """
        channel = view.channel
        if view.merged_end != channel.end:
            view.merged.clear()
            view.merged_end = channel.end
        found = view.merged.get(position)
        if found is None:
            found = view.merged[position] = _merge(channel, position)
        return found

    def slow_end(self, view: BookView) -> bytes:
        """The end of one who reads too slowly. No token: what he has missed lies between his own last one and here."""
        last = view.channel.last_sequence
        end = end_message(ErrorReason.SLOW_CONSUMER)
        update = pb.OrderBookUpdate(symbol=self.symbol, sequence=last, prev_sequence=last, end=end)
        return update.SerializeToString()

    def _snapshot_of(self, view: BookView) -> pb.OrderBookUpdate:
        update = pb.OrderBookUpdate()
        snapshot = update.snapshot
        snapshot.mode = view.mode  # type: ignore[assignment]
        book = self.book
        for target, side, seen in ((snapshot.bids, book.bids, view.bids), (snapshot.asks, book.asks, view.asks)):
            if view.remembers:
                prices = sorted(seen, reverse=side.sign > 0)
                self._add_levels(target, ((price, *seen[price]) for price in prices))
            else:
                self._add_levels(target, ((price, *_now(side, price)) for price in side.best(0)))
        return update

    def _add_levels(self, target: object, levels: Iterable[tuple[int, int, int]]) -> None:
        price_text, quantity_text = self._price_text, self._quantity_text
        for price, lots, count in levels:
            target.add(price=price_text(price), quantity=quantity_text(lots), order_count=count)  # type: ignore[attr-defined]

    def _add_difference(self, target: object, before: Levels, after: Levels) -> Levels:
        """Add what changed from one view to the next; levels that left the view get zero. Answers the next view."""
        self._add_levels(target, ((price, 0, 0) for price in before if price not in after))
        self._add_levels(target, ((price, *level) for price, level in after.items() if before.get(price) != level))
        return after

    def _add_waiting(self, target: object, seen: Levels, side: LevelSide, prices: list[int]) -> None:
        """Add those of the prices whose level differs from what was seen, and note it as seen."""
        for price in prices:
            now = _now(side, price)
            if now == seen.get(price, _GONE):
                continue
            if now == _GONE:
                del seen[price]
            else:
                seen[price] = now
            self._add_levels(target, ((price, *now),))


def _merge(channel: Channel, position: int) -> tuple[bytes, int]:
    first = pb.OrderBookUpdate.FromString(channel.item(position))
    end = min(channel.end, position + MAX_MERGED)
    after, last = position + 1, first
    bids, asks = ({level.price: level for level in side} for side in (first.delta.bids, first.delta.asks))
    while last.HasField("delta") and after < end:
        update = pb.OrderBookUpdate.FromString(channel.item(after))
        if not update.HasField("delta"):
            break
        bids.update((level.price, level) for level in update.delta.bids)
        asks.update((level.price, level) for level in update.delta.asks)
        last, after = update, after + 1
    if last is first:
        return channel.item(position), after
    last.prev_sequence = first.prev_sequence
    last.delta.CopyFrom(pb.BookDelta(bids=bids.values(), asks=asks.values()))
    return last.SerializeToString(), after


_GONE: Final = (0, 0)


def _now(side: LevelSide, price: int) -> tuple[int, int]:
    level = side.levels.get(price)
    return (level[0], level[1]) if level is not None else _GONE


def _top(side: LevelSide, depth: int) -> Levels:
    return {price: (side.levels[price][0], side.levels[price][1]) for price in side.best(depth)}

"""Streams of which only the newest value of each market counts: best prices, market status, and whatever has that shape.

Those who ask for the same markets share one channel. A snapshot has all of them, later messages those that changed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, Protocol

from exchange.market_data.service.feeds import Feed, FeedSet
from exchange.runtime.errors import ErrorReason, ServiceError
from pincex.marketdata.v1 import market_data_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from exchange.market_data.books import Books, Frame
    from exchange.market_data.service.feeds import Counts
    from exchange.market_data.service.places import Places

MAX_SYMBOLS: Final = 100
# Different sets of markets that are followed at a time, by kind: each costs a message of its own.
MAX_SETS: Final = 500


class Values(Protocol):
    """What is told of each market."""

    def touched(self, frame: Frame) -> Iterable[str]:
        """Symbols whose value a frame may have changed."""
        ...

    def value(self, symbol: str) -> object:
        """The value now: equal values are not told twice."""
        ...

    def message(self, symbols: Iterable[str]) -> pb.MarketDataUpdate:
        """The values of these markets as a message; one without any has the field of its kind all the same."""
        ...


class _ValueFeed(Feed):
    """One set of markets, None: all."""

    def __init__(self, symbols: frozenset[str] | None, *args: Any) -> None:
        super().__init__(*args)
        self.symbols = symbols

    def of(self, symbols: Iterable[str]) -> list[str]:
        """Those of the symbols that are followed here, sorted."""
        return sorted(symbols if self.symbols is None else self.symbols.intersection(symbols))


class ValueStreams(FeedSet[str, _ValueFeed]):
    """All streams of one kind; a listener of the books."""

    def __init__(self, kind: str, values: Values, books: Books, places: Places, counts: Counts) -> None:
        super().__init__(kind, counts)
        self._values = values
        self._books = books
        self._places = places
        self._told: dict[str, object] = {}

    # --- publishing ---

    def start_over(self, *, same_history: bool) -> None:
        """See `books.Listener`."""
        books = self._books
        self._told = {symbol: self._values.value(symbol) for symbol in books.markets}
        if not same_history:
            self.end(ErrorReason.NOT_READY)
        for feed in self._feeds.values():
            feed.publish(self._snapshot(feed), books.sequence, books.frame_hash, snapshot=True)

    def frame(self, frame: Frame) -> None:
        """See `books.Listener`."""
        changed = []
        for symbol in self._values.touched(frame):
            value = self._values.value(symbol)
            if self._told.get(symbol) != value:
                self._told[symbol] = value
                changed.append(symbol)
        if changed:
            self.changed(changed, frame.batch.last_sequence, frame.batch.frame_hash)

    def changed(self, symbols: Sequence[str], sequence: int, frame_hash: bytes) -> None:
        """Tell of these markets."""
        for feed in self._feeds.values():
            mine = feed.of(symbols)
            if mine:
                feed.publish(self._values.message(mine), sequence, frame_hash)

    def _snapshot(self, feed: _ValueFeed) -> pb.MarketDataUpdate:
        update = self._values.message(feed.of(self._books.markets))
        update.snapshot = True
        return update

    # --- subscribing ---

    async def serve(self, symbols: Sequence[str], resume_token: str) -> AsyncIterator[bytes]:
        """One subscriber's stream, encoded. No symbols: all markets, those that come later too."""
        if len(symbols) > MAX_SYMBOLS:
            raise ServiceError(
                ErrorReason.INVALID_FIELD,
                f"at most {MAX_SYMBOLS} symbols",
                metadata={"field": "symbols", "value": len(symbols)},
            )
        wanted = frozenset(self._books.market(symbol).symbol for symbol in symbols) or None
        name = self._name(wanted)
        place = await self._places.read(self._places.of(name), resume_token) if resume_token else None
        feed = self._feed(name, wanted)
        feed.idle = 0
        position = feed.position_of(place)
        if position is None:
            position = feed.channel.end
            yield feed.first(self._snapshot(feed))
        async for message in feed.follow(position, self._slow):
            yield message

    def _name(self, symbols: frozenset[str] | None) -> str:
        if symbols is None:
            return self.kind
        return f"{self.kind}:{hashlib.sha256(' '.join(sorted(symbols)).encode()).hexdigest()[:16]}"

    def _feed(self, name: str, symbols: frozenset[str] | None) -> _ValueFeed:
        feed = self._feeds.get(name)
        if feed is None:
            if len(self._feeds) >= MAX_SETS:
                raise ServiceError(
                    ErrorReason.TOO_MANY_STREAMS, metadata={"limit": f"{MAX_SETS} different sets of markets"}
                )
            books = self._books
            feed = self._feeds[name] = _ValueFeed(
                symbols, self._places.of(name), books.sequence, books.frame_hash, pb.MarketDataUpdate, self._count
            )
        return feed


class BestPrices:
    """Best price and quantity of each side."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def touched(self, frame: Frame) -> Iterable[str]:
        """See `Values`."""
        return frame.books | frame.markets

    def value(self, symbol: str) -> tuple[int, int, int, int]:
        """(bid ticks, bid lots, ask ticks, ask lots); zeros for an empty side."""
        book = self._books.markets[symbol].book
        bids, asks = book.bids, book.asks
        bid = bids.keys[-1] if bids.keys else 0
        ask = -asks.keys[-1] if asks.keys else 0
        return bid, bids.levels[bid][0] if bid else 0, ask, asks.levels[ask][0] if ask else 0

    def message(self, symbols: Iterable[str]) -> pb.MarketDataUpdate:
        """See `Values`."""
        update = pb.MarketDataUpdate()
        update.best_prices.SetInParent()
        for symbol in symbols:
            book = self._books.markets[symbol].book
            bid, bid_lots, ask, ask_lots = self.value(symbol)
            one = update.best_prices.best_prices.add(symbol=symbol)
            if bid:
                one.bid_price, one.bid_quantity = book.prices.text(bid), book.quantities.text(bid_lots)
            if ask:
                one.ask_price, one.ask_quantity = book.prices.text(ask), book.quantities.text(ask_lots)
        return update


class Statuses:
    """Whether and how markets trade."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def touched(self, frame: Frame) -> Iterable[str]:
        """See `Values`."""
        return list(self._books.markets) if frame.switches else frame.markets

    def value(self, symbol: str) -> tuple[int, bool, bool, bool]:
        """(mode, maintenance, circuit breaker, accepts new orders)."""
        switches = self._books.switches
        return (
            self._books.markets[symbol].mode,
            switches.maintenance,
            switches.circuit_breaker,
            switches.accept_new_orders,
        )

    def message(self, symbols: Iterable[str]) -> pb.MarketDataUpdate:
        """See `Values`."""
        update = pb.MarketDataUpdate()
        update.statuses.SetInParent()
        for symbol in symbols:
            mode, maintenance, circuit_breaker, accepts = self.value(symbol)
            update.statuses.statuses.add(
                symbol=symbol,
                mode=mode,
                maintenance=maintenance,
                circuit_breaker=circuit_breaker,
                accepts_new_orders=accepts,
            )
        return update

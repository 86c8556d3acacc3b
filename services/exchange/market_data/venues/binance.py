"""Binance's public streams: diff. depth, trade and book ticker of each market, on one combined connection.

By Binance's own description (binance-spot-api-docs, web-socket-streams.md, "How to manage a local order book correctly"):
buffer the depth events, fetch a snapshot, drop what it contains (`u <= lastUpdateId`), and from then on each event must begin
where the last one ended (`U <= id + 1`). The futures' streams say so by `pu` as well, the last event's `u`; where it is there it
is checked. The book ticker names the update that it belongs to: where it is our book's, best prices and quantities must be equal.
A book that fails begins anew by a new snapshot; the connection and the other books stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from exchange.market_data.venues.book import VenueBook
from exchange.market_data.venues.dialect import (
    Broken,
    Counts,
    Fault,
    Heard,
    decoded,
    inverted,
    levels_of,
    number,
    price_of,
)

# Depth events that wait for a snapshot, at ten a second.
MAX_BUFFERED: Final = 2_000
SNAPSHOT_LEVELS: Final = 1_000
_NS_PER_MS: Final = 1_000_000

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Ms = Annotated[int, msgspec.Meta(ge=0, le=2**43)]
_Pairs = list[tuple[str, str]]


class _Envelope(msgspec.Struct):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()
    # An answer or an error has these instead.
    error: msgspec.Raw = msgspec.Raw()
    code: int | None = None
    msg: str = ""


class _Depth(msgspec.Struct):
    event_ms: _Ms = msgspec.field(name="E")
    first: _Id = msgspec.field(name="U")
    last: _Id = msgspec.field(name="u")
    bids: _Pairs = msgspec.field(name="b")
    asks: _Pairs = msgspec.field(name="a")
    previous: _Id | None = msgspec.field(name="pu", default=None)


class _Trade(msgspec.Struct):
    event_ms: _Ms = msgspec.field(name="E")
    price: str = msgspec.field(name="p")


class _Ticker(msgspec.Struct):
    update: _Id = msgspec.field(name="u")
    bid: str = msgspec.field(name="b")
    bid_quantity: str = msgspec.field(name="B")
    ask: str = msgspec.field(name="a")
    ask_quantity: str = msgspec.field(name="A")


class _Snapshot(msgspec.Struct):
    last: _Id = msgspec.field(name="lastUpdateId")
    bids: _Pairs
    asks: _Pairs


@dataclass(slots=True)
class _Market:
    """The book of one market on its way to being whole; `update` is the id that it is at."""

    symbol: str
    update: int = -1
    # Nothing was applied since the snapshot.
    fresh: bool = True
    waiting: list[_Depth] = field(default_factory=list)
    asked: bool = False
    ticker: _Ticker | None = None


class BinanceDialect:
    """One connection. `products` are Binance's names by ours, such as BTCUSD: BTCUSDT."""

    def __init__(self, products: Mapping[str, str], counts: Counts) -> None:
        self.symbols = tuple(products)
        self.books: dict[str, VenueBook] = {}
        self._products = products
        self._by_stream = {product.lower(): symbol for product, symbol in inverted(products).items()}
        self._markets = {symbol: _Market(symbol) for symbol in products}
        self.counts = counts

    def path(self) -> str:
        """All streams of all markets."""
        names = (
            f"{product.lower()}@{stream}"
            for product in self._products.values()
            for stream in ("depth@100ms", "trade", "bookTicker")
        )
        return f"/stream?streams={'/'.join(names)}"

    def greeting(self) -> Sequence[str]:
        """None: the path says it."""
        return ()

    def receive(self, message: str | bytes) -> Heard:
        """Take a message. Raises Broken for what is no message of Binance, and for a refusal."""
        envelope = decoded(message, _Envelope)
        if envelope.error or envelope.code is not None:
            raise Broken(Fault.REFUSED, f"Binance says {envelope.msg or bytes(envelope.error).decode()[:200]!r}")
        product, _, stream = envelope.stream.partition("@")
        symbol = self._by_stream.get(product)
        if symbol is None:
            # The answer to a request, or an announcement: none of a market's.
            return Heard()
        market = self._markets[symbol]
        if stream.startswith("depth"):
            return self._depth(market, decoded(envelope.data, _Depth))
        if stream == "trade":
            trade = decoded(envelope.data, _Trade)
            return Heard(trade.event_ms * _NS_PER_MS, trades={symbol: price_of(trade.price)})
        if stream == "bookTicker":
            market.ticker = decoded(envelope.data, _Ticker)
            return self._compare(market, Heard())
        return Heard()

    def snapshots_wanted(self) -> Sequence[str]:
        """Markets of which an event has come: a snapshot from before it would leave a hole."""
        wanted = [
            one for one in self._markets.values() if one.waiting and not one.asked and one.symbol not in self.books
        ]
        for market in wanted:
            market.asked = True
        return [market.symbol for market in wanted]

    def snapshot_path(self, symbol: str) -> str:
        """The depth endpoint of the REST interface."""
        return f"/api/v3/depth?symbol={self._products[symbol]}&limit={SNAPSHOT_LEVELS}"

    def snapshot(self, symbol: str, body: bytes) -> Heard:
        """Begin a book with it, and with the events that came meanwhile; one that is too old is asked for again."""
        found = decoded(body, _Snapshot)
        market = self._markets[symbol]
        market.asked = False
        if market.waiting and found.last + 1 < market.waiting[0].first:
            return Heard()
        self.books[symbol] = VenueBook(levels_of(found.bids), levels_of(found.asks))
        market.update, market.fresh = found.last, True
        waiting, market.waiting = market.waiting, []
        heard = Heard(moved={symbol})
        for number_of, event in enumerate(waiting):
            self._apply(market, event, heard)
            if symbol not in self.books:
                # A hole among those that waited: what comes after it may still follow another snapshot.
                market.waiting += waiting[number_of + 1 :]
                break
        return heard

    def snapshot_failed(self, symbol: str) -> None:
        """It is wanted again."""
        self._markets[symbol].asked = False

    def _depth(self, market: _Market, event: _Depth) -> Heard:
        heard = Heard(event.event_ms * _NS_PER_MS)
        if market.symbol in self.books:
            self._apply(market, event, heard)
        elif len(market.waiting) >= MAX_BUFFERED:
            raise Broken(Fault.SILENT, f"no snapshot of {market.symbol} for {MAX_BUFFERED} events")
        else:
            market.waiting.append(event)
        return heard

    def _apply(self, market: _Market, event: _Depth, heard: Heard) -> None:
        if event.last <= market.update:
            return
        follows = event.first <= market.update + 1
        if event.previous is not None and not market.fresh:
            # Futures' ids have holes of their own, which `pu` bridges.
            follows = event.previous == market.update
        if not follows or event.first > event.last:
            self._begin_anew(market, Fault.GAP, heard)
            market.waiting.append(event)
            return
        self.books[market.symbol].apply(levels_of(event.bids), levels_of(event.asks))
        market.update, market.fresh = event.last, False
        heard.moved.add(market.symbol)
        self._compare(market, heard)

    def _compare(self, market: _Market, heard: Heard) -> Heard:
        """Best prices and quantities as the book ticker says them, where it speaks of the update that we are at."""
        ticker, book = market.ticker, self.books.get(market.symbol)
        if ticker is None or book is None or ticker.update != market.update:
            return heard
        market.ticker = None
        said = (
            (price_of(ticker.bid), number(ticker.bid_quantity)),
            (price_of(ticker.ask), number(ticker.ask_quantity)),
        )
        if said != (book.best_bid, book.best_ask):
            self._begin_anew(market, Fault.MISMATCH, heard)
        return heard

    def _begin_anew(self, market: _Market, fault: Fault, heard: Heard) -> None:
        self.counts.count(fault)
        self.books.pop(market.symbol, None)
        market.update, market.asked, market.ticker = -1, False, None
        market.waiting.clear()
        heard.moved.add(market.symbol)

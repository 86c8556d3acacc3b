"""Tickers: the last 24 hours of each market beside the best prices of its book."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from exchange.market_data.candles import NANOSECONDS
from exchange.market_data.service.caching import NOW, may_be_kept
from exchange.market_data.service.feeds import Feed, FeedSet
from exchange.market_data.service.published import frame_hash_of, known_market, place_of, published
from exchange.market_data.service.value_streams import MAX_SETS, MAX_SYMBOLS
from exchange.market_data.tickers import NOTHING
from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.feeds.notices import set_time
from exchange.runtime.fields import fingerprint
from pincex.marketdata.v1 import market_data_service_pb2 as pb
from pincex.marketdata.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exchange.market_data.book import OrderBook
    from exchange.market_data.books import Books, Market
    from exchange.market_data.candles import Candle
    from exchange.market_data.history import Frame, History
    from exchange.market_data.service.feeds import Counts
    from exchange.market_data.service.places import Places
    from exchange.runtime.clock import Clock
    from exchange.runtime.feeds.levels import LevelSide
    from exchange.runtime.feeds.tokens import Tokens

# A ticker is sent at most so often.
EVERY_S: Final = 1.0


class _Feed(Feed):
    """The stream of some markets, or of all for (); `sent` is what was told last of each."""

    def __init__(self, symbols: tuple[str, ...], sent: dict[str, bytes], *args: Any) -> None:
        super().__init__(*args)
        self.symbols = symbols
        self.sent = sent


class TickerService(FeedSet[tuple[str, ...], _Feed]):
    """GetTicker, ListTickers and StreamTickers; a listener of the history, and a `feeds.StreamKind`. `run` sends what changed."""

    def __init__(self, history: History, books: Books, places: Places, counts: Counts, clock: Clock) -> None:
        super().__init__("tickers", counts)
        self._history = history
        self._books = books
        self._places = places
        self._clock = clock
        self._second = 0

    async def GetTicker(self, request: pb.GetTickerRequest, context: Any) -> types_pb2.Ticker:
        """One market."""
        message = self._ticker(known_market(self._books, request.symbol))
        self._stamp(message)
        await may_be_kept(context, NOW)
        return message

    async def ListTickers(self, request: pb.ListTickersRequest, context: Any) -> pb.ListTickersResponse:
        """One page, by symbol."""
        size = paging.page_size(request.page_size)
        after = paging.read_token(request.page_token, "tickers")
        symbols = sorted(symbol for symbol in self._books.markets if symbol > after)
        response = pb.ListTickersResponse()
        for symbol in symbols[:size]:
            message = self._ticker(self._books.markets[symbol])
            self._stamp(message)
            response.tickers.append(message)
        if len(symbols) > size:
            response.next_page_token = paging.make_token(symbols[size - 1], "tickers")
        await may_be_kept(context, NOW)
        return response

    async def StreamTickers(self, request: pb.StreamTickersRequest, context: Any) -> AsyncIterator[bytes]:
        """All that were asked for, then those that changed. Encoded."""
        symbols = self._symbols(request.symbols)
        tokens = self._places.of(f"tickers:{fingerprint(*symbols).hex()[:16] if symbols else ''}")
        place = await place_of(self._places, tokens, request.resume_token, self._history)
        feed = self._feed(symbols, tokens)
        feed.idle = 0
        position = feed.channel.end
        # What was told last, so that all who follow know the same: the next messages say what changed since.
        update = self._update(types_pb2.Ticker.FromString(sent) for sent in feed.sent.values())
        update.snapshot = place is None
        last = feed.channel.last_sequence
        yield feed.encode(update, last, place.sequence if place is not None else 0, feed.frame_hash)
        async for message in feed.follow(position, self._slow):
            yield message

    def _feed(self, symbols: tuple[str, ...], tokens: Tokens) -> _Feed:
        days = published(self._history)
        feed = self._feeds.get(symbols)
        if feed is None:
            if len(self._feeds) >= MAX_SETS:
                raise ServiceError(
                    ErrorReason.TOO_MANY_STREAMS, metadata={"limit": f"{MAX_SETS} different sets of markets"}
                )
            sent = {message.symbol: message.SerializeToString() for message in self._of(symbols)}
            place = (days.sequence, frame_hash_of(days.resume_token))
            feed = self._feeds[symbols] = _Feed(symbols, sent, tokens, *place, pb.MarketDataUpdate, self._count)
        return feed

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.publish()

    def publish(self) -> None:
        """Send the tickers that changed."""
        days = self._history.days
        if not self._feeds or days is None:
            return
        frame_hash = frame_hash_of(days.resume_token)
        now = {message.symbol: message for message in self._of(())}
        content = {symbol: message.SerializeToString() for symbol, message in now.items()}
        for feed in self._feeds.values():
            wanted = feed.symbols or tuple(now)
            changed = [symbol for symbol in wanted if symbol in now and feed.sent.get(symbol) != content[symbol]]
            if changed:
                feed.sent |= {symbol: content[symbol] for symbol in changed}
                feed.publish(self._update(now[symbol] for symbol in changed), days.sequence, frame_hash)

    # --- all streams ---

    def frame(self, frame: Frame, candles: list[Candle]) -> None:
        """See `history.Listener`: tickers are looked at once a second."""

    def stopped(self) -> None:
        """See `history.Listener`."""
        self.end(ErrorReason.NOT_READY)

    # --- messages ---

    def _symbols(self, asked: Iterable[str]) -> tuple[str, ...]:
        """Canonical, sorted, each once; () for all. Raises ServiceError UNKNOWN_SYMBOL, INVALID_FIELD."""
        names = list(asked)
        if len(names) > MAX_SYMBOLS:
            raise ServiceError(
                ErrorReason.INVALID_FIELD,
                f"at most {MAX_SYMBOLS} symbols; none means all",
                metadata={"field": "symbols", "value": len(names)},
            )
        return tuple(sorted({known_market(self._books, name).symbol for name in names}))

    def _of(self, symbols: Iterable[str]) -> list[types_pb2.Ticker]:
        found = (self._books.markets.get(symbol) for symbol in symbols or sorted(self._books.markets))
        return [self._ticker(market) for market in found if market is not None]

    def _ticker(self, market: Market) -> types_pb2.Ticker:
        """All but when and at which sequence. Raises ServiceError NOT_READY."""
        days = published(self._history)
        # A clock that is set back, or lies behind the engine's, must not move the window back.
        self._second = max(self._second, self._clock.time_ns() // NANOSECONDS, days.time_ns // NANOSECONDS)
        window = days.windows.get(market.symbol)
        summary = window.at(self._second) if window is not None else NOTHING
        bid, bid_quantity = _best(market.book, market.book.bids)
        ask, ask_quantity = _best(market.book, market.book.asks)
        return types_pb2.Ticker(
            symbol=market.symbol,
            last_price=_text(summary.last_price),
            last_quantity=_text(summary.last_quantity),
            best_bid=bid,
            best_bid_quantity=bid_quantity,
            best_ask=ask,
            best_ask_quantity=ask_quantity,
            open_price=_text(summary.open_price),
            high_price=_text(summary.high_price),
            low_price=_text(summary.low_price),
            volume=_text(summary.volume),
            quote_volume=_text(summary.quote_volume),
            trade_count=summary.trade_count,
            price_change=_text(summary.price_change),
        )

    def _stamp(self, message: types_pb2.Ticker) -> None:
        # Book and trades are two copies of one history: all up to here is in both.
        message.sequence = min(self._books.sequence, self._history.sequence)
        set_time(message.ticker_time, self._second * NANOSECONDS)

    def _update(self, tickers: Iterable[types_pb2.Ticker]) -> pb.MarketDataUpdate:
        batch = pb.TickerBatch(tickers=tickers)
        for message in batch.tickers:
            self._stamp(message)
        return pb.MarketDataUpdate(tickers=batch)


def _best(book: OrderBook, side: LevelSide) -> tuple[str, str]:
    """Price and quantity; empty where the side is."""
    for price in side.best(1):
        return book.prices.text(price), book.quantities.text(side.levels[price][0])
    return "", ""


def _text(value: Decimal | None) -> str:
    return "" if value is None else format(value, "f")

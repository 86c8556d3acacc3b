"""The parts of market data, wired: the follower and the books, what is sent of them, and the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exchange.market_data.books import Books
from exchange.market_data.follower import Follower
from exchange.market_data.history import History
from exchange.market_data.metrics import HistoryMetrics, MarketDataMetrics
from exchange.market_data.service.book_streams import BookStreams
from exchange.market_data.service.candles import CandleService
from exchange.market_data.service.feeds import Counts
from exchange.market_data.service.history import TradeHistory
from exchange.market_data.service.history_intake import frame_of
from exchange.market_data.service.market import MarketService
from exchange.market_data.service.market_data import MarketDataAdminService, MarketDataService
from exchange.market_data.service.order_streams import OrderStreams
from exchange.market_data.service.past import Past
from exchange.market_data.service.places import Places
from exchange.market_data.service.reading import Reading
from exchange.market_data.service.source import EventSource
from exchange.market_data.service.streams import Streams
from exchange.market_data.service.tickers import TickerService
from exchange.market_data.service.trade_streams import TradeStreams
from exchange.market_data.service.value_streams import BestPrices, Statuses, ValueStreams
from exchange.runtime.event_feed import EventFeed, FeedError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from prometheus_client import CollectorRegistry

    from exchange.runtime.clock import Clock
    from exchange.runtime.database import Database
    from exchange.runtime.drain import Drain
    from exchange.runtime.internal_client import InternalClient


class BookPart:
    """The follower, the books, and their streams."""

    def __init__(self, client: InternalClient, clock: Clock, drain: Drain, registry: CollectorRegistry) -> None:
        past = Past(client)
        self.counts = Counts()
        self.follower = Follower(EventSource(client), clock)
        self.places = Places(self.follower, past.check)
        self.books = Books()
        # In this order: tokens name places that are known, and streams tell of books that are there.
        self.follower.subscribe(self.places)
        self.follower.subscribe(self.books)
        self.book_streams = BookStreams(self.books, self.places, self.counts)
        self.order_streams = OrderStreams(self.books, self.places, self.counts)
        self.trade_streams = TradeStreams(self.books, self.places, past, self.counts)
        self.best_prices = ValueStreams("best-prices", BestPrices(self.books), self.books, self.places, self.counts)
        self.statuses = ValueStreams("market-status", Statuses(self.books), self.books, self.places, self.counts)
        self.streams = Streams(self.follower, clock, drain, self.counts)
        for kind in (self.book_streams, self.order_streams, self.trade_streams, self.best_prices, self.statuses):
            self.books.add(kind)
            self.streams.add(kind)
        reading = Reading(self.follower, self.books, client)
        self.market = MarketService(self.books, reading, self.book_streams, self.trade_streams, client)
        self.metrics = MarketDataMetrics(registry, self.follower, self.books, self.streams)

    def tasks(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What runs until the end."""
        streams = self.streams
        return self.follower.run(), self.book_streams.conflate(), streams.heartbeats(), streams.end_on_drain()

    async def best_of_own_book(self, symbol: str) -> tuple[str, str]:
        """Best bid and ask of a market here, empty where there is none."""
        market = self.books.markets.get(symbol)
        if market is None:
            return "", ""
        book = market.book
        return tuple(  # type: ignore[return-value]
            book.prices.text(side.best(1)[0]) if side.keys else "" for side in (book.bids, book.asks)
        )


class HistoryPart:
    """Candles, tickers, and trades of the past."""

    def __init__(
        self,
        part: BookPart,
        client: InternalClient,
        clock: Clock,
        database: Database,
        database_url: str,
        instance: str,
        registry: CollectorRegistry,
    ) -> None:
        self.history = History(
            database_url, instance, EventFeed(client, through_restores=True), frame_of, passing=(FeedError,)
        )
        shared = (part.books, part.places, part.counts)
        self.tickers = TickerService(self.history, *shared, clock)
        self.candles = CandleService(self.history, database, *shared)
        self.trades = TradeHistory(database, part.books)
        part.streams.add(self.tickers, self.candles)
        self.metrics = HistoryMetrics(registry, self.history)
        self.history.listen(self.tickers)
        self.history.listen(self.candles)

    def tasks(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What runs until the end."""
        return self.history.run(), self.tickers.run()


def services_of(
    instance: str, part: BookPart, history: HistoryPart
) -> tuple[MarketService, MarketDataService, MarketDataAdminService]:
    """What is served of both."""
    market_data = MarketDataService(
        books=part.book_streams,
        orders=part.order_streams,
        best_prices=part.best_prices,
        statuses=part.statuses,
        tickers=history.tickers,
        candles=history.candles,
        trades=history.trades,
    )
    status = MarketDataAdminService(instance, part.follower, part.books, part.streams, history.history)
    return part.market, market_data, status

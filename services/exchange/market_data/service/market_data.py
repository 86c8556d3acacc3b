"""MarketDataService: streams from the books, tickers and candles from the history. And what operators see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pincex.marketdata.v1 import market_data_service_pb2 as pb
from pincex.marketdata.v1 import market_data_service_pb2_grpc, types_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from exchange.market_data.books import Books
    from exchange.market_data.follower import Follower
    from exchange.market_data.history import History
    from exchange.market_data.service.book_streams import BookStreams
    from exchange.market_data.service.candles import CandleService
    from exchange.market_data.service.history import TradeHistory
    from exchange.market_data.service.order_streams import OrderStreams
    from exchange.market_data.service.streams import Streams
    from exchange.market_data.service.tickers import TickerService
    from exchange.market_data.service.value_streams import ValueStreams


class MarketDataService(market_data_service_pb2_grpc.MarketDataServiceServicer):
    """See `proto/pincex/marketdata/v1/market_data_service.proto`."""

    def __init__(
        self,
        *,
        books: BookStreams,
        orders: OrderStreams,
        best_prices: ValueStreams,
        statuses: ValueStreams,
        tickers: TickerService,
        candles: CandleService,
        trades: TradeHistory,
    ) -> None:
        self._books = books
        self._orders = orders
        self._best_prices = best_prices
        self._statuses = statuses
        self._tickers = tickers
        self._candles = candles
        self._trades = trades

    def StreamBook(self, request: pb.StreamBookRequest, context: Any) -> AsyncIterator[Any]:
        """The book by levels, at once or conflated."""
        return self._books.serve(request.symbol, request.depth, request.interval_ms, request.resume_token)

    def StreamBookOrders(self, request: pb.StreamBookOrdersRequest, context: Any) -> AsyncIterator[Any]:
        """The book order by order."""
        return self._orders.serve(request.symbol, request.resume_token)

    def StreamBestPrices(self, request: pb.StreamBestPricesRequest, context: Any) -> AsyncIterator[Any]:
        """Best prices, whenever they change."""
        return self._best_prices.serve(request.symbols, request.resume_token)

    def StreamMarketStatus(self, request: pb.StreamMarketStatusRequest, context: Any) -> AsyncIterator[Any]:
        """Whether and how markets trade."""
        return self._statuses.serve(request.symbols, request.resume_token)

    async def ListTickers(self, request: pb.ListTickersRequest, context: Any) -> pb.ListTickersResponse:
        """All markets, by symbol."""
        return await self._tickers.ListTickers(request, context)

    async def GetTicker(self, request: pb.GetTickerRequest, context: Any) -> types_pb2.Ticker:
        """One market."""
        return await self._tickers.GetTicker(request, context)

    def StreamTickers(self, request: pb.StreamTickersRequest, context: Any) -> AsyncIterator[Any]:
        """Tickers, at most once a second each."""
        return self._tickers.StreamTickers(request, context)

    async def ListCandles(self, request: pb.ListCandlesRequest, context: Any) -> pb.ListCandlesResponse:
        """Candles of any past."""
        return await self._candles.ListCandles(request, context)

    def StreamCandles(self, request: pb.StreamCandlesRequest, context: Any) -> AsyncIterator[Any]:
        """The candle of now."""
        return self._candles.StreamCandles(request, context)

    async def ListTradeHistory(self, request: pb.ListTradeHistoryRequest, context: Any) -> pb.ListTradeHistoryResponse:
        """Trades of any past."""
        return await self._trades.ListTradeHistory(request, context)


class MarketDataAdminService(market_data_service_pb2_grpc.MarketDataAdminServiceServicer):
    """How this instance stands."""

    def __init__(self, instance: str, follower: Follower, books: Books, streams: Streams, history: History) -> None:
        self._instance = instance
        self._follower = follower
        self._books = books
        self._streams = streams
        self._history = history

    async def GetMarketDataStatus(self, request: pb.GetMarketDataStatusRequest, context: Any) -> pb.MarketDataStatus:
        """Sequences, verified books, subscribers."""
        history = self._history
        state = f"{history.state}: {history.problem}" if history.problem else str(history.state)
        return pb.MarketDataStatus(
            instance=self._instance,
            sequence=self._follower.sequence,
            head_sequence=self._follower.head_sequence,
            books_verified=self._books.verified,
            books_differed=self._books.differed,
            subscribers=self._streams.subscribers(),
            slow_consumers_closed=sum(self._streams.slow_closed.values()),
            history_state=state,
            history_sequence=history.sequence,
        )

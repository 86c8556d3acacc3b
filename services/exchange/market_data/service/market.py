"""MarketService, as the engines serve it, from the books of this service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from exchange.market_data.service.caching import NEVER, NOW, PAST, may_be_kept
from exchange.market_data.service.trade_streams import trade_message
from exchange.runtime import paging
from exchange.runtime.feeds.book_answer import book_message, checked_depth
from exchange.runtime.feeds.levels import CHECKSUM_LEVELS
from exchange.runtime.feeds.views import BookView, SideView
from pincex.trading.v1 import market_service_pb2 as pb
from pincex.trading.v1 import market_service_pb2_grpc, types_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from exchange.market_data.books import Books, Market
    from exchange.market_data.service.book_streams import BookStreams
    from exchange.market_data.service.reading import Reading
    from exchange.market_data.service.trade_streams import TradeStreams
    from exchange.runtime.feeds.levels import LevelSide
    from exchange.runtime.internal_client import InternalClient

MAX_TRADES: Final = 1_000


class MarketService(market_service_pb2_grpc.MarketServiceServicer):
    """See `proto/pincex/trading/v1/market_service.proto`."""

    def __init__(
        self, books: Books, reading: Reading, book_streams: BookStreams, trades: TradeStreams, client: InternalClient
    ) -> None:
        self._books = books
        self._reading = reading
        self._book_streams = book_streams
        self._trades = trades
        self._client = client

    async def ListMarkets(self, request: pb.ListMarketsRequest, context: Any) -> pb.ListMarketsResponse:
        """All markets, by symbol."""
        size = paging.page_size(request.page_size)
        after = paging.read_token(request.page_token, "markets")
        await self._reading.fresh()
        markets = sorted(
            (market for market in self._books.markets.values() if market.symbol > after),
            key=lambda market: market.symbol,
        )
        response = pb.ListMarketsResponse(markets=[self._message(market) for market in markets[:size]])
        if len(markets) > size:
            response.next_page_token = paging.make_token(markets[size - 1].symbol, "markets")
        return response

    async def GetMarket(self, request: pb.GetMarketRequest, context: Any) -> types_pb2.Market:
        """One market."""
        await self._reading.fresh()
        return self._message(self._books.market(request.symbol))

    def _message(self, market: Market) -> types_pb2.Market:
        message = types_pb2.Market.FromString(market.definition)
        message.mode = market.mode  # type: ignore[assignment]
        if market.last_price:
            message.last_price = message.reference_price = market.last_price
        message.sequence = self._books.sequence
        return message

    async def GetOrderBook(self, request: pb.GetOrderBookRequest, context: Any) -> pb.OrderBook:
        """The aggregated book, now or, from the engine, as it was."""
        depth = checked_depth(request.depth)
        if request.as_of_sequence:
            stub: Any = market_service_pb2_grpc.MarketServiceStub(self._client.channel)
            past: pb.OrderBook = await self._client.call(stub.GetOrderBook, request, repeatable=True, try_s=9.0)
            await may_be_kept(context, PAST)
            return past
        await self._reading.reach(request.min_sequence)
        # Looked up twice: a refusal has no headers, and the book must be of after the wait.
        self._books.market(request.symbol)
        await may_be_kept(context, NEVER if request.min_sequence else NOW)
        market = self._books.market(request.symbol)
        book, shown = market.book, max(depth, CHECKSUM_LEVELS)
        view = BookView(
            market.symbol, self._books.sequence, market.mode, _side(book.bids, shown), _side(book.asks, shown)
        )
        return book_message(view, book.prices.text, book.quantities.text, depth)

    async def ListMarketTrades(self, request: pb.ListMarketTradesRequest, context: Any) -> pb.ListMarketTradesResponse:
        """The latest trades of a market, newest first."""
        size = paging.page_size(request.page_size, MAX_TRADES)
        await self._reading.fresh()
        market = self._books.market(request.symbol)
        before = paging.number_position(request.page_token, market.symbol)
        page, following = market.tape.before(before, size)
        response = pb.ListMarketTradesResponse(trades=[trade_message(trade) for trade in page])
        if following:
            response.next_page_token = paging.make_token(str(following), market.symbol)
        await may_be_kept(context, PAST if before else NOW)
        return response

    def StreamOrderBook(self, request: pb.StreamOrderBookRequest, context: Any) -> AsyncIterator[Any]:
        """The book as a stream."""
        return self._book_streams.serve(request.symbol, request.depth, 0, request.resume_token)

    def StreamTrades(self, request: pb.StreamTradesRequest, context: Any) -> AsyncIterator[Any]:
        """Trades as they happen."""
        return self._trades.serve(request.symbol, request.resume_token)


def _side(side: LevelSide, depth: int) -> SideView:
    levels = side.levels
    best = [(price, levels[price][0], levels[price][1]) for price in side.best(depth)]
    lots = orders = 0
    for level_lots, level_orders in levels.values():
        lots += level_lots
        orders += level_orders
    return SideView(best, len(levels), orders, lots)

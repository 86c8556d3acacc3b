"""MarketService: markets, books and trades, for everyone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from exchange.runtime import paging
from exchange.runtime.feeds.book_answer import book_message, checked_depth
from exchange.runtime.feeds.levels import CHECKSUM_LEVELS
from exchange.trading.book_view import view_of
from exchange.trading.core import book
from exchange.trading.core.model import BookSide
from exchange.trading.feeds.tape import TradeTape
from exchange.trading.past.books import PastBooks
from exchange.trading.service.book_stream import BookStreams
from exchange.trading.service.desk import Desk
from exchange.trading.service.messages import market_message, trade_message
from exchange.trading.service.past import past_reasons
from exchange.trading.service.trade_stream import TradeStreams
from exchange.trading.service.units import MarketUnits
from pincex.trading.v1 import market_service_pb2 as pb
from pincex.trading.v1 import market_service_pb2_grpc, types_pb2

MAX_TRADES: Final = 1_000


class MarketService(market_service_pb2_grpc.MarketServiceServicer):
    """See `proto/pincex/trading/v1/market_service.proto`."""

    def __init__(self, desk: Desk, tape: TradeTape, books: BookStreams, trades: TradeStreams) -> None:
        self._desk = desk
        self._tape = tape
        self._books = books
        self._trades = trades
        self._past = PastBooks(desk.journal)

    async def ListMarkets(self, request: pb.ListMarketsRequest, context: Any) -> pb.ListMarketsResponse:
        """All markets, by symbol."""
        size = paging.page_size(request.page_size)
        after = paging.read_token(request.page_token, "markets")
        desk = self._desk
        await desk.fresh()
        markets = sorted(
            (market for market in desk.state.markets if market.symbol > after), key=lambda market: market.symbol
        )
        response = pb.ListMarketsResponse()
        for market in markets[:size]:
            response.markets.append(market_message(market, desk.units(market.index), desk.state.sequence))
        if len(markets) > size:
            response.next_page_token = paging.make_token(markets[size - 1].symbol, "markets")
        await desk.settle()
        return response

    async def GetMarket(self, request: pb.GetMarketRequest, context: Any) -> types_pb2.Market:
        """One market."""
        await self._desk.fresh()
        market, units = self._desk.market(request.symbol)
        message = market_message(market, units, self._desk.state.sequence)
        await self._desk.settle()
        return message

    async def GetOrderBook(self, request: pb.GetOrderBookRequest, context: Any) -> pb.OrderBook:
        """The aggregated book, now or as it was. With both sequences set, `min_sequence` is waited for first."""
        depth = checked_depth(request.depth)
        desk = self._desk
        await desk.reach(request.min_sequence)
        if request.as_of_sequence:
            return await self._past_book(request.symbol, request.as_of_sequence, depth)
        market, units = desk.market(request.symbol)
        message = book_message(
            view_of(market, desk.state.sequence, max(depth, CHECKSUM_LEVELS)), units.price, units.quantity, depth
        )
        await desk.settle()
        return message

    async def _past_book(self, symbol: str, sequence: int, depth: int) -> pb.OrderBook:
        desk = self._desk
        with past_reasons(symbol):
            await self._past.check(sequence)
            # The scales of a market never change: those of this instance do, once it knows all markets of that time.
            await desk.reach(sequence)
            market, units = desk.market(symbol)
            view = await self._past.book(market.symbol, sequence)
        return book_message(view, units.price, units.quantity, depth)

    async def ListMarketTrades(self, request: pb.ListMarketTradesRequest, context: Any) -> pb.ListMarketTradesResponse:
        """The latest trades of a market, newest first."""
        size = paging.page_size(request.page_size, MAX_TRADES)
        await self._desk.fresh()
        market, units = self._desk.market(request.symbol)
        before = paging.number_position(request.page_token, market.symbol)
        page, following = self._tape.market_trades(market.index, before, size)
        response = pb.ListMarketTradesResponse(
            trades=[trade_message(entry.event, units, entry.sequence, entry.time_ns) for entry in page]
        )
        if following:
            response.next_page_token = paging.make_token(str(following), market.symbol)
        return response

    def StreamOrderBook(self, request: pb.StreamOrderBookRequest, context: Any) -> AsyncIterator[Any]:
        """The book as a stream."""
        return self._books.serve(request.symbol, request.depth, request.resume_token)

    def StreamTrades(self, request: pb.StreamTradesRequest, context: Any) -> AsyncIterator[Any]:
        """Trades as they happen."""
        return self._trades.serve(request.symbol, request.resume_token)


def add_levels(target: Any, side: BookSide, depth: int, units: MarketUnits) -> None:
    """Append the best levels of a side to a repeated PriceLevel."""
    for price, lots, count in book.levels(side, depth):
        target.add(price=units.price(price), quantity=units.quantity(lots), order_count=count)

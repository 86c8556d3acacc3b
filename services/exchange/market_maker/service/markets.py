"""Markets, books, reference prices and balances, from the public edge."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from exchange.market_maker.exchange import Book, Reference
from exchange.market_maker.rules import MAX_LEVELS, MarketRules
from exchange.market_maker.service.edge import Edge, Refused
from pincex.marketdata.v1 import feed_service_pb2, feed_service_pb2_grpc
from pincex.trading.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    market_service_pb2,
    market_service_pb2_grpc,
    order_service_pb2,
    order_service_pb2_grpc,
    types_pb2,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Levels of the book: enough to see past our own.
DEPTH: Final = 2 * MAX_LEVELS
_PAGE: Final = 500
_PPM: Final = 1_000_000
# The engine's own bound of a price, in ticks, lies above.
_HIGHEST_TICKS: Final = 1 << 52
_NO_PRICE: Final = frozenset({"PRICE_UNAVAILABLE", "UNKNOWN_SYMBOL"})


class EdgeMarkets:
    """See `exchange.Markets`."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        channel: Any = edge.channel
        self._markets: Any = market_service_pb2_grpc.MarketServiceStub(channel)
        self._prices: Any = feed_service_pb2_grpc.ReferencePriceServiceStub(channel)
        self._accounts: Any = account_service_pb2_grpc.AccountServiceStub(channel)
        self._orders: Any = order_service_pb2_grpc.OrderServiceStub(channel)

    async def markets(self) -> list[MarketRules]:
        """All of them."""
        request = market_service_pb2.ListMarketsRequest(page_size=_PAGE)
        return [
            rules_of(market)
            async for page in self._pages(self._markets.ListMarkets, request, public=True)
            for market in page.markets
        ]

    async def book(self, symbol: str, min_sequence: int) -> Book:
        """At this sequence or later."""
        request = market_service_pb2.GetOrderBookRequest(symbol=symbol, depth=DEPTH, min_sequence=min_sequence)
        found = await self._edge.call(self._markets.GetOrderBook, request, public=True)
        return Book(
            tuple((Decimal(level.price), Decimal(level.quantity)) for level in found.bids),
            tuple((Decimal(level.price), Decimal(level.quantity)) for level in found.asks),
        )

    async def reference(self, symbol: str) -> Reference | None:
        """None where no venue has a price that counts."""
        request = feed_service_pb2.GetReferencePriceRequest(symbol=symbol)
        try:
            found = await self._edge.call(self._prices.GetReferencePrice, request, public=True)
        except Refused as error:
            if error.reason in _NO_PRICE:
                return None
            raise
        price_time = found.price_time.seconds + found.price_time.nanos / 1e9
        return Reference(Decimal(found.price), time.time() - price_time)

    async def balances(self, min_sequence: int) -> dict[str, Decimal]:
        """What is free, by asset."""
        request = account_service_pb2.ListBalancesRequest(page_size=_PAGE, min_sequence=min_sequence)
        return {
            balance.asset: Decimal(balance.available)
            async for page in self._pages(self._accounts.ListBalances, request)
            for balance in page.balances
        }

    async def open_orders(self) -> int:
        """How many orders of the account are open, up to a page."""
        found = await self._edge.call(self._orders.ListOrders, order_service_pb2.ListOrdersRequest(page_size=_PAGE))
        return len(found.orders)

    async def _pages(self, method: Any, request: Any, *, public: bool = False) -> AsyncIterator[Any]:
        while True:
            page = await self._edge.call(method, request, public=public)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def rules_of(market: types_pb2.Market) -> MarketRules:
    """From the wire. The band is as the engine works it out: a part of the reference, cut to whole ticks."""
    tick, lot = Decimal(market.tick_size), Decimal(market.lot_size)
    last = Decimal(market.reference_price) if market.reference_price else None
    low, high = 1, _HIGHEST_TICKS
    if market.price_band_ppm and last is not None:
        ticks = int(last / tick)
        width = ticks * market.price_band_ppm // _PPM
        low, high = max(ticks - width, 1), ticks + width
    return MarketRules(
        symbol=market.symbol,
        base_asset=market.base_asset,
        quote_asset=market.quote_asset,
        tick=tick,
        lot=lot,
        is_open=market.mode == types_pb2.OPEN,
        takes_cancels=market.mode != types_pb2.HALTED,
        min_lots=int(Decimal(market.min_quantity or "0") / lot),
        max_lots=int(Decimal(market.max_quantity) / lot) if market.max_quantity else 0,
        min_notional=Decimal(market.min_notional or "0"),
        fee_ppm=max(market.maker_fee_ppm, market.taker_fee_ppm),
        low_ticks=low,
        high_ticks=high,
        last_price=last,
    )

"""The answer of `MarketService.GetOrderBook`, whoever keeps the book."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.feeds.levels import CHECKSUM_LEVELS, checksum_of
from exchange.runtime.feeds.views import MAX_DEPTH, BookView
from pincex.trading.v1 import market_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_DEPTH: Final = 50


def checked_depth(depth: int) -> int:
    """A number of levels. Raises ServiceError INVALID_FIELD."""
    if not 0 <= depth <= MAX_DEPTH:
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"depth must lie between 1 and {MAX_DEPTH}",
            metadata={"field": "depth", "value": depth},
        )
    return depth or DEFAULT_DEPTH


def book_message(
    view: BookView, price_text: Callable[[int], str], quantity_text: Callable[[int], str], depth: int
) -> pb.OrderBook:
    """A book with at most `depth` levels a side; the view must hold at least those of the checksum."""
    bids, asks = view.bids, view.asks
    message = pb.OrderBook(
        symbol=view.symbol,
        sequence=view.sequence,
        mode=view.mode,  # type: ignore[arg-type]
        bid_order_count=bids.order_count,
        ask_order_count=asks.order_count,
        bid_quantity=quantity_text(bids.lots),
        ask_quantity=quantity_text(asks.lots),
        bid_level_count=bids.level_count,
        ask_level_count=asks.level_count,
        checksum=checksum_of(
            [(price, lots) for price, lots, _ in bids.levels[:CHECKSUM_LEVELS]],
            [(price, lots) for price, lots, _ in asks.levels[:CHECKSUM_LEVELS]],
            price_text,
            quantity_text,
        ),
    )
    for target, side in ((message.bids, bids), (message.asks, asks)):
        for price, lots, count in side.levels[:depth]:
            target.add(price=price_text(price), quantity=quantity_text(lots), order_count=count)
    return message

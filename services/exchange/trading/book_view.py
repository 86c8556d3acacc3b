"""An aggregated book as plain numbers: what of a market's book is shown, whether it is the book in use or one of the past."""

from __future__ import annotations

import msgspec

from exchange.trading.core import book
from exchange.trading.core.model import BookSide, Market


class SideView(msgspec.Struct, frozen=True):
    """One side: its best levels as (price in ticks, lots, orders), best first, and what all its levels hold together."""

    levels: list[tuple[int, int, int]]
    level_count: int
    order_count: int
    lots: int


class BookView(msgspec.Struct, frozen=True, tag="book"):
    """A market's book after `sequence`. `mode` is the market's, as a number of the core."""

    symbol: str
    sequence: int
    mode: int
    bids: SideView
    asks: SideView


def view_of(market: Market, sequence: int, depth: int) -> BookView:
    """The book as it stands, with at most `depth` levels a side."""
    return BookView(market.symbol, sequence, market.mode, _side(market.bids, depth), _side(market.asks, depth))


def _side(side: BookSide, depth: int) -> SideView:
    return SideView(book.levels(side, depth), len(side.keys), side.orders, side.lots)

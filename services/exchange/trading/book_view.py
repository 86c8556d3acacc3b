"""What is shown of a core's book."""

from __future__ import annotations

from exchange.runtime.feeds.views import BookView, SideView
from exchange.trading.core import book
from exchange.trading.core.model import BookSide, Market


def view_of(market: Market, sequence: int, depth: int) -> BookView:
    """The book as it stands, with at most `depth` levels a side."""
    return BookView(market.symbol, sequence, market.mode, _side(market.bids, depth), _side(market.asks, depth))


def _side(side: BookSide, depth: int) -> SideView:
    return SideView(book.levels(side, depth), len(side.keys), side.orders, side.lots)

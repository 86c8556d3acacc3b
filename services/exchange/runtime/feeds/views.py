"""An aggregated book as plain numbers: what of a market's book is shown, whether it is the book in use or one of the past."""

from __future__ import annotations

from typing import Final

import msgspec

# Levels of each side that are shown at most.
MAX_DEPTH: Final = 5_000


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

"""A copy of one market's aggregated book, kept from events alone: what a client keeps, on the server's side."""

from __future__ import annotations

from exchange.runtime.feeds.levels import LevelBook
from exchange.trading.core import book
from exchange.trading.core.events import (
    E_KIND,
    O_MARKET,
    O_PRICE,
    O_SIDE,
    OA_RESTING,
    OC_LOTS,
    OC_WAS_RESTING,
    OD_REDUCED,
    OD_WAS_RESTING,
    OP_OLD_OPEN,
    OP_OLD_PRICE,
    OP_RESTING,
    ORDER_ACCEPTED,
    ORDER_CANCELLED,
    ORDER_REDUCED,
    ORDER_REPLACED,
    ORDER_TRIGGERED,
    OT_RESTING,
    T_LOTS,
    T_MAKER_OPEN,
    T_MARKET,
    T_PRICE,
    T_TAKER_SIDE,
    TRADE,
    Event,
)
from exchange.trading.core.model import Market


class BookMirror(LevelBook):
    """See the module. `sequence` is that of the last command applied."""

    def __init__(self, market: Market, sequence: int) -> None:
        super().__init__()
        self.market = market.index
        self.sequence = sequence
        for side, source in ((self.bids, market.bids), (self.asks, market.asks)):
            for price, lots, count in book.levels(source):
                side.levels[price] = [lots, count]
            side.keys = sorted(price * side.sign for price in side.levels)

    def apply(self, event: Event) -> None:
        """Apply one event of any kind and market, and note which (side, price) changed."""
        kind = event[E_KIND]
        if kind == TRADE:
            if event[T_MARKET] == self.market:
                self.change(3 - event[T_TAKER_SIDE], event[T_PRICE], -event[T_LOTS], 0 if event[T_MAKER_OPEN] else -1)
            return
        if kind not in _CHANGES or event[O_MARKET] != self.market:
            return
        side = event[O_SIDE]
        if kind == ORDER_ACCEPTED:
            if event[OA_RESTING]:
                self.change(side, event[O_PRICE], event[OA_RESTING], 1)
        elif kind == ORDER_CANCELLED:
            if event[OC_WAS_RESTING]:
                self.change(side, event[O_PRICE], -event[OC_LOTS], -1)
        elif kind == ORDER_TRIGGERED:
            if event[OT_RESTING]:
                self.change(side, event[O_PRICE], event[OT_RESTING], 1)
        elif kind == ORDER_REDUCED:
            if event[OD_WAS_RESTING]:
                self.change(side, event[O_PRICE], -event[OD_REDUCED], 0)
        else:
            self.change(side, event[OP_OLD_PRICE], -event[OP_OLD_OPEN], -1)
            if event[OP_RESTING]:
                self.change(side, event[O_PRICE], event[OP_RESTING], 1)


_CHANGES = frozenset({ORDER_ACCEPTED, ORDER_TRIGGERED, ORDER_REDUCED, ORDER_REPLACED, ORDER_CANCELLED})

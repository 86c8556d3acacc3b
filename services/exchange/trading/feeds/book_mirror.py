"""A copy of one market's aggregated book, kept from events alone: what a client keeps, on the server's side."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from zlib import crc32

from exchange.trading.core import book
from exchange.trading.core.constants import BUY, SELL
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

CHECKSUM_LEVELS = 10


class MirrorSide:
    """One side: price in ticks to [lots, orders], and the prices sorted with the best last."""

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.levels: dict[int, list[int]] = {}
        self.keys: list[int] = []

    def change(self, price: int, lots: int, orders: int) -> None:
        """Add to a level, which comes and goes with its orders."""
        level = self.levels.get(price)
        if level is None:
            self.levels[price] = [lots, orders]
            insort(self.keys, price * self.sign)
            return
        level[0] += lots
        level[1] += orders
        if level[1] == 0:
            del self.levels[price]
            del self.keys[bisect_left(self.keys, price * self.sign)]

    def best(self, depth: int) -> list[int]:
        """The best `depth` prices (0: all), best first."""
        keys = self.keys[-depth:] if depth else self.keys
        sign = self.sign
        return [key * sign for key in reversed(keys)]


class BookMirror:
    """See the module. `sequence` is that of the last command applied."""

    def __init__(self, market: Market, sequence: int) -> None:
        self.market = market.index
        self.sequence = sequence
        self.bids = MirrorSide(1)
        self.asks = MirrorSide(-1)
        for side, source in ((self.bids, market.bids), (self.asks, market.asks)):
            for price, lots, count in book.levels(source):
                side.levels[price] = [lots, count]
            side.keys = sorted(price * side.sign for price in side.levels)
        self.changed: set[tuple[int, int]] = set()

    def apply(self, event: Event) -> None:
        """Apply one event of any kind and market, and note which (side, price) changed."""
        kind = event[E_KIND]
        if kind == TRADE:
            if event[T_MARKET] == self.market:
                self._change(3 - event[T_TAKER_SIDE], event[T_PRICE], -event[T_LOTS], 0 if event[T_MAKER_OPEN] else -1)
            return
        if kind not in _CHANGES or event[O_MARKET] != self.market:
            return
        side = event[O_SIDE]
        if kind == ORDER_ACCEPTED:
            if event[OA_RESTING]:
                self._change(side, event[O_PRICE], event[OA_RESTING], 1)
        elif kind == ORDER_CANCELLED:
            if event[OC_WAS_RESTING]:
                self._change(side, event[O_PRICE], -event[OC_LOTS], -1)
        elif kind == ORDER_TRIGGERED:
            if event[OT_RESTING]:
                self._change(side, event[O_PRICE], event[OT_RESTING], 1)
        elif kind == ORDER_REDUCED:
            if event[OD_WAS_RESTING]:
                self._change(side, event[O_PRICE], -event[OD_REDUCED], 0)
        else:
            self._change(side, event[OP_OLD_PRICE], -event[OP_OLD_OPEN], -1)
            if event[OP_RESTING]:
                self._change(side, event[O_PRICE], event[OP_RESTING], 1)

    def _change(self, side: int, price: int, lots: int, orders: int) -> None:
        (self.bids if side == BUY else self.asks).change(price, lots, orders)
        self.changed.add((side, price))

    def take_changes(self) -> tuple[list[int], list[int]]:
        """Prices of bids and of asks that changed since the last call, best first."""
        bids = sorted((price for side, price in self.changed if side == BUY), reverse=True)
        asks = sorted(price for side, price in self.changed if side == SELL)
        self.changed.clear()
        return bids, asks

    def checksum(self, price_text: Callable[[int], str], quantity_text: Callable[[int], str]) -> int:
        """CRC-32 of the ten best levels, as `MarketService.StreamOrderBook` defines it."""
        return checksum_of(
            [(price, self.bids.levels[price][0]) for price in self.bids.best(CHECKSUM_LEVELS)],
            [(price, self.asks.levels[price][0]) for price in self.asks.best(CHECKSUM_LEVELS)],
            price_text,
            quantity_text,
        )


def checksum_of(
    bids: list[tuple[int, int]],
    asks: list[tuple[int, int]],
    price_text: Callable[[int], str],
    quantity_text: Callable[[int], str],
) -> int:
    """CRC-32 (IEEE) over the best (price, lots) of both sides, best first, bid and ask in turn, each as `price:quantity`
    in the text of the wire, all joined by `:`.
    """
    parts: list[str] = []
    for rank in range(max(len(bids), len(asks))):
        parts.extend(
            f"{price_text(side[rank][0])}:{quantity_text(side[rank][1])}" for side in (bids, asks) if rank < len(side)
        )
    return crc32(":".join(parts).encode())


_CHANGES = frozenset({ORDER_ACCEPTED, ORDER_TRIGGERED, ORDER_REDUCED, ORDER_REPLACED, ORDER_CANCELLED})

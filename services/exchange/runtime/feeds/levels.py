"""An aggregated book in ticks and lots, and its checksum."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Final
from zlib import crc32

CHECKSUM_LEVELS: Final = 10
_BUY: Final = 1


class LevelSide:
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


class LevelBook:
    """Both sides. `changed` is what to tell of: (side, price) since `take_changes`; sides are 1 buy, 2 sell."""

    def __init__(self) -> None:
        self.bids = LevelSide(1)
        self.asks = LevelSide(-1)
        self.changed: set[tuple[int, int]] = set()

    def change(self, side: int, price: int, lots: int, orders: int) -> None:
        """Add lots and orders to a level."""
        (self.bids if side == _BUY else self.asks).change(price, lots, orders)
        self.changed.add((side, price))

    def take_changes(self) -> tuple[list[int], list[int]]:
        """Prices of bids and of asks that changed since the last call, best first."""
        bids = sorted((price for side, price in self.changed if side == _BUY), reverse=True)
        asks = sorted(price for side, price in self.changed if side != _BUY)
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

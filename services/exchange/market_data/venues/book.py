"""The book of one market at one venue, by price levels."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from decimal import Decimal
from typing import Final, TypeAlias

# Of each side. Venues send a few thousand; what is farther from the best than so many levels is forgotten.
MAX_LEVELS: Final = 20_000

Level: TypeAlias = tuple[Decimal, Decimal]
"""Price and quantity."""


class _Side:
    """Levels by price; the best is the last of the sorted keys."""

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._keys: list[Decimal] = []
        self._quantities: dict[Decimal, Decimal] = {}

    def set(self, price: Decimal, quantity: Decimal) -> None:
        """Zero removes a level, also one that is not there: venues say so of levels that were never sent."""
        known = price in self._quantities
        if not quantity:
            if known:
                del self._quantities[price]
                del self._keys[bisect_left(self._keys, self._sign * price)]
            return
        self._quantities[price] = quantity
        if not known:
            insort(self._keys, self._sign * price)
            if len(self._keys) > MAX_LEVELS:
                del self._quantities[self._sign * self._keys.pop(0)]

    def best(self) -> Level | None:
        """Price and quantity of the best level."""
        if not self._keys:
            return None
        price = self._sign * self._keys[-1]
        return price, self._quantities[price]

    def __len__(self) -> int:
        return len(self._keys)


class VenueBook:
    """Levels are absolute: each message says how much there is now at a price."""

    def __init__(self, bids: Iterable[Level] = (), asks: Iterable[Level] = ()) -> None:
        self._bids = _Side(1)
        self._asks = _Side(-1)
        self.apply(bids, asks)

    def apply(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Set levels; a quantity of zero removes one."""
        for price, quantity in bids:
            self._bids.set(price, quantity)
        for price, quantity in asks:
            self._asks.set(price, quantity)

    @property
    def best_bid(self) -> Level | None:
        """Price and quantity."""
        return self._bids.best()

    @property
    def best_ask(self) -> Level | None:
        """Price and quantity."""
        return self._asks.best()

    def __len__(self) -> int:
        return len(self._bids) + len(self._asks)

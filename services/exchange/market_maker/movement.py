"""How far a price has moved of late."""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from fractions import Fraction
from typing import Final

WINDOW_S: Final = 60.0
# Prices of one window; the oldest go first.
MAX_PRICES: Final = 600


class Movement:
    """The range of a price within the last WINDOW_S seconds, as a fraction of the newest. Times never fall."""

    def __init__(self) -> None:
        self._prices: deque[tuple[float, Decimal]] = deque(maxlen=MAX_PRICES)

    def add(self, time_s: float, price: Decimal) -> None:
        """A price (above 0) that was seen now."""
        self._prices.append((time_s, price))
        while self._prices[0][0] < time_s - WINDOW_S:
            self._prices.popleft()

    def range(self) -> Fraction:
        """0 before there are two prices."""
        if not self._prices:
            return Fraction(0)
        prices = [price for _, price in self._prices]
        return Fraction(max(prices) - min(prices)) / Fraction(prices[-1])

"""The last 24 hours of a market, to the second: a window that slides over bars of one second.

At second T the window is the 86,400 whole seconds that end with T. What leaves it is taken off exactly what it added, so
that the sums are those of the trades inside, always. For each second that had trades the window keeps one short text: a day
in which every second traded costs some 10 MB, where bars would cost ten times that.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from exchange.market_data.candles import EXACT

if TYPE_CHECKING:
    from exchange.market_data.candles import Bar

WINDOW_S: Final = 86_400
_ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Summary:
    """The window at one second; prices are None where nothing traded yet. `sequence` is that of the last trade."""

    last_price: Decimal | None
    last_quantity: Decimal | None
    open_price: Decimal | None
    high_price: Decimal | None
    low_price: Decimal | None
    volume: Decimal
    quote_volume: Decimal
    trade_count: int
    sequence: int

    @property
    def price_change(self) -> Decimal | None:
        """Last price less the first, with its sign."""
        if self.last_price is None or self.open_price is None:
            return None
        return EXACT.subtract(self.last_price, self.open_price)


NOTHING: Final = Summary(None, None, None, None, None, _ZERO, _ZERO, 0, 0)


class TickerWindow:
    """One market's window. Seconds never go back, neither those of trades nor those of `at`."""

    def __init__(self) -> None:
        # Whole seconds of the window, the oldest first: "start open close volume quote_volume trade_count".
        self._seconds: deque[str] = deque()
        # The newest second, which may still grow; it is in no other place.
        self._newest: Bar | None = None
        # (second, price): the only ones that can still be the highest or lowest, best first.
        self._highs: deque[tuple[int, Decimal]] = deque()
        self._lows: deque[tuple[int, Decimal]] = deque()
        self._volume = self._quote_volume = _ZERO
        self._count = 0
        # Of the trades that have left the window.
        self._before: Decimal | None = None
        self._last_price: Decimal | None = None
        self._last_quantity: Decimal | None = None
        self._sequence = 0

    def begin(self, last_before: Bar) -> None:
        """The last trades that lie before all those that will be added."""
        self._before = self._last_price = last_before.close
        self._last_quantity = last_before.last_quantity
        self._sequence = last_before.sequence

    def add(self, bar: Bar) -> None:
        """Trades of one second, after all those before."""
        newest = self._newest
        if newest is not None and newest.start_s == bar.start_s:
            newest.add(bar)
        else:
            if newest is not None:
                self._seconds.append(
                    f"{newest.start_s} {newest.open} {newest.close} {newest.volume} {newest.quote_volume} {newest.trade_count}"
                )
            self._newest = bar.starting(bar.start_s)
        while self._highs and self._highs[-1][1] <= bar.high:
            self._highs.pop()
        self._highs.append((bar.start_s, bar.high))
        while self._lows and self._lows[-1][1] >= bar.low:
            self._lows.pop()
        self._lows.append((bar.start_s, bar.low))
        self._volume = EXACT.add(self._volume, bar.volume)
        self._quote_volume = EXACT.add(self._quote_volume, bar.quote_volume)
        self._count += bar.trade_count
        self._last_price, self._last_quantity, self._sequence = bar.close, bar.last_quantity, bar.sequence

    def at(self, second: int) -> Summary:
        """The window that ends with this second; it does not go back afterwards. A trade of a later second counts, too."""
        last_out = second - WINDOW_S
        opened = self._slide(last_out)
        for extremes in (self._highs, self._lows):
            while extremes and extremes[0][0] <= last_out:
                extremes.popleft()
        if self._last_price is None:
            return NOTHING
        # Nothing traded since: the market stands where it stood.
        opened = self._before if opened is None else opened
        return Summary(
            self._last_price,
            self._last_quantity,
            opened,
            self._highs[0][1] if self._highs else opened,
            self._lows[0][1] if self._lows else opened,
            self._volume,
            self._quote_volume,
            self._count,
            self._sequence,
        )

    def _slide(self, last_out: int) -> Decimal | None:
        """Take off the seconds up to this one; returns the first price of what is left."""
        while self._seconds:
            start, opened, close, volume, quote_volume, count = self._seconds[0].split()
            if int(start) > last_out:
                return Decimal(opened)
            self._seconds.popleft()
            self._leave(Decimal(close), Decimal(volume), Decimal(quote_volume), int(count))
        newest = self._newest
        if newest is None:
            return None
        if newest.start_s > last_out:
            return newest.open
        self._newest = None
        self._leave(newest.close, newest.volume, newest.quote_volume, newest.trade_count)
        return None

    def _leave(self, close: Decimal, volume: Decimal, quote_volume: Decimal, count: int) -> None:
        self._before = close
        self._volume = EXACT.subtract(self._volume, volume)
        self._quote_volume = EXACT.subtract(self._quote_volume, quote_volume)
        self._count -= count

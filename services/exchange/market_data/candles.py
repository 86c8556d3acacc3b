"""Candles, built exactly from trades: of one second first, the longer ones from those.

A bar is the sum of the trades of some stretch of time, in their order. Bars add up: the bar of a minute is that of its
seconds, one after the other, however the trades were cut into batches. Prices and amounts are decimals with the digits that
the exchange sent, and are never rounded. Times are the engine's, which never go back: a bar whose end it has reached can get
no further trade, so that no candle is ever corrected.
"""

from __future__ import annotations

import decimal
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NANOSECONDS: Final = 1_000_000_000
# Length in seconds of each interval, by the name that clients use. Each begins at a whole multiple of itself since 1970.
INTERVALS: Final[Mapping[str, int]] = {
    "1s": 1,
    "1m": 60,
    "5m": 300,
    "15m": 900,
    "1h": 3_600,
    "4h": 14_400,
    "1d": 86_400,
}
SECOND: Final = 1
# Closed candles of each interval that stay in memory, for streams that are continued.
KEPT_CLOSED: Final = 60
_LENGTHS: Final = tuple(INTERVALS.values())
# Far more digits than a sum of amounts of 38 has; what would still be rounded stops the process instead.
EXACT: Final = decimal.Context(prec=80, traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow])


class TimeWentBack(Exception):
    """A trade is older than one before it: the record is broken, and nothing may be built on it."""


class Trade(NamedTuple):
    """One execution; `notional` is in the quote asset, `time_ns` the engine's time since 1970."""

    symbol: str
    time_ns: int
    sequence: int
    price: Decimal
    quantity: Decimal
    notional: Decimal


@dataclass(slots=True)
class Bar:
    """The trades from `start_s` (seconds since 1970) on; `sequence` and `last_quantity` are those of the last one."""

    start_s: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trade_count: int
    sequence: int
    last_quantity: Decimal

    @classmethod
    def of(cls, trade: Trade) -> Bar:
        """The bar of one trade, of its second."""
        price, quantity = trade.price, trade.quantity
        start_s = trade.time_ns // NANOSECONDS
        return cls(start_s, price, price, price, price, quantity, trade.notional, 1, trade.sequence, quantity)

    def add(self, later: Bar) -> None:
        """Take in the trades of a bar that all come after those of this one."""
        self.high = max(self.high, later.high)
        self.low = min(self.low, later.low)
        self.close = later.close
        self.volume = EXACT.add(self.volume, later.volume)
        self.quote_volume = EXACT.add(self.quote_volume, later.quote_volume)
        self.trade_count += later.trade_count
        self.sequence = later.sequence
        self.last_quantity = later.last_quantity

    def starting(self, start_s: int) -> Bar:
        """A copy that begins at another time."""
        return Bar(
            start_s,
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            self.quote_volume,
            self.trade_count,
            self.sequence,
            self.last_quantity,
        )


def bars_of(trades: Iterable[Trade]) -> dict[str, list[Bar]]:
    """The bars of one second of a batch of trades, by symbol, in order. Raises TimeWentBack."""
    found: dict[str, list[Bar]] = {}
    for trade in trades:
        bar = Bar.of(trade)
        bars = found.setdefault(trade.symbol, [])
        if bars and bars[-1].start_s == bar.start_s:
            bars[-1].add(bar)
        elif bars and bars[-1].start_s > bar.start_s:
            raise TimeWentBack(f"{trade.symbol}: sequence {trade.sequence} is older than the trade before it")
        else:
            bars.append(bar)
    return found


class Candle(NamedTuple):
    """A bar of one interval as it stands; it is not changed any more."""

    symbol: str
    length_s: int
    bar: Bar
    closed: bool


class CandleBuilder:
    """The newest candles of each interval of one market: one that may grow, and KEPT_CLOSED before it."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self._bars: dict[int, Bar] = {}
        # Those that were told as closed, which the newest may be one of.
        self._closed: dict[int, deque[Bar]] = {length_s: deque(maxlen=KEPT_CLOSED) for length_s in _LENGTHS}
        # Whether `_closed` has all since the market's first trade.
        self._is_whole: dict[int, bool] = dict.fromkeys(_LENGTHS, True)

    def begin(self, length_s: int, bars: Iterable[Bar], *, time_ns: int) -> None:
        """Go on from the newest candles that were built before, oldest first; the engine's time was `time_ns` then."""
        for bar in bars:
            self._bars[length_s] = bar
            if (bar.start_s + length_s) * NANOSECONDS <= time_ns:
                self._keep_closed(length_s, bar)
        self._is_whole[length_s] = len(self._closed[length_s]) < KEPT_CLOSED

    def newest(self, length_s: int) -> Candle | None:
        """The newest candle of an interval; None before the first trade."""
        bar = self._bars.get(length_s)
        return None if bar is None else self._candle(length_s, bar, closed=self._is_closed(length_s, bar))

    def since(self, length_s: int, sequence: int) -> list[Candle] | None:
        """What may have changed after a sequence, oldest first, each once: with the candle that was the newest then. None
        where that lies further back than what is kept.
        """
        bar = self._bars.get(length_s)
        if bar is None:
            return []
        known = [self._candle(length_s, each, closed=True) for each in self._closed[length_s]]
        if not self._is_closed(length_s, bar):
            known.append(self._candle(length_s, bar, closed=False))
        later = next((index for index, candle in enumerate(known) if candle.bar.sequence > sequence), len(known))
        if later == 0 and not self._is_whole[length_s]:
            return None
        return known[max(later - 1, 0) :]

    def take(self, bars: Iterable[Bar]) -> list[Candle]:
        """Add bars of one second. Returns what changed: for each interval in order, a closed candle before the next.

        A candle that went on is returned as it stands at the end. Raises TimeWentBack.
        """
        seconds = list(bars)
        changed: list[Candle] = []
        for length_s in _LENGTHS:
            for second in seconds:
                start_s = second.start_s - second.start_s % length_s
                bar = self._bars.get(length_s)
                if bar is not None and start_s == bar.start_s:
                    if self._is_closed(length_s, bar):
                        raise TimeWentBack(f"{self.symbol}: sequence {second.sequence} belongs to a closed candle")
                    bar.add(second)
                    continue
                if bar is not None and start_s < bar.start_s:
                    raise TimeWentBack(f"{self.symbol}: sequence {second.sequence} is older than the newest candle")
                if bar is not None and not self._is_closed(length_s, bar):
                    changed.append(self._close(length_s, bar))
                self._bars[length_s] = second.starting(start_s)
            if seconds:
                changed.append(self._candle(length_s, self._bars[length_s], closed=False))
        return changed

    def close(self, time_ns: int) -> list[Candle]:
        """The engine's time is `time_ns`: returns the candles that it has closed since."""
        return [
            self._close(length_s, bar)
            for length_s, bar in self._bars.items()
            if (bar.start_s + length_s) * NANOSECONDS <= time_ns and not self._is_closed(length_s, bar)
        ]

    def _is_closed(self, length_s: int, bar: Bar) -> bool:
        closed = self._closed[length_s]
        return bool(closed) and closed[-1] is bar

    def _close(self, length_s: int, bar: Bar) -> Candle:
        self._keep_closed(length_s, bar)
        return self._candle(length_s, bar, closed=True)

    def _keep_closed(self, length_s: int, bar: Bar) -> None:
        closed = self._closed[length_s]
        self._is_whole[length_s] &= len(closed) < KEPT_CLOSED
        closed.append(bar)

    def _candle(self, length_s: int, bar: Bar, *, closed: bool) -> Candle:
        # A closed bar is not changed any more, and needs no copy.
        return Candle(self.symbol, length_s, bar if closed else bar.starting(bar.start_s), closed)

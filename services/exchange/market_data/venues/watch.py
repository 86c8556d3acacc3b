"""What a connection is given up for although messages come: books that never become whole, or stay crossed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.market_data.venues.dialect import Broken, Fault

if TYPE_CHECKING:
    from exchange.market_data.venues.dialect import Dialect
    from exchange.market_data.venues.limits import Limits


class Watch:
    """Of one connection; times are monotonic seconds."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._whole_at = now
        self._crossed_since: dict[str, float] = {}

    def look(self, dialect: Dialect, now: float) -> None:
        """Raises Broken."""
        missing = [symbol for symbol in dialect.symbols if symbol not in dialect.books]
        if not missing:
            self._whole_at = now
        elif now - self._whole_at >= self._limits.whole_s:
            raise Broken(Fault.SILENT, f"no whole book of {', '.join(missing)} for {self._limits.whole_s:g} s")
        for symbol, book in dialect.books.items():
            bid, ask = book.best_bid, book.best_ask
            if bid is None or ask is None or bid[0] < ask[0]:
                self._crossed_since.pop(symbol, None)
            elif now - self._crossed_since.setdefault(symbol, now) >= self._limits.crossed_s:
                dialect.counts.count(Fault.MISMATCH)
                raise Broken(Fault.MISMATCH, f"the book of {symbol} was crossed for {self._limits.crossed_s:g} s")

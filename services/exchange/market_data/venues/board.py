"""The newest tick of each venue and market."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from exchange.market_data.venues.reference import Comparison, Rules, compare

if TYPE_CHECKING:
    from exchange.market_data.venues.ticks import Tick


class Board:
    """Of the venues that are followed; `markets` says for each market which venues have it. Others' ticks are not kept."""

    def __init__(self, markets: dict[str, tuple[str, ...]], rules: Rules) -> None:
        self.markets = markets
        self._rules = rules
        self._ticks: dict[str, dict[str, Tick]] = {symbol: {} for symbol in markets}

    def take(self, tick: Tick) -> None:
        """Keep it, unless a later one is there: what waited on the queue may be old."""
        ticks = self._ticks.get(tick.symbol)
        if ticks is None or tick.venue not in self.markets[tick.symbol]:
            return
        older = ticks.get(tick.venue)
        if older is None:
            ticks[tick.venue] = tick
        elif older.received_ns <= tick.received_ns:
            ticks[tick.venue] = older.newer(tick)

    def ticks(self) -> list[Tick]:
        """All of them."""
        return [tick for ticks in self._ticks.values() for tick in ticks.values()]

    def replace(self, ticks: Iterable[Tick]) -> None:
        """These, and no others."""
        for known in self._ticks.values():
            known.clear()
        for tick in ticks:
            self.take(tick)

    def compare(self, symbol: str, now_ns: int) -> Comparison:
        """The venues of a market as of now. Raises KeyError for a market that no venue has."""
        return compare(symbol, self._ticks[symbol].values(), now_ns, self._rules)

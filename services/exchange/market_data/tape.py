"""The latest trades of each market, in memory; what is older is read from PostgreSQL."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exchange.market_data.events import TradeExecuted

KEPT_PER_MARKET: Final = 10_000


# Places within one command: far more than a command has events.
_PLACES: Final = 2**20


def number_of(trade: TradeExecuted) -> int:
    """Grows with each trade of the exchange: the same at every instance, and so a place to read on from."""
    sequence, _, place = trade.trade_id.partition("-")
    return int(sequence) * _PLACES + int(place)


class Tape:
    """One market's trades, the oldest first."""

    def __init__(self, trades: Iterable[TradeExecuted] = ()) -> None:
        self._trades: deque[TradeExecuted] = deque(trades, KEPT_PER_MARKET)

    @property
    def last(self) -> TradeExecuted | None:
        """The newest."""
        return self._trades[-1] if self._trades else None

    def add(self, trade: TradeExecuted) -> None:
        """Take a new one."""
        self._trades.append(trade)

    def before(self, number: int, size: int) -> tuple[list[TradeExecuted], int]:
        """Up to `size` before the trade of this number (0: the newest), newest first, and the number before which the next
        page begins (0: there is none).
        """
        page: list[TradeExecuted] = []
        for trade in reversed(self._trades):
            if number and number_of(trade) >= number:
                continue
            if len(page) == size:
                return page, number_of(page[-1])
            page.append(trade)
        return page, 0

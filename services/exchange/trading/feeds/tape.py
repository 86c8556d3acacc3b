"""The latest executions, in memory: for everyone by market, and for each account its own.

Bounded: what is older is served by settlement, from PostgreSQL. At start the tape is filled from the journal.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Final

from exchange.trading.core.events import (
    E_KIND,
    T_MAKER_ACCOUNT,
    T_MAKER_ORDER,
    T_MARKET,
    T_TAKER_ACCOUNT,
    T_TAKER_ORDER,
    TRADE,
    Event,
)
from exchange.trading.sequencer import Committed

KEPT_TRADES: Final = 200_000
"""Executions kept in all."""

KEPT_PER_MARKET: Final = 10_000
"""Executions of one market that everyone may read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One execution. `position` grows by one with each and names it within this tape."""

    position: int
    sequence: int
    time_ns: int
    event: Event

    @property
    def market(self) -> int:
        """Its market's number."""
        market: int = self.event[T_MARKET]
        return market

    def order_of(self, maker: bool) -> int:  # noqa: FBT001 - which side
        """The number of the maker's or the taker's order."""
        order: int = self.event[T_MAKER_ORDER if maker else T_TAKER_ORDER]
        return order


class TradeTape:
    """See the module."""

    def __init__(self, *, kept: int = KEPT_TRADES) -> None:
        self._kept = kept
        self._next = 1
        self._all: deque[Entry] = deque()
        self._markets: dict[int, deque[Entry]] = {}
        self._accounts: dict[str, deque[tuple[Entry, bool]]] = {}

    def reset(self) -> None:
        """Forget everything: a new core serves, and fills the tape from the journal."""
        self._all.clear()
        self._markets.clear()
        self._accounts.clear()

    def frame(self, committed: Committed) -> None:
        """Take the executions of a durable frame."""
        sequence = committed.first_sequence
        for events in committed.events:
            # A lone event is never a trade: something was accepted, replaced or triggered before it.
            if len(events) > 1:
                for event in events:
                    if event[E_KIND] == TRADE:
                        self._add(Entry(self._next, sequence, committed.time_ns, event))
            sequence += 1

    def _add(self, entry: Entry) -> None:
        self._next += 1
        event = entry.event
        self._all.append(entry)
        market = self._markets.get(event[T_MARKET])
        if market is None:
            market = self._markets[event[T_MARKET]] = deque(maxlen=KEPT_PER_MARKET)
        market.append(entry)
        self._own(event[T_MAKER_ACCOUNT]).append((entry, True))
        self._own(event[T_TAKER_ACCOUNT]).append((entry, False))
        if len(self._all) > self._kept:
            oldest = self._all.popleft().event
            for name in (oldest[T_MAKER_ACCOUNT], oldest[T_TAKER_ACCOUNT]):
                own = self._accounts[name]
                own.popleft()
                if not own:
                    del self._accounts[name]

    def _own(self, account: str) -> deque[tuple[Entry, bool]]:
        own = self._accounts.get(account)
        if own is None:
            own = self._accounts[account] = deque()
        return own

    def market_trades(self, market: int, before: int, size: int) -> tuple[list[Entry], int]:
        """Up to `size` executions of a market before a position (0: newest), newest first, and where the next page
        starts (0: nowhere).
        """
        page: list[Entry] = []
        for entry in reversed(self._markets.get(market, ())):
            if before and entry.position >= before:
                continue
            if len(page) == size:
                return page, page[-1].position
            page.append(entry)
        return page, 0

    def own_trades(
        self, account: str, market: int, order_id: int, before: int, size: int
    ) -> tuple[list[tuple[Entry, bool]], int]:
        """An account's executions as (entry, whether it was the maker), as `market_trades`; market -1 and order 0: any."""
        own = self._accounts.get(account, deque())
        end = bisect_left(own, before, key=_row_key) if before else len(own)
        page: list[tuple[Entry, bool]] = []
        for index in range(end - 1, -1, -1):
            entry, maker = own[index]
            if (market >= 0 and entry.market != market) or (order_id and entry.order_of(maker) != order_id):
                continue
            if len(page) == size:
                return page, _row_key(page[-1])
            page.append((entry, maker))
        return page, 0


def _row_key(row: tuple[Entry, bool]) -> int:
    """Grows along an account's rows, also where it traded with itself: the maker's row comes first then."""
    entry, maker = row
    return entry.position * 2 + (0 if maker else 1)

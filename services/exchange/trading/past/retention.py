"""How far back the state can be rebuilt."""

from __future__ import annotations

from dataclasses import dataclass

from exchange.trading.journal.contract import Journal
from exchange.trading.past.answers import PastRefused, Why


@dataclass(frozen=True, slots=True)
class Retained:
    """States after `first` up to `head` can be rebuilt; `first` is 0, the empty state, until something is archived."""

    first: int
    head: int

    def check(self, sequence: int) -> None:
        """Raise PastRefused when the state after this sequence cannot be rebuilt."""
        if sequence > self.head:
            raise PastRefused(Why.IN_FUTURE, self.head)
        if sequence < self.first:
            raise PastRefused(Why.NOT_RETAINED, self.first)


async def retained(journal: Journal) -> Retained:
    """What can be rebuilt now: everything, or from the oldest snapshot on whose frames behind it are all retained.

    Raises JournalCorrupt when the newest frames were removed, and JournalUnavailable.
    """
    head, _ = await journal.head()
    floor = await journal.floor()
    if floor == 1:
        return Retained(0, head)
    usable = (sequence for sequence in await journal.snapshot_sequences() if sequence >= floor - 1)
    return Retained(next(usable, head + 1), head)

"""How much each account did lately: orders placed and taken back, and executions, in steps of ten seconds for an hour.

Counted from the frames that this instance sees become durable, by the engine's time. Bounded: beyond so many rows the
oldest step is forgotten, and `seen_ns` says how far back the counts reach.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from exchange.runtime.clock import Clock
from exchange.trading.core.constants import CANCEL_REDUCED, CANCEL_REQUESTED
from exchange.trading.core.events import (
    E_KIND,
    O_ACCOUNT,
    OC_REASON,
    ORDER_ACCEPTED,
    ORDER_CANCELLED,
    T_MAKER_ACCOUNT,
    T_TAKER_ACCOUNT,
    TRADE,
    Event,
)
from exchange.trading.sequencer import Committed

STEP_S: Final = 10
MAX_WINDOW_S: Final = 3_600
MAX_ROWS: Final = 200_000
"""Counts of an account in a step that are kept, over all steps."""

_SECOND_NS: Final = 1_000_000_000
_STEP_NS: Final = STEP_S * _SECOND_NS
_STEPS: Final = MAX_WINDOW_S // STEP_S + 1
"""The longest window touches one more than it is long."""


@dataclass(slots=True)
class _Step:
    """Counts by account of ten seconds, which begin at `number` x STEP_S since 1970."""

    number: int
    placed: Counter[str] = field(default_factory=Counter)
    cancelled: Counter[str] = field(default_factory=Counter)
    filled: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        return len(self.placed) + len(self.cancelled) + len(self.filled)


@dataclass(frozen=True, slots=True)
class Busy:
    """What an account did within a window."""

    account: str
    placed: int
    cancelled: int
    filled: int


class Activity:
    """A sink of the hub; see the module."""

    def __init__(self, clock: Clock, *, most_rows: int = MAX_ROWS) -> None:
        self._clock = clock
        self._most_rows = most_rows
        self._steps: deque[_Step] = deque()
        self._rows = 0  # of the steps before the newest
        self._since_ns = clock.time_ns()

    def reset(self) -> None:
        """Frames may have passed unseen: what was counted before them would be taken for the whole."""
        self._steps.clear()
        self._rows = 0
        self._since_ns = self._clock.time_ns()

    def frame(self, committed: Committed) -> None:
        """Count a durable frame."""
        step = self._step_at(committed.time_ns)
        # Most commands place an order and do nothing else: these are counted at once, in half the time.
        plain = [
            events[0][O_ACCOUNT]
            for events in committed.events
            if len(events) == 1 and events[0][E_KIND] == ORDER_ACCEPTED
        ]
        step.placed.update(plain)
        if len(plain) < len(committed.events):
            for events in committed.events:
                if len(events) != 1 or events[0][E_KIND] != ORDER_ACCEPTED:
                    for event in events:
                        _count(step, event)
        while len(self._steps) > 1 and self._rows + step.rows > self._most_rows:
            self._forget_oldest()

    def _step_at(self, time_ns: int) -> _Step:
        """The step of a frame; time never goes back in the journal."""
        number = time_ns // _STEP_NS
        if self._steps and self._steps[-1].number >= number:
            return self._steps[-1]
        if self._steps:
            self._rows += self._steps[-1].rows
        self._steps.append(_Step(number))
        while self._steps[0].number <= number - _STEPS:
            self._forget_oldest()
        return self._steps[-1]

    def _forget_oldest(self) -> None:
        oldest = self._steps.popleft()
        self._rows -= oldest.rows
        self._since_ns = max(self._since_ns, (oldest.number + 1) * _STEP_NS)

    def seen_ns(self, window_s: int) -> int:
        """How much of the window up to now the counts speak of."""
        return min(max(self._clock.time_ns() - self._since_ns, 0), window_s * _SECOND_NS)

    def busy(self, window_s: int, more_than: int) -> list[Busy]:
        """Accounts that placed more than so many orders within the window, the busiest first. The window is whole steps, the
        present one among them: its oldest may reach back up to a step further.
        """
        first = (self._clock.time_ns() - window_s * _SECOND_NS) // _STEP_NS
        steps = [step for step in self._steps if step.number >= first]
        placed = _sum([step.placed for step in steps])
        busy = {account: count for account, count in placed.items() if count > more_than}
        cancelled = _sum([step.cancelled for step in steps])
        filled = _sum([step.filled for step in steps])
        found = [Busy(account, count, cancelled[account], filled[account]) for account, count in busy.items()]
        return sorted(found, key=lambda row: (-row.placed, row.account))


def _count(step: _Step, event: Event) -> None:
    kind = event[E_KIND]
    if kind == ORDER_ACCEPTED:
        step.placed[event[O_ACCOUNT]] += 1
    elif kind == TRADE:
        # Who trades with oneself takes part once.
        step.filled.update({event[T_MAKER_ACCOUNT], event[T_TAKER_ACCOUNT]})
    elif kind == ORDER_CANCELLED and event[OC_REASON] in (CANCEL_REQUESTED, CANCEL_REDUCED):
        # Taken back by their account: no expiries, no remainders, nothing that others cancelled.
        step.cancelled[event[O_ACCOUNT]] += 1


def _sum(counts: list[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return total

"""What goes wrong on the simulated network, decided by its seed alone: the same chain meets the same faults."""

from __future__ import annotations

from random import Random
from typing import Final

DUPLICATED: Final = 0.15
LATE: Final = 0.15
MAX_LATE_BLOCKS: Final = 3
REORGANISED: Final = 0.02
MAX_REORG_BLOCKS: Final = 3
UNANSWERED: Final = 0.1


class Faults:
    """Seed 0: none."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._sends = 0

    def lateness(self, report: int) -> tuple[int, ...]:
        """After how many blocks each copy of a report arrives: `(0,)` for one that is told once and at once."""
        if not self._seed:
            return (0,)
        random = self._random(f"report/{report}")
        first = random.randint(1, MAX_LATE_BLOCKS) if random.random() < LATE else 0
        if random.random() < DUPLICATED:
            return (first, random.randint(0, MAX_LATE_BLOCKS))
        return (first,)

    def reorg_blocks(self, height: int) -> int:
        """How many blocks are replaced when the chain reaches a height, 0 for none."""
        if not self._seed:
            return 0
        random = self._random(f"block/{height}")
        return random.randint(1, MAX_REORG_BLOCKS) if random.random() < REORGANISED else 0

    def unanswered(self) -> bool:
        """Whether the answer to a send is lost."""
        self._sends += 1
        return bool(self._seed) and self._random(f"send/{self._sends}").random() < UNANSWERED

    def _random(self, what: str) -> Random:
        return Random(f"{self._seed}/{what}")  # noqa: S311 - faults to be repeated, no secrets

"""What this process counts: plain numbers, since they change with every message; `metrics` shows them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """Since the start, but `queue_high_water`: the longest queue of one connection since it was last read."""

    messages_in: int = 0
    messages_out: int = 0
    bytes_out: int = 0
    conflated: int = 0
    snapshots: int = 0
    queue_high_water: int = 0
    closed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    interrupted: Counter[str] = field(default_factory=Counter)

    def take_high_water(self) -> int:
        """Read it, and begin anew."""
        found, self.queue_high_water = self.queue_high_water, 0
        return found

"""How long to wait before the next attempt, and how long messages took."""

from __future__ import annotations

import math
import random
from collections import deque
from typing import Final

MAX_SAMPLES: Final = 4_096
WINDOW_S: Final = 60.0


class Backoff:
    """Doubling pauses with jitter: between half and all of `first_s`, twice that, four times, up to `longest_s`."""

    def __init__(self, first_s: float, longest_s: float, rng: random.Random) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._rng = rng
        self._attempts = 0

    def next_s(self) -> float:
        """The pause now; the next one is longer."""
        pause = min(self._longest_s, self._first_s * float(1 << min(self._attempts, 32)))
        self._attempts += 1
        return pause * self._rng.uniform(0.5, 1.0)

    def begin_anew(self) -> None:
        """What was wrong is over: the next pause is the first again."""
        self._attempts = 0


class LatencyWindow:
    """How long messages took in the last minute, in milliseconds; of the newest MAX_SAMPLES."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=MAX_SAMPLES)

    def add(self, at_s: float, milliseconds: float) -> None:
        """`at_s` is monotonic. Clocks that differ make negative times: they count as none."""
        self._samples.append((at_s, max(0.0, milliseconds)))

    def percentiles(self, now_s: float) -> tuple[float, float] | None:
        """The 50th and the 99th, by nearest rank; None without a message."""
        while self._samples and self._samples[0][0] < now_s - WINDOW_S:
            self._samples.popleft()
        if not self._samples:
            return None
        values = sorted(value for _, value in self._samples)
        return values[math.ceil(len(values) * 0.50) - 1], values[math.ceil(len(values) * 0.99) - 1]

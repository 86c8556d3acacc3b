"""What a client knows of how far the exchange is, from all that it hears: by it a stream that stands still is found out."""

import time
from collections import deque

# Marks are at least so far apart: what was seen within it counts as seen at its beginning.
SPACING = 0.25


class Horizon:
    """The newest sequence that was seen, now and a while ago."""

    def __init__(self, keep: float = 60.0) -> None:
        self._keep = keep
        self._marks: deque[tuple[float, int]] = deque()
        self.newest = 0

    def saw(self, sequence: int) -> None:
        """An answer, a message or a heartbeat named a sequence that is durable."""
        if sequence <= self.newest:
            return
        self.newest = sequence
        now = time.monotonic()
        if self._marks and now - self._marks[-1][0] < SPACING:
            self._marks[-1] = (self._marks[-1][0], sequence)
            return
        self._marks.append((now, sequence))
        while now - self._marks[0][0] > self._keep:
            self._marks.popleft()

    def known_for(self, seconds: float) -> int:
        """The newest sequence of those that have been known for so long; 0 for none."""
        moment = time.monotonic() - seconds
        return next((sequence for when, sequence in reversed(self._marks) if when <= moment), 0)

    def forget(self) -> None:
        """Another history of the exchange: sequences begin elsewhere."""
        self._marks.clear()
        self.newest = 0

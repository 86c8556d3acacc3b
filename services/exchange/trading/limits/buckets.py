"""Token buckets: each fills at a steady rate up to a burst, and a new order takes a token out."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_BUCKETS: Final = 100_000
"""Buckets in a table. Beyond it the one not used for longest is forgotten. It begins full again if its owner comes back: as
every bucket does by itself after a pause of seconds.
"""


class Bucket:
    """Tokens of one owner. Times are seconds of one monotonic clock."""

    __slots__ = ("filled_at", "tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self.tokens = tokens
        self.filled_at = now

    def fill(self, rate: float, burst: float, now: float) -> float:
        """Let in what has come since the last time, at `rate` tokens a second up to `burst`; how many there are now."""
        tokens = self.tokens + (now - self.filled_at) * rate
        if tokens > burst:  # noqa: PLR1730 - `min` takes three times as long
            tokens = burst
        self.tokens = tokens
        self.filled_at = now
        return tokens


class Buckets:
    """The buckets of accounts, or of API keys: bounded, the one not used for longest goes first."""

    def __init__(self, most: int = MAX_BUCKETS) -> None:
        self._most = most
        self._by_owner: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_owner)

    def of(self, owner: str, burst: float, now: float) -> Bucket:
        """The owner's bucket, a full one at its first use."""
        bucket = self._by_owner.get(owner)
        if bucket is None:
            if len(self._by_owner) >= self._most:
                self._by_owner.popitem(last=False)
            bucket = self._by_owner[owner] = Bucket(burst, now)
        else:
            self._by_owner.move_to_end(owner)
        return bucket

"""What was revoked, as one instance knows it: followed by sequence, forgotten once no token can be left, never guessed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Final, Protocol

import structlog

from exchange.runtime.clock import Clock
from exchange.runtime.identity.store import LONGEST_TOKEN_S, REVOCATIONS_A_READ, Revocation
from exchange.runtime.principal import Principal

POLL_S: Final = 0.2
# Tokens of whoever cannot be checked any more are refused after this: closed, not open.
STALE_AFTER_S: Final = 10.0
# Of an hour. With more than this nobody is let in by token until some have aged: forgetting one would let it in.
MAX_HELD: Final = 200_000

USER: Final = "user"
SESSION: Final = "session"
API_KEY: Final = "api_key"
SIGNING_KEY: Final = "signing_key"


class Source(Protocol):
    """Where revocations are read: see `IdentityStore`."""

    async def first_sequence(self) -> int:
        """The sequence to begin at."""
        ...

    async def revocations(self, first: int) -> list[Revocation]:
        """Rows from `first` on, itself included."""
        ...


class Revocations:
    """Which tokens are void. `poll` brings it up to date; `is_current` says whether it is."""

    def __init__(self, source: Source, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._last = 0
        self._began = False
        self._current_at = float("-inf")
        # Seconds on the monotonic clock at which each was made, and the revocation; oldest first.
        self._held: deque[tuple[float, Revocation]] = deque()
        self._generations: dict[str, int] = {}
        self._void: dict[tuple[str, str], int] = {}
        self._news = asyncio.Event()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("identity")

    @property
    def sequence(self) -> int:
        """The newest that is known, 0 for none."""
        return self._last

    @property
    def held(self) -> int:
        """How many are remembered."""
        return len(self._held)

    @property
    def silent_s(self) -> float:
        """Seconds since all that had been revoked by then was known."""
        return self._clock.monotonic() - self._current_at

    def is_current(self) -> bool:
        """Whether all is known that was revoked more than STALE_AFTER_S ago."""
        return self.silent_s <= STALE_AFTER_S and len(self._held) <= MAX_HELD

    def is_void(self, principal: Principal) -> bool:
        """Whether the token that made this principal was revoked."""
        if principal.generation < self._generations.get(principal.user, 0):
            return True
        void = self._void
        if self.is_retired(principal.signing_key):
            return True
        if principal.session:
            return (SESSION, principal.session) in void
        # A certificate is revoked by voiding its user's tokens: its name may be allowed again.
        return (API_KEY, principal.api_key) in void

    def is_retired(self, key_id: str) -> bool:
        """Whether this key for tokens was voided."""
        return (SIGNING_KEY, key_id) in self._void

    def since(self, sequence: int) -> list[tuple[float, Revocation]]:
        """What is remembered of later ones than this, oldest first, and when each was made, on the monotonic clock."""
        found = []
        for made_at, revocation in reversed(self._held):
            if revocation.sequence <= sequence:
                break
            found.append((made_at, revocation))
        return found[::-1]

    def news(self) -> Awaitable[object]:
        """What to await until others come than are known in this moment."""
        return self._news.wait()

    async def poll(self) -> None:
        """Take what is new. Raises one of STORE_ERRORS."""
        while True:
            if len(self._held) > MAX_HELD:
                self._forget()
                if len(self._held) > MAX_HELD:
                    self._log.error("more was revoked than can be remembered: tokens are refused", held=len(self._held))
                    return
            asked_at = self._clock.monotonic()
            if not self._began:
                self._last = await self._source.first_sequence()
                self._began = True
            rows = await self._source.revocations(self._last)
            # The newest known one is asked for too: where it is gone, the database is of an earlier time, and numbers are
            # given a second time.
            if self._last and (not rows or rows[0].sequence != self._last):
                self._log.error("revocations begin anew: the database is older than it was", sequence=self._last)
                self._began = False
                continue
            self._take([row for row in rows if row.sequence > self._last])
            if len(rows) < REVOCATIONS_A_READ:
                self._forget()
                self._current_at = asked_at
                return

    def _take(self, rows: list[Revocation]) -> None:
        now = self._clock.monotonic()
        for row in rows:
            self._last = row.sequence
            self._held.append((now - row.age_s, row))
            if row.kind == USER:
                self._generations[row.subject] = max(row.generation, self._generations.get(row.subject, 0))
            else:
                self._void[row.kind, row.subject] = row.sequence
        if rows:
            # Whoever waits is woken; who comes from now on waits for the next.
            self._news.set()
            self._news = asyncio.Event()

    def _forget(self) -> None:
        """Let go of those whose tokens have all expired."""
        oldest = self._clock.monotonic() - LONGEST_TOKEN_S
        while self._held and self._held[0][0] < oldest:
            _, row = self._held.popleft()
            if row.kind == USER:
                if self._generations.get(row.subject) == row.generation:
                    del self._generations[row.subject]
            elif self._void.get((row.kind, row.subject)) == row.sequence:
                del self._void[row.kind, row.subject]

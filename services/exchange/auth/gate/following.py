"""Follows the table of revocations, so that the gate forgets at once what it must not believe any longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from exchange.auth.store import Store
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ServiceError

POLL_S: Final = 0.2
# A poll that takes longer is given up: the next one may find another server.
POLL_TIMEOUT_S: Final = 0.5
# Rows of one poll. Where more are new, forgetting everything is cheaper than reading them.
MAX_ROWS: Final = 1_000


class RevocationFollower:
    """Tells each revocation, in order and once. `store` is the gate's own: a poll must not wait behind log-ins."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        revoked: Callable[[str, str], None],
        missed: Callable[[], None],
    ) -> None:
        """`revoked` gets kind and subject of each; `missed` is called where some may have been missed."""
        self._store = store
        self._clock = clock
        self._revoked = revoked
        self._missed = missed
        self._sequence = -1
        self._known_at = float("-inf")
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("gate")

    @property
    def silent_s(self) -> float:
        """Seconds since all revocations up to then were known."""
        return self._clock.monotonic() - self._known_at

    async def poll(self) -> None:
        """Read what is new. Raises ServiceError AUTH_UNAVAILABLE."""
        began = self._clock.monotonic()
        async with self._store.connection() as connection:
            # The newest comes with each poll: a lower one tells of a database that was restored.
            rows = await connection.fetch(
                "SELECT sequence, kind, subject FROM auth_revocations "
                "WHERE sequence > $1 OR sequence = (SELECT max(sequence) FROM auth_revocations) ORDER BY sequence LIMIT $2",
                self._sequence if self._sequence >= 0 else 1 << 62,
                MAX_ROWS,
                timeout=POLL_TIMEOUT_S,
            )
        newest = rows[-1]["sequence"] if rows else 0
        if self._sequence < 0 or newest < self._sequence or len(rows) == MAX_ROWS:
            self._missed()
        else:
            for row in rows:
                if row["sequence"] > self._sequence:
                    self._revoked(row["kind"], row["subject"])
        self._sequence = newest
        self._known_at = began

    async def run(self) -> None:
        """Poll for ever. While the table cannot be read, `silent_s` grows."""
        silent = False
        while True:
            try:
                await self.poll()
                silent = False
            except ServiceError as error:
                if not silent:
                    self._log.warning("revocations cannot be followed", error=str(error))
                silent = True
            await asyncio.sleep(POLL_S)

"""The leader's lease in PostgreSQL: a row with an expiry by the server's clock, and the fence beside it."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from exchange.runtime.postgres import CONNECTION_ERRORS
from exchange.trading.journal.contract import LeaseView
from exchange.trading.journal.errors import JournalError, JournalUnavailable
from exchange.trading.journal.postgres_session import Session

DEFAULT_LEASE_SECONDS = 2.0

# clock_timestamp(), not now(): the statement may have waited for a lock, and is then evaluated again.
# Lease first, fence second: the only statement that takes both, so no order can conflict with it. The
# update of the fence waits for an append in flight, and every later one under the old epoch fails.
_ACQUIRE = """
WITH taken AS (
    INSERT INTO journal_lease AS lease (shard, epoch, holder, expires_at, address)
    VALUES ($1, 1, $2, clock_timestamp() + $3 * interval '1 second', $4)
    ON CONFLICT (shard) DO UPDATE
        SET epoch = lease.epoch + 1, holder = excluded.holder, address = excluded.address,
            expires_at = clock_timestamp() + $3 * interval '1 second'
        WHERE lease.holder IS NULL OR lease.holder = excluded.holder OR lease.expires_at <= clock_timestamp()
            OR lease.epoch = $5
    RETURNING shard, epoch
)
INSERT INTO journal_fence AS fence (shard, epoch) SELECT shard, epoch FROM taken
ON CONFLICT (shard) DO UPDATE SET epoch = excluded.epoch
RETURNING epoch
"""
# An expired lease that nobody took may be renewed: the fence still has our epoch.
_RENEW = """
UPDATE journal_lease SET expires_at = clock_timestamp() + $3 * interval '1 second'
WHERE shard = $1 AND epoch = $2 AND holder IS NOT NULL RETURNING true
"""
_LOOK = """
SELECT json_build_array(holder, address, epoch, expires_at > clock_timestamp())::text FROM journal_lease WHERE shard = $1
"""
_RELEASE = "UPDATE journal_lease SET holder = NULL WHERE shard = $1 AND epoch = $2 RETURNING true"

_T = TypeVar("_T")


class PostgresLease:
    """`Lease` over `journal_lease` and `journal_fence`, on a connection of its own.

    Unlike an append, a call gives up after the lease's own duration: by then its answer is worthless.
    """

    def __init__(self, dsn: str, *, shard: int = 0, ttl_seconds: float = DEFAULT_LEASE_SECONDS) -> None:
        self._session = Session(dsn, application_name=f"pincex-lease-{shard}")
        self._shard = shard
        self._ttl_seconds = ttl_seconds
        self._epoch: int | None = None
        self._held_until = 0.0
        self._lock = asyncio.Lock()

    @property
    def held_until(self) -> float:
        """`time.monotonic()` until which nobody else can have it; see `Lease.held_until`."""
        return self._held_until

    async def acquire(self, holder: str, address: str = "", *, deposing: int = 0) -> int | None:
        """Take the lease; see `Lease.acquire`."""
        asked_at = time.monotonic()
        epoch: int | None = await self._call(
            lambda: self._session.fetch_value(_ACQUIRE, self._shard, holder, self._ttl_seconds, address, deposing)
        )
        self._epoch = epoch
        self._held_until = 0.0 if epoch is None else asked_at + self._ttl_seconds
        return epoch

    async def look(self) -> LeaseView:
        """Who holds it; see `Lease.look`."""
        found: str | None = await self._call(lambda: self._session.fetch_value(_LOOK, self._shard))
        return LeaseView(*json.loads(found)) if found is not None else LeaseView(None, "", 0, valid=False)

    async def renew(self) -> bool:
        """Extend the lease; see `Lease.renew`."""
        epoch = self._epoch
        if epoch is None:
            return False
        asked_at = time.monotonic()
        renewed = await self._call(lambda: self._session.fetch_value(_RENEW, self._shard, epoch, self._ttl_seconds))
        if renewed is None:
            self._epoch, self._held_until = None, 0.0
            return False
        self._held_until = asked_at + self._ttl_seconds
        return True

    async def release(self) -> None:
        """Give the lease up; see `Lease.release`."""
        epoch, self._epoch, self._held_until = self._epoch, None, 0.0
        if epoch is not None:
            await self._call(lambda: self._session.fetch_value(_RELEASE, self._shard, epoch))

    async def close(self) -> None:
        """Close the connection; the lease, if held, runs out by itself."""
        await self._session.close(self._ttl_seconds)

    async def _call(self, statement: Callable[[], Awaitable[_T]]) -> _T:
        """Run one statement within the lease's duration; JournalUnavailable when its outcome is unknown."""
        async with self._lock:
            self._session.take_warning()
            idle = self._session.connected
            try:
                async with asyncio.timeout(self._ttl_seconds):
                    answer = await self._attempt(statement, again=idle)
            except CONNECTION_ERRORS as error:
                self._session.drop()
                raise JournalUnavailable(f"shard {self._shard}: the lease cannot be reached: {error!r}") from error
            except asyncpg.PostgresError as error:
                raise JournalError(f"shard {self._shard}: PostgreSQL refuses the lease: {error}") from error
            if self._session.take_warning():
                raise JournalUnavailable(f"shard {self._shard}: the lease's commit may not have been replicated")
            return answer

    async def _attempt(self, statement: Callable[[], Awaitable[_T]], *, again: bool) -> _T:
        """Run it; `again` on a new connection if the idle one turns out to be dead, since all are repeatable."""
        try:
            return await statement()
        except CONNECTION_ERRORS:
            self._session.drop()
            if not again:
                raise
        return await statement()

"""Prunes audit records that are older than they must be kept. The chain stays provable: it begins at an anchor then."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import asyncpg
import structlog
from prometheus_client import CollectorRegistry, Counter

from exchange.runtime import postgres

LEAST_DAYS: Final = 30
"""The database refuses to prune younger records, whoever asks (`audit_prune`)."""
PRUNE_EVERY_S: Final = 3_600.0
BATCH_RECORDS: Final = 2_000
"""Of one transaction: whoever appends waits for it, some tens of milliseconds."""
PAUSE_S: Final = 0.5
PRUNE_TIMEOUT_S: Final = 10.0

_FAILURES: Final[tuple[type[Exception], ...]] = (asyncpg.PostgresError, *postgres.CONNECTION_ERRORS)


class Retention:
    """Over a pool of the role audit_user, which may call `audit_prune` and delete nothing."""

    def __init__(
        self,
        pool: asyncpg.Pool[asyncpg.Record],
        registry: CollectorRegistry,
        *,
        days: int,
        service: str,
        instance: str,
    ) -> None:
        """`days` 0: all records are kept."""
        self._pool = pool
        self._days = days
        self._writer = service, instance
        self._pruned = Counter("pincex_audit_pruned_records", "Records removed by age.", registry=registry)
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("audit-retention")

    async def run(self) -> None:
        """Prune every hour until cancelled; what fails is tried again with the next."""
        while self._days:
            try:
                await self.prune()
            except _FAILURES as error:
                self._log.warning("audit records could not be pruned", error=type(error).__name__)
            await asyncio.sleep(PRUNE_EVERY_S)

    async def prune(self) -> int:
        """Remove what is too old, batch by batch, and return how many. Raises what asyncpg raises."""
        age = timedelta(days=self._days)
        total = 0
        while True:
            async with self._pool.acquire(timeout=PRUNE_TIMEOUT_S) as connection:
                # By the database's clock, as the records were stored.
                removed: int = await connection.fetchval(
                    "SELECT audit_prune(clock_timestamp() - $1::interval, $2, $3, $4)",
                    age,
                    BATCH_RECORDS,
                    *self._writer,
                    timeout=PRUNE_TIMEOUT_S,
                )
            total += removed
            self._pruned.inc(removed)
            if removed < BATCH_RECORDS:
                break
            await asyncio.sleep(PAUSE_S)
        if total:
            self._log.info("old audit records were pruned", records=total, kept_days=self._days)
        return total

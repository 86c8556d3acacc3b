"""Reads the audit trail from PostgreSQL, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from exchange.admin.chain import Anchor, Head
from exchange.runtime import postgres
from exchange.runtime.audit.hashing import StoredRecord
from exchange.runtime.errors import ErrorReason, ServiceError

READ_TIMEOUT_S: Final = 5.0
"""A page that takes longer is given up."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MICROS: Final = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_COLUMNS: Final = (
    "sequence, record_id, record_time, store_time, writer_role, phase, service, instance, action, actor, credential, "
    "address, details, reason, request_id, outcome, prev_hash, hash"
)
_AFTER: Final = (
    f"SELECT {_COLUMNS} FROM audit_records WHERE sequence > $1 AND sequence <= $2 ORDER BY sequence LIMIT $3"  # noqa: S608 - a constant
)
_NEWEST: Final = f"SELECT {_COLUMNS} FROM audit_records ORDER BY sequence DESC LIMIT 1"  # noqa: S608 - a constant
_AT: Final = f"SELECT {_COLUMNS} FROM audit_records WHERE sequence = $1"  # noqa: S608 - a constant

_ANCHOR: Final = "SELECT sequence, hash, pruned_at, record_sequence FROM audit_anchor"


@dataclass(frozen=True, slots=True)
class Filters:
    """Which records: "" and None take all. Times are microseconds since 1970 UTC, both included."""

    actor: str = ""
    action: str = ""
    request_id: str = ""
    from_micros: int | None = None
    to_micros: int | None = None


class RecordReader:
    """Over a pool of the role audit_user. Every method raises ServiceError AUDIT_UNAVAILABLE while the database is away."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    async def newest(self) -> StoredRecord | None:
        """The head of the chain, None while there is no record."""
        found = await self._fetch(_NEWEST)
        return found[0] if found else None

    async def at(self, sequence: int) -> StoredRecord | None:
        """One record."""
        found = await self._fetch(_AT, sequence)
        return found[0] if found else None

    async def after(self, sequence: int, until: int, limit: int) -> list[StoredRecord]:
        """The first `limit` records above `sequence` and not above `until`, in order."""
        return await self._fetch(_AFTER, sequence, until, limit)

    async def anchor(self) -> Anchor | None:
        """Where the chain begins, None at the first record of all."""
        rows = await self._rows(_ANCHOR)
        if not rows:
            return None
        sequence, digest, pruned_at, told_at = rows[0]
        return Anchor(Head(sequence, digest), _micros(pruned_at), told_at)

    async def matching(self, filters: Filters, before: int, limit: int) -> list[StoredRecord]:
        """The newest `limit` records below `before` (0: any) that match, the newest first."""
        wanted: list[tuple[str, object]] = [
            (condition, value)
            for condition, value in (
                ("sequence <", before),
                ("actor =", filters.actor),
                ("action =", filters.action),
                ("request_id =", filters.request_id),
                ("record_time >=", _moment(filters.from_micros)),
                ("record_time <=", _moment(filters.to_micros)),
            )
            if value
        ]
        where = (
            " AND ".join(f"{condition} ${number}" for number, (condition, _) in enumerate(wanted, start=1)) or "true"
        )
        # Conditions are constants, and their values parameters.
        sql = f"SELECT {_COLUMNS} FROM audit_records WHERE {where} ORDER BY sequence DESC LIMIT ${len(wanted) + 1}"  # noqa: S608
        return await self._fetch(sql, *(value for _, value in wanted), limit)

    async def _fetch(self, sql: str, *arguments: object) -> list[StoredRecord]:
        return [_record(row) for row in await self._rows(sql, *arguments)]

    async def _rows(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        try:
            async with self._pool.acquire(timeout=READ_TIMEOUT_S) as connection:
                return await connection.fetch(sql, *arguments, timeout=READ_TIMEOUT_S)
        except postgres.CONNECTION_ERRORS as error:
            raise ServiceError(
                ErrorReason.AUDIT_UNAVAILABLE, "the audit trail cannot be read now: ask again"
            ) from error


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + timedelta(microseconds=max(0, min(micros, _MAX_MICROS)))


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _record(row: asyncpg.Record) -> StoredRecord:
    sequence, record_id, record_time, store_time, *others = row
    return StoredRecord(sequence, str(record_id), _micros(record_time), _micros(store_time), *others)

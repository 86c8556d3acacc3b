"""Breaks on record. While one is open, withdrawals stop."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from exchange.runtime.errors import ErrorReason, reject
from exchange.runtime.fields import fingerprint
from exchange.settlement.store import SHARD

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from exchange.runtime.database import Connection, Database

MAX_BREAKS: Final = 100

# What is open already is not opened again, however its amounts move on.
_OPEN: Final = """
INSERT INTO settlement_incidents (sequence, breaks, fingerprint) VALUES ($1, $2::jsonb, $3)
ON CONFLICT (fingerprint) WHERE resolved_at IS NULL DO NOTHING RETURNING incident_id
"""
_WHOLE: Final = """
INSERT INTO settlement_reconciled (shard, sequence, trade_count, reconciled_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (shard) DO UPDATE SET sequence = excluded.sequence, trade_count = excluded.trade_count,
    reconciled_at = excluded.reconciled_at
WHERE settlement_reconciled.reconciled_at < excluded.reconciled_at
"""
_RESOLVE: Final = """
UPDATE settlement_incidents SET resolved_at = clock_timestamp(), resolution = $2, resolved_by = $3
WHERE incident_id = $1 RETURNING *
"""


@dataclass(frozen=True, slots=True)
class Break:
    """One thing that does not agree, and what each side says."""

    kind: str
    account: str
    asset: str
    engine_amount: str
    ledger_amount: str


@dataclass(frozen=True, slots=True)
class Incident:
    """A break on record; the last three are None while it is open."""

    incident_id: int
    opened_at: datetime
    sequence: int
    breaks: list[Break]
    resolved_at: datetime | None
    resolution: str | None
    resolved_by: str | None


@dataclass(frozen=True, slots=True)
class Reconciled:
    """When all agreed last, `trade_count` trades having been counted."""

    sequence: int
    trade_count: int
    reconciled_at: datetime


async def reconciled(connection: Connection) -> Reconciled | None:
    """The last reconciliation that was whole."""
    row = await connection.fetchrow(
        "SELECT sequence, trade_count, reconciled_at FROM settlement_reconciled WHERE shard = $1", SHARD
    )
    return None if row is None else Reconciled(**dict(row))


async def open_count(connection: Connection) -> int:
    """How many are open."""
    found = await connection.fetchval("SELECT count(*) FROM settlement_incidents WHERE resolved_at IS NULL")
    return int(found)


async def found_whole(database: Database, at: Reconciled) -> None:
    """Remember that all agreed."""
    async with database.connection() as connection:
        await connection.execute(_WHOLE, SHARD, at.sequence, at.trade_count, at.reconciled_at)


async def opened(database: Database, sequence: int, breaks: Sequence[Break]) -> int | None:
    """Put breaks on record; the new incident's number, None where one of the same things is open already."""
    text = json.dumps([asdict(one) for one in breaks[:MAX_BREAKS]])
    things = fingerprint(*(f"{one.kind} {one.account} {one.asset}" for one in breaks))
    async with database.connection() as connection:
        found = await connection.fetchval(_OPEN, sequence, text, things)
    return None if found is None else int(found)


async def listed(database: Database, *, open_only: bool, before: int, limit: int) -> list[Incident]:
    """The newest below a number, 0 for all."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT * FROM settlement_incidents WHERE ($1 = 0 OR incident_id < $1) AND (NOT $2 OR resolved_at IS NULL)"
            " ORDER BY incident_id DESC LIMIT $3",
            before,
            open_only,
            limit,
        )
    return [_incident(row) for row in rows]


async def resolve(database: Database, incident_id: int, resolution: str, who: str) -> Incident:
    """Close it; a repeat is answered the same.

    Raises ServiceError RECORD_NOT_FOUND, and RECORD_STATE while nothing was found whole since it was opened.
    """
    async with database.transaction() as connection:
        row = await connection.fetchrow(
            "SELECT * FROM settlement_incidents WHERE incident_id = $1 FOR NO KEY UPDATE", incident_id
        )
        if row is None:
            reject(ErrorReason.RECORD_NOT_FOUND, incident_id=incident_id)
        if row["resolved_at"] is None:
            last = await reconciled(connection)
            if last is None or last.reconciled_at <= row["opened_at"]:
                reject(
                    ErrorReason.RECORD_STATE, incident_id=incident_id, why="nothing was found whole since: reconcile"
                )
            row = await connection.fetchrow(_RESOLVE, incident_id, resolution, who)
    return _incident(row)


def _incident(row: Any) -> Incident:
    values = {name: row[name] for name in Incident.__slots__}
    breaks = [Break(**one) for one in json.loads(values.pop("breaks"))]
    return Incident(breaks=breaks, **values)

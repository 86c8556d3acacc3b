"""What stands on an account of the ledger, and line by line why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exchange.domain.decimals import format_units
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.settlement.ledger import chart
from exchange.settlement.store import SHARD

if TYPE_CHECKING:
    from exchange.runtime.database import Connection, Database

# An engine's account, one of the exchange's own, or the ledger's own `custody:<where>` and `suspense:losses`.
_ACCOUNT: Final = re.compile(r"\$?[A-Za-z0-9_.\-]{1,64}|(custody|suspense):[!-~]{1,64}")
_NEWEST: Final = (2**63 - 1, 2**63 - 1)

_BALANCES: Final = """
SELECT b.asset, b.kind_id, b.amount, s.decimals FROM ledger_balances b
JOIN ledger_accounts a USING (account_id) JOIN assets s ON s.code = b.asset
WHERE a.account = $1 ORDER BY b.asset, b.kind_id
"""
# Of each asset so many, by the index; then so many of all.
_POSTINGS: Final = """
SELECT l.*, s.decimals
FROM (SELECT DISTINCT account_id, asset FROM ledger_balances JOIN ledger_accounts USING (account_id)
      WHERE account = $1 AND ($2 = '' OR asset = $2)) held
CROSS JOIN LATERAL (
    SELECT * FROM ledger_lines line
    WHERE line.account_id = held.account_id AND line.asset = held.asset
        AND (line.event_time_ns, line.posting_id) < ($3::bigint, $4::bigint)
    ORDER BY line.event_time_ns DESC, line.posting_id DESC LIMIT $5
) l
JOIN assets s ON s.code = l.asset
ORDER BY l.event_time_ns DESC, l.posting_id DESC LIMIT $5
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One posting, as people read it."""

    posting_id: int
    sequence: int
    asset: str
    kind: str
    amount: str
    balance_after: str
    cause: str
    reference: str
    time_ns: int


def account_name(text: str, field: str = "account") -> str:
    """The name of an account of the ledger. Raises ServiceError FIELD_REQUIRED or INVALID_FIELD."""
    if not text:
        reject(ErrorReason.FIELD_REQUIRED, field=field)
    if _ACCOUNT.fullmatch(text) is None:
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"{field} must be an account of the engine, custody:<where> or suspense:losses",
            metadata={"field": field, "value": text},
        )
    return text


async def settled_sequence(connection: Connection) -> int:
    """How far the tables are."""
    found = await connection.fetchval("SELECT sequence FROM settlement_offset WHERE shard = $1", SHARD)
    return int(found or 0)


async def decimals_of(connection: Connection, asset: str) -> int:
    """Digits of an asset. Raises ServiceError FIELD_REQUIRED, UNKNOWN_ASSET."""
    if not asset:
        reject(ErrorReason.FIELD_REQUIRED, field="asset")
    found = await connection.fetchval("SELECT decimals FROM assets WHERE code = $1", asset)
    if found is None:
        reject(ErrorReason.UNKNOWN_ASSET, asset=asset)
    return int(found)


async def balances(database: Database, account: str) -> tuple[int, list[tuple[str, str, str]]]:
    """(sequence, (asset, kind, amount) by asset and kind) of an account; nothing for one that was never posted to."""
    async with database.reading() as connection:
        sequence = await settled_sequence(connection)
        rows = await connection.fetch(_BALANCES, account)
    return sequence, [
        (row["asset"], chart.KIND_NAMES[row["kind_id"]], format_units(row["amount"], row["decimals"])) for row in rows
    ]


async def postings(
    database: Database, account: str, asset: str, before: tuple[int, int] | None, limit: int
) -> list[Line]:
    """The newest lines before (time, posting), of one asset or (with "") of all."""
    async with database.reading() as connection:
        if asset:
            await decimals_of(connection, asset)
        rows = await connection.fetch(_POSTINGS, account, asset, *(before or _NEWEST), limit)
    return [_line(row) for row in rows]


def _line(row: Any) -> Line:
    kind, decimals = row["kind_id"], row["decimals"]
    amount = -row["amount"] if kind in chart.DEBIT_KINDS else row["amount"]
    return Line(
        posting_id=row["posting_id"],
        sequence=max(row["transaction_id"], 0),
        asset=row["asset"],
        kind=chart.KIND_NAMES[kind],
        amount=format_units(amount, decimals),
        balance_after=format_units(row["balance_after"], decimals),
        cause=chart.CAUSE_NAMES[row["cause_id"]],
        reference=row["reference"],
        time_ns=row["event_time_ns"],
    )

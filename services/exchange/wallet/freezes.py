"""Accounts from which nothing may go out: no withdrawals and no transfers, until somebody thaws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exchange.runtime.database import Connection

_SET = """
INSERT INTO wallet_freezes (account, frozen, reason, changed_by) VALUES ($1, $2, $3, $4)
ON CONFLICT (account) DO UPDATE SET frozen = excluded.frozen, reason = excluded.reason, changed_by = excluded.changed_by,
    changed_at = clock_timestamp()
"""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Whether an account is frozen, and the words with which that was last changed; "" where it never was."""

    account: str
    frozen: bool
    reason: str


async def is_frozen(connection: Connection, account: str) -> bool:
    """Whether nothing may go out of the account."""
    return bool(await connection.fetchval("SELECT frozen FROM wallet_freezes WHERE account = $1", account))


async def freeze(connection: Connection, account: str, reason: str, who: str) -> Freeze:
    """Freeze it; the newest words count."""
    await connection.execute(_SET, account, True, reason, who)
    return Freeze(account, frozen=True, reason=reason)


async def thaw(connection: Connection, account: str, reason: str, who: str) -> Freeze:
    """Let it go. An account that was never frozen is not put on record."""
    if not await is_frozen(connection, account):
        found = await connection.fetchval("SELECT reason FROM wallet_freezes WHERE account = $1", account)
        return Freeze(account, frozen=False, reason=found or "")
    await connection.execute(_SET, account, False, reason, who)
    return Freeze(account, frozen=False, reason=reason)


async def count(connection: Connection) -> int:
    """How many are frozen."""
    return int(await connection.fetchval("SELECT count(*) FROM wallet_freezes WHERE frozen"))

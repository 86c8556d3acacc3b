"""Accounts beside the main one: "<user_id>.<name>", with balances and orders of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from exchange.auth import users
from exchange.auth.instants import utc
from exchange.auth.store import Connection, Row, Store
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError

# Beyond: QUOTA_EXCEEDED.
MAX_SUB_ACCOUNTS: Final = 200
_NAME: Final = re.compile(r"[a-z0-9-]{1,32}")


@dataclass(frozen=True, slots=True)
class SubAccount:
    """A row of `sub_accounts`."""

    account: str
    name: str
    created_at: datetime

    @classmethod
    def of(cls, row: Row) -> SubAccount:
        """From a row with at least the columns of this class."""
        return cls(row["account"], row["name"], row["created_at"])


class SubAccounts:
    """Makes and lists them; none is ever removed, as its orders and trades stay."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, user_id: int, name: str) -> SubAccount:
        """Make one, or return the one of this name. Raises ServiceError INVALID_FIELD, QUOTA_EXCEEDED, AUTH_UNAVAILABLE."""
        if _NAME.fullmatch(name) is None:
            raise ServiceError(
                ErrorReason.INVALID_FIELD,
                "name must be 1 to 32 of a-z, 0-9 and '-'",
                metadata={"field": "name", "value": name},
            )
        async with self._store.transaction() as connection:
            # Its row is held, so that two calls at once do not pass the limit together.
            await users.by_id(connection, user_id, lock=True)
            row = await connection.fetchrow(
                "SELECT * FROM sub_accounts WHERE user_id = $1 AND name = $2", user_id, name
            )
            if row is None:
                count = await connection.fetchval("SELECT count(*) FROM sub_accounts WHERE user_id = $1", user_id)
                if count >= MAX_SUB_ACCOUNTS:
                    raise ServiceError(
                        ErrorReason.QUOTA_EXCEEDED,
                        f"a user has at most {MAX_SUB_ACCOUNTS} sub-accounts",
                        metadata={"limit": "sub_accounts"},
                    )
                row = await connection.fetchrow(
                    "INSERT INTO sub_accounts (account, user_id, name, created_at) VALUES ($1, $2, $3, $4) RETURNING *",
                    f"{user_id}.{name}",
                    user_id,
                    name,
                    utc(self._clock),
                )
        assert row is not None
        return SubAccount.of(row)

    async def page(self, user_id: int, size: int, after: str) -> list[SubAccount]:
        """By name, those behind `after`."""
        async with self._store.connection() as connection:
            rows = await connection.fetch(
                "SELECT * FROM sub_accounts WHERE user_id = $1 AND name > $2 ORDER BY name LIMIT $3",
                user_id,
                after,
                size,
            )
        return [SubAccount.of(row) for row in rows]


async def check_account(connection: Connection, user_id: int, account: str) -> str:
    """The user's main account for "", else `account` if it is the user's. Raises ServiceError SUB_ACCOUNT_NOT_FOUND."""
    if account in {"", str(user_id)}:
        return str(user_id)
    if not await connection.fetchval(
        "SELECT true FROM sub_accounts WHERE account = $1 AND user_id = $2", account, user_id
    ):
        raise ServiceError(ErrorReason.SUB_ACCOUNT_NOT_FOUND)
    return account

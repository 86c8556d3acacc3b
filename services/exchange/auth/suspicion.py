"""What an investigation asks: failed attempts, and users who come from many addresses. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from exchange.auth.store import Store

MAX_ADDRESSES: Final = 100
"""Addresses that are named of one user."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A row of `failed_login_attempts`. `user_id` None: nobody has the name."""

    attempt_id: int
    user_id: int | None
    address: str
    attempt_time: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class ManyAddressUser:
    """A user, from how many addresses it opened sessions, and which, MAX_ADDRESSES at most."""

    user_id: int
    address_count: int
    addresses: tuple[str, ...]


class Suspicion:
    """Raises ServiceError AUTH_UNAVAILABLE without the database. `since` is where the window begins."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def failed_attempts(
        self, since: datetime, user_id: int | None, size: int, before: tuple[datetime, int] | None
    ) -> list[FailedAttempt]:
        """The newest first, of one user or of all; `before` is (attempt_time, attempt_id) of the last one seen."""
        at, attempt_id = before if before is not None else (None, 0)
        async with self._store.connection() as connection:
            rows = await connection.fetch(
                "SELECT attempt_id, user_id, host(ip_address) AS address, attempt_time, reason "
                "FROM failed_login_attempts WHERE attempt_time > $1 AND ($2::bigint IS NULL OR user_id = $2) "
                "AND ($3::timestamptz IS NULL OR (attempt_time, attempt_id) < ($3, $4)) "
                "ORDER BY attempt_time DESC, attempt_id DESC LIMIT $5",
                since,
                user_id,
                at,
                attempt_id,
                size,
            )
        return [FailedAttempt(*row.values()) for row in rows]

    async def many_addresses(
        self, since: datetime, more_than: int, size: int, after: tuple[int, int] | None
    ) -> list[ManyAddressUser]:
        """Most addresses first, then by id; `after` is (address_count, user_id) of the last one seen."""
        count, user_id = after if after is not None else (None, 0)
        async with self._store.connection() as connection:
            rows = await connection.fetch(
                "SELECT user_id, count(DISTINCT ip_address) AS address_count, "
                "(array_agg(DISTINCT host(ip_address)))[1:$5::int] AS addresses "
                "FROM user_sessions WHERE created_at > $1 GROUP BY user_id HAVING count(DISTINCT ip_address) > $2 "
                "AND ($3::bigint IS NULL OR (count(DISTINCT ip_address), -user_id) < ($3, -$4::bigint)) "
                "ORDER BY address_count DESC, user_id LIMIT $6",
                since,
                more_than,
                count,
                user_id,
                MAX_ADDRESSES,
                size,
            )
        return [ManyAddressUser(row["user_id"], row["address_count"], tuple(row["addresses"])) for row in rows]

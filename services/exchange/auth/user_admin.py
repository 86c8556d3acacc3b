"""What operators and support do to users: lock, unlock, log out, roles, tiers; and whom they find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from exchange.auth import revocations, users
from exchange.auth.instants import utc
from exchange.auth.keys import ApiKeys
from exchange.auth.sessions import Sessions
from exchange.auth.standing import Standing
from exchange.auth.store import Connection, Store
from exchange.auth.throttle import LoginThrottle
from exchange.auth.users import ADMIN, LOCK_ALL, User
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError

LAST_ADMIN: Final = "the last ADMIN cannot be taken away"


@dataclass(frozen=True, slots=True)
class UserDetails:
    """A user with what other tables know of it; `accounts` holds the main one first."""

    user: User
    accounts: tuple[str, ...]
    recovery_codes_left: int


@dataclass(frozen=True, slots=True)
class LockedUser:
    """A user that is locked now, and how many failed attempts count against its name."""

    user: User
    failed_attempts: int


class UserAdmin:
    """Every method raises ServiceError AUTH_UNAVAILABLE without the database, and USER_NOT_FOUND for an unknown id.

    What changes something takes `by`, the standing of who asks, and raises PERMISSION_DENIED for a user who stands higher.
    """

    def __init__(self, store: Store, sessions: Sessions, keys: ApiKeys, throttle: LoginThrottle, clock: Clock) -> None:
        self._store = store
        self._sessions = sessions
        self._keys = keys
        self._throttle = throttle
        self._clock = clock

    async def get(self, user_id: int) -> UserDetails:
        """One user."""
        async with self._store.connection() as connection:
            return await _detailed(connection, await users.by_id(connection, user_id))

    async def page(self, size: int, after: int) -> list[UserDetails]:
        """At most `size` users by id, those behind `after`."""
        async with self._store.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {users.COLUMNS} FROM users WHERE user_id > $1 ORDER BY user_id LIMIT $2",  # noqa: S608 - a constant
                after,
                size,
            )
            return await _all_detailed(connection, [User.of(row) for row in rows])

    async def with_email(self, email: str) -> list[UserDetails]:
        """The user of a normal address, if there is one."""
        async with self._store.connection() as connection:
            user = await users.by_email(connection, email)
            return [] if user is None else [await _detailed(connection, user)]

    async def locked(self, size: int, before: tuple[datetime, int] | None) -> list[LockedUser]:
        """At most `size` users that are locked now, the newest lock first; `before` is (locked_at, user_id) of the last seen."""
        at, user_id = before if before is not None else (None, 0)
        async with self._store.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {users.COLUMNS} FROM users WHERE locked_at IS NOT NULL "  # noqa: S608 - a constant
                "AND (locked_until IS NULL OR locked_until > $1) "
                "AND ($2::timestamptz IS NULL OR (locked_at, user_id) < ($2, $3)) "
                "ORDER BY locked_at DESC, user_id DESC LIMIT $4",
                utc(self._clock),
                at,
                user_id,
                size,
            )
            found = [User.of(row) for row in rows]
            counts = await self._throttle.failures(connection, [user.email for user in found])
        return [LockedUser(user, count) for user, count in zip(found, counts, strict=True)]

    async def lock(
        self,
        user_id: int,
        reason: str,
        *,
        by: Standing,
        duration: timedelta | None = None,
        cancel_orders: bool = False,
    ) -> UserDetails:
        """Lock a user altogether: its sessions end, its tokens are void and its keys refused until the lock is over.

        Sessions stay ended after that: who had got into one must log in again.
        """
        now = utc(self._clock)
        async with self._store.transaction() as connection:
            user = await users.by_id(connection, user_id, lock=True)
            by.check(user)
            await connection.execute(
                "UPDATE users SET locked_at = $2, locked_until = $3, lock_reason = $4, lock_scope = $5 WHERE user_id = $1",
                user_id,
                now,
                None if duration is None else now + duration,
                reason,
                LOCK_ALL,
            )
            accounts = (await _detailed(connection, user)).accounts
            await self._sessions.end_all(connection, user_id, "locked")
            await revocations.void_tokens(connection, user_id, reason, accounts=accounts, cancel_orders=cancel_orders)
            return await _detailed(connection, await users.by_id(connection, user_id))

    async def unlock(self, user_id: int, *, by: Standing) -> UserDetails:
        """Lift any lock and forgive the failed attempts; one that is not locked is no error."""
        async with self._store.transaction() as connection:
            user = await users.by_id(connection, user_id, lock=True)
            by.check(user)
            await connection.execute(
                "UPDATE users SET locked_at = NULL, locked_until = NULL, lock_reason = NULL, lock_scope = NULL "
                "WHERE user_id = $1",
                user_id,
            )
            name_hash = self._throttle.name_hash(user.email)
            await self._throttle.forgive(connection, name_hash)
            unlocked = await _detailed(connection, await users.by_id(connection, user_id))
        await self._throttle.opened(name_hash)
        return unlocked

    async def log_out(self, user_id: int, reason: str, *, by: Standing, revoke_api_keys: bool) -> tuple[int, int]:
        """End all sessions, and revoke the keys if asked for; return how many of each."""
        async with self._store.transaction() as connection:
            by.check(await users.by_id(connection, user_id, lock=True))
            # All rows before the first revocation, in the order of Store.
            await connection.execute(
                "SELECT FROM user_sessions WHERE user_id = $1 AND ended_at IS NULL FOR UPDATE", user_id
            )
            if revoke_api_keys:
                await connection.execute(
                    "SELECT FROM api_keys WHERE user_id = $1 AND revoked_at IS NULL FOR UPDATE", user_id
                )
            sessions = await self._sessions.end_all(connection, user_id, reason or "logged out by an operator")
            keys = await self._keys.revoke_all(connection, user_id, reason) if revoke_api_keys else 0
            return sessions, keys

    async def set_roles(self, user_id: int, roles: Sequence[str], reason: str, *, by: Standing) -> UserDetails:
        """Give these roles and no other. Raises ServiceError INVALID_FIELD where nobody would be an administrator then."""
        async with self._store.transaction() as connection:
            # Held in one order by all who change roles: two administrators cannot remove each other at the same time.
            admins = await connection.fetch(
                "SELECT user_id FROM users WHERE $1 = ANY(roles) ORDER BY user_id FOR UPDATE", ADMIN
            )
            user = await users.by_id(connection, user_id, lock=True)
            by.check(user)
            if ADMIN not in roles and [row["user_id"] for row in admins] == [user_id]:
                raise ServiceError(ErrorReason.INVALID_FIELD, LAST_ADMIN, metadata={"field": "roles"})
            if set(roles) != set(user.roles):
                await connection.execute("UPDATE users SET roles = $2 WHERE user_id = $1", user_id, list(roles))
                await revocations.void_tokens(connection, user_id, reason)
            return await _detailed(connection, await users.by_id(connection, user_id))

    async def set_tier(self, user_id: int, tier: str, reason: str, *, by: Standing) -> UserDetails:
        """Give the limits of a tier."""
        async with self._store.transaction() as connection:
            user = await users.by_id(connection, user_id, lock=True)
            by.check(user)
            if tier != user.tier:
                await connection.execute("UPDATE users SET tier = $2 WHERE user_id = $1", user_id, tier)
                await revocations.void_tokens(connection, user_id, reason)
            return await _detailed(connection, await users.by_id(connection, user_id))


async def _detailed(connection: Connection, user: User) -> UserDetails:
    (found,) = await _all_detailed(connection, [user])
    return found


async def _all_detailed(connection: Connection, found: Sequence[User]) -> list[UserDetails]:
    ids = [user.user_id for user in found]
    accounts = await connection.fetch(
        "SELECT user_id, array_agg(account ORDER BY name) AS accounts FROM sub_accounts "
        "WHERE user_id = ANY($1::bigint[]) GROUP BY user_id",
        ids,
    )
    codes = await connection.fetch(
        "SELECT user_id, count(*) AS unused FROM recovery_codes "
        "WHERE user_id = ANY($1::bigint[]) AND used_at IS NULL GROUP BY user_id",
        ids,
    )
    of_user = {row["user_id"]: tuple(row["accounts"]) for row in accounts}
    left = {row["user_id"]: row["unused"] for row in codes}
    return [
        UserDetails(user, (user.account, *of_user.get(user.user_id, ())), left.get(user.user_id, 0)) for user in found
    ]

"""Roles and tiers: what a user is for the exchange. Every change voids the user's tokens; refreshed ones say the new."""

from __future__ import annotations

from collections.abc import Collection

from exchange.auth import revocations, users
from exchange.auth.store import Connection, Store
from exchange.auth.users import ADMIN, ROLES, TIERS, User
from exchange.runtime.errors import ErrorReason, ServiceError


class Standing:
    """Changes them. ServiceError USER_NOT_FOUND and AUTH_UNAVAILABLE anywhere."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def set_roles(self, user_id: int, roles: Collection[str], reason: str) -> User:
        """Give these roles and no other; the same again changes nothing.

        Raises ServiceError INVALID_FIELD for none, an unknown one, or where nobody would be left with the role admin.
        """
        wanted = tuple(role for role in ROLES if role in roles)
        if not wanted or len(wanted) != len(set(roles)):
            raise _bad("roles", f"roles must be some of {', '.join(ROLES)}")
        async with self._store.transaction() as connection:
            # Two administrators who take the role from each other at once come one after the other.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('pincex.auth_roles'))")
            user = await users.by_id(connection, user_id, lock=True)
            if set(user.roles) == set(wanted):
                return user
            if ADMIN in user.roles and ADMIN not in wanted and not await _other_admin(connection, user_id):
                raise _bad("roles", "the last administrator cannot be taken away: give somebody else the role first")
            await connection.execute("UPDATE users SET roles = $2 WHERE user_id = $1", user_id, list(wanted))
            await revocations.void_tokens(connection, user_id, reason)
            return await users.by_id(connection, user_id)

    async def set_tier(self, user_id: int, tier: str, reason: str) -> User:
        """Give the limits of a tier; the same again changes nothing. Raises ServiceError INVALID_FIELD."""
        if tier not in TIERS:
            raise _bad("tier", f"tier must be one of {', '.join(TIERS)}")
        async with self._store.transaction() as connection:
            user = await users.by_id(connection, user_id, lock=True)
            if user.tier == tier:
                return user
            await connection.execute("UPDATE users SET tier = $2 WHERE user_id = $1", user_id, tier)
            await revocations.void_tokens(connection, user_id, reason)
            return await users.by_id(connection, user_id)


async def _other_admin(connection: Connection, user_id: int) -> bool:
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM users WHERE $2 = ANY (roles) AND user_id <> $1)", user_id, ADMIN
    )
    return found


def _bad(field: str, message: str) -> ServiceError:
    return ServiceError(ErrorReason.INVALID_FIELD, message, metadata={"field": field})

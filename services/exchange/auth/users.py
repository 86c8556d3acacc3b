"""Users as they are stored, and how they are found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from exchange.auth.store import Connection, Row
from exchange.runtime.errors import ErrorReason, ServiceError

ADMIN: Final = "admin"
TIERS: Final = ("standard", "professional", "institution", "market_maker")

# What a lock stops. Wrong passwords that anybody may send stop log-ins only: else a stranger could stop the owner's
# orders. What an operator locks is locked altogether.
LOCK_LOGIN: Final = "login"
LOCK_ALL: Final = "all"

MAX_EMAIL: Final = 254
# Printable ASCII without what has a meaning in mail headers. Stricter than RFC 5321, as most mail providers are.
_EMAIL: Final = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_MAX_ID_DIGITS: Final = 18

COLUMNS: Final = (
    "user_id, email, password_hash, email_verified, roles, tier, generation, totp_enabled, "
    "locked_at, locked_until, lock_reason, lock_scope, created_at"
)


@dataclass(frozen=True, slots=True)
class User:
    """A row of `users`. `roles` are the contract's names in lower case; times are in UTC.

    `locked_until` None with a `locked_at`: until somebody unlocks. `lock_scope` is LOCK_LOGIN or LOCK_ALL.
    """

    user_id: int
    email: str
    password_hash: str
    email_verified: bool
    roles: tuple[str, ...]
    tier: str
    generation: int
    second_factor: bool
    locked_at: datetime | None
    locked_until: datetime | None
    lock_reason: str
    lock_scope: str
    created_at: datetime

    @property
    def account(self) -> str:
        """The main account: its name is the user's id."""
        return str(self.user_id)

    def is_locked(self, now: datetime) -> bool:
        """Whether no session may be opened."""
        return self.locked_at is not None and (self.locked_until is None or self.locked_until > now)

    def is_barred(self, now: datetime) -> bool:
        """Whether nothing of it may be used: keys, sessions, tokens."""
        return self.is_locked(now) and self.lock_scope == LOCK_ALL

    @classmethod
    def of(cls, row: Row) -> User:
        """From a row with at least COLUMNS."""
        return cls(
            user_id=row["user_id"],
            email=row["email"],
            password_hash=row["password_hash"],
            email_verified=row["email_verified"],
            roles=tuple(row["roles"]),
            tier=row["tier"],
            generation=row["generation"],
            second_factor=row["totp_enabled"],
            locked_at=row["locked_at"],
            locked_until=row["locked_until"],
            lock_reason=row["lock_reason"] or "",
            lock_scope=row["lock_scope"] or "",
            created_at=row["created_at"],
        )


def normal_email(text: str) -> str:
    """The one form in which an address is stored and looked up. Raises ServiceError FIELD_REQUIRED or INVALID_FIELD."""
    if not text:
        raise ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": "email"})
    email = text.strip().lower()
    if len(email) > MAX_EMAIL or _EMAIL.fullmatch(email) is None:
        raise ServiceError(ErrorReason.INVALID_FIELD, "email is not an address", metadata={"field": "email"})
    return email


def user_number(text: str) -> int:
    """The number of a user id. Raises ServiceError USER_NOT_FOUND for what cannot be one."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_ID_DIGITS) or text[0] == "0":
        raise ServiceError(ErrorReason.USER_NOT_FOUND)
    return int(text)


async def by_email(connection: Connection, email: str) -> User | None:
    """The user of a normal address."""
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM users WHERE email = $1", email)  # noqa: S608 - a constant
    return None if row is None else User.of(row)


async def by_id(connection: Connection, user_id: int, *, lock: bool = False) -> User:
    """The user; `lock` holds its row until the transaction ends. Raises ServiceError USER_NOT_FOUND."""
    suffix = " FOR UPDATE" if lock else ""
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM users WHERE user_id = $1{suffix}", user_id)  # noqa: S608 - constants
    if row is None:
        raise ServiceError(ErrorReason.USER_NOT_FOUND)
    return User.of(row)


async def set_password_hash(connection: Connection, user_id: int, password_hash: str) -> None:
    """Replace the hash; the caller ends sessions where the password is another one."""
    await connection.execute("UPDATE users SET password_hash = $2 WHERE user_id = $1", user_id, password_hash)

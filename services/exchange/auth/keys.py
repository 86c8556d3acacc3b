"""API keys: made once, read, revoked, expired. The gate (`exchange.auth.gate`) is what verifies their use."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from exchange.auth import revocations, users
from exchange.auth.encryption import Box
from exchange.auth.instants import unix_seconds
from exchange.auth.key_requests import KeyRequest, Network, check, request_hash
from exchange.auth.signatures import HMAC_SHA256, SECRET_BYTES
from exchange.auth.standing import Standing
from exchange.auth.store import Connection, Row, Store
from exchange.auth.sub_accounts import check_account
from exchange.auth.tokens import Grant, scopes_of
from exchange.runtime.errors import ErrorReason, ServiceError, reject

MAX_LIVE_KEYS: Final = 100
MAX_REASON: Final = 500
SECRET_PURPOSE: Final = "api-key-secret"  # noqa: S105 - the name of an encryption key
EXPIRED: Final = "expired"

_KEY_CHARACTERS: Final = string.ascii_letters + string.digits
_KEY_LENGTH: Final = 32
# How many expired keys one transaction revokes: it holds the lock of all revocations.
_EXPIRY_BATCH: Final = 100

_COLUMNS: Final = (
    "api_key, user_id, account, label, algorithm, public_key, scopes, allowed_addresses, cancel_orders_on_revoke, "
    "max_orders_per_second, max_open_orders, created_at, expires_at, used_at, revoked_at, revoked_reason"
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A row of `api_keys` without its secret. Times are in UTC; `used_at` is to the minute."""

    api_key: str
    user_id: int
    account: str
    label: str
    algorithm: str
    public_key: bytes
    scopes: tuple[str, ...]
    allowed_addresses: tuple[Network, ...]
    cancel_orders_on_revoke: bool
    max_orders_per_second: int
    max_open_orders: int
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None
    revoked_at: datetime | None
    revoked_reason: str

    def is_over(self, now: datetime) -> bool:
        """Whether it was revoked, or its time has come: at that moment, whenever somebody writes it down."""
        return self.revoked_at is not None or (self.expires_at is not None and self.expires_at <= now)

    def grant(self, user: users.User, *, exchanged: bool = False) -> Grant:
        """What its tokens say; `user` is its own."""
        return Grant(
            user=user,
            account=self.account,
            scopes=self.scopes,
            api_key=self.api_key,
            ends_at=unix_seconds(self.expires_at) if self.expires_at is not None else 0,
            max_orders_per_second=self.max_orders_per_second,
            max_open_orders=self.max_open_orders,
            exchanged=exchanged,
        )

    @classmethod
    def of(cls, row: Row) -> ApiKey:
        """From a row with at least the columns of a key."""
        return cls(
            api_key=row["api_key"],
            user_id=row["user_id"],
            account=row["account"],
            label=row["label"],
            algorithm=row["algorithm"],
            public_key=row["public_key"] or b"",
            scopes=tuple(row["scopes"]),
            allowed_addresses=tuple(row["allowed_addresses"]),
            cancel_orders_on_revoke=row["cancel_orders_on_revoke"],
            max_orders_per_second=row["max_orders_per_second"],
            max_open_orders=row["max_open_orders"],
            created_at=row["created_at"],
            expires_at=row["expires_at"],
            used_at=row["used_at"],
            revoked_at=row["revoked_at"],
            revoked_reason=row["revoked_reason"] or "",
        )


@dataclass(frozen=True, slots=True)
class Expired:
    """A key that had its time, and whether its open orders are cancelled."""

    api_key: str
    user_id: int
    cancel_orders: bool


class ApiKeys:
    """The keys of all users."""

    def __init__(self, store: Store, box: Box) -> None:
        """`box` is the keyring's for SECRET_PURPOSE."""
        self._store = store
        self.box = box

    async def find_repeat(self, user_id: int, request: KeyRequest) -> ApiKey | None:
        """The key that this request made already, None where there is none. Raises ServiceError DUPLICATE_ID."""
        async with self._store.connection() as connection:
            return await _repeat_of(connection, user_id, request)

    async def check(self, user: users.User, request: KeyRequest, *, granted: frozenset[str], now: datetime) -> None:
        """Raise what `create` would raise, as things stand, and change nothing."""
        check(request, now)
        async with self._store.connection() as connection:
            await _check_standing(connection, user, request, granted, now)

    async def create(
        self, user_id: int, request: KeyRequest, *, granted: frozenset[str], now: datetime
    ) -> tuple[ApiKey, bytes]:
        """Make a key and return it with its secret, which is nowhere else in plain; empty with ED25519 and in a repeat.

        `granted` is what the caller's own token may do. Raises ServiceError: INVALID_FIELD and its like, SCOPE_MISSING,
        SUB_ACCOUNT_NOT_FOUND, DUPLICATE_ID, QUOTA_EXCEEDED.
        """
        networks = check(request, now)
        async with self._store.transaction() as connection:
            # The user's row is held: two requests at a time could pass the limit together.
            user = await users.by_id(connection, user_id, lock=True)
            known = await _repeat_of(connection, user_id, request)
            if known is not None:
                return known, b""
            account = await _check_standing(connection, user, request, granted, now)
            return await self._insert(connection, user, account, request, networks)

    async def add(self, connection: Connection, user: users.User, request: KeyRequest) -> tuple[ApiKey, bytes]:
        """Make a key of the user's main account in the caller's transaction, for a user of the exchange's own: what it may
        do is not compared with anybody's token. Returns it as `create`.
        """
        return await self._insert(connection, user, user.account, request, ())

    async def get(self, api_key: str, *, user_id: int | None = None) -> ApiKey:
        """A key, of this user only where one is named. Raises ServiceError API_KEY_NOT_FOUND."""
        query = f"SELECT {_COLUMNS} FROM api_keys WHERE api_key = $1"  # noqa: S608 - a constant
        async with self._store.connection() as connection:
            row = await connection.fetchrow(query, api_key)
        if row is None or (user_id is not None and row["user_id"] != user_id):
            raise ServiceError(ErrorReason.API_KEY_NOT_FOUND)
        return ApiKey.of(row)

    async def page(self, user_id: int, size: int, after: tuple[datetime, str] | None) -> list[ApiKey]:
        """At most `size` keys of a user, the newest first, those behind the position (creation, key)."""
        query = (
            f"SELECT {_COLUMNS} FROM api_keys WHERE user_id = $1 "  # noqa: S608 - a constant
            "AND ($2::timestamptz IS NULL OR (created_at, api_key) < ($2, $3::text)) "
            "ORDER BY created_at DESC, api_key DESC LIMIT $4"
        )
        created_at, api_key = after if after is not None else (None, "")
        async with self._store.connection() as connection:
            rows = await connection.fetch(query, user_id, created_at, api_key, size)
        return [ApiKey.of(row) for row in rows]

    async def revoke(
        self,
        api_key: str,
        *,
        reason: str,
        cancel_orders: bool = False,
        user_id: int | None = None,
        by: Standing | None = None,
    ) -> ApiKey:
        """Revoke a key for good and return it as it is then: of the user that is named, or of anybody who stands no higher
        than `by`.

        Its open orders are cancelled where the key says so or `cancel_orders` does; the latter also for a key that is
        revoked already. Raises ServiceError API_KEY_NOT_FOUND, PERMISSION_DENIED.
        """
        assert (user_id is None) != (by is None), "it is its user who asks, or the staff"
        reason = reason[:MAX_REASON]
        async with self._store.transaction() as connection:
            row = await connection.fetchrow(
                f"SELECT {_COLUMNS} FROM api_keys WHERE api_key = $1 FOR UPDATE",  # noqa: S608 - a constant
                api_key,
            )
            if row is None or (user_id is not None and row["user_id"] != user_id):
                raise ServiceError(ErrorReason.API_KEY_NOT_FOUND)
            key = ApiKey.of(row)
            if by is not None:
                by.check(await users.by_id(connection, key.user_id))
            if key.revoked_at is None:
                cancel = cancel_orders or key.cancel_orders_on_revoke
                key = await _mark_revoked(connection, api_key, reason)
                await _announce(connection, key, reason, cancel_orders=cancel)
            elif cancel_orders:
                await _announce(connection, key, reason, cancel_orders=True)
            return key

    async def revoke_all(self, connection: Connection, user_id: int, reason: str) -> int:
        """Revoke every live key of a user, in the caller's transaction, as the last that it does; return how many."""
        reason = reason[:MAX_REASON]
        rows = await connection.fetch(
            "UPDATE api_keys SET revoked_at = clock_timestamp(), revoked_reason = $2 "  # noqa: S608 - a constant
            f"WHERE user_id = $1 AND revoked_at IS NULL RETURNING {_COLUMNS}",
            user_id,
            reason,
        )
        for key in map(ApiKey.of, rows):
            await _announce(connection, key, reason, cancel_orders=key.cancel_orders_on_revoke)
        return len(rows)

    async def expire(self, now: datetime) -> list[Expired]:
        """Revoke keys whose time is over, a batch of them; the caller records it and asks again while there are any."""
        async with self._store.transaction() as connection:
            rows = await connection.fetch(
                f"SELECT {_COLUMNS} FROM api_keys WHERE revoked_at IS NULL AND expires_at <= $1 "  # noqa: S608 - a constant
                "ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED",
                now,
                _EXPIRY_BATCH,
            )
            keys = [ApiKey.of(row) for row in rows]
            if keys:
                await connection.execute(
                    "UPDATE api_keys SET revoked_at = clock_timestamp(), revoked_reason = $2 WHERE api_key = ANY($1)",
                    [key.api_key for key in keys],
                    EXPIRED,
                )
            for key in keys:
                await _announce(connection, key, EXPIRED, cancel_orders=key.cancel_orders_on_revoke)
        return [Expired(key.api_key, key.user_id, key.cancel_orders_on_revoke) for key in keys]

    async def store_uses(self, uses: dict[str, datetime]) -> None:
        """Note when keys were used last, each to the minute, all by one statement."""
        minutes = [used.replace(second=0, microsecond=0) for used in uses.values()]
        async with self._store.connection() as connection:
            await connection.execute(
                "UPDATE api_keys SET used_at = given.used_at "
                "FROM unnest($1::text[], $2::timestamptz[]) AS given (api_key, used_at) "
                "WHERE api_keys.api_key = given.api_key "
                "AND (api_keys.used_at IS NULL OR api_keys.used_at < given.used_at)",
                list(uses),
                minutes,
            )

    async def _insert(
        self,
        connection: Connection,
        user: users.User,
        account: str,
        request: KeyRequest,
        networks: Sequence[Network],
    ) -> tuple[ApiKey, bytes]:
        api_key = "ak_" + "".join(secrets.choice(_KEY_CHARACTERS) for _ in range(_KEY_LENGTH))
        secret = secrets.token_bytes(SECRET_BYTES) if request.algorithm == HMAC_SHA256 else b""
        row = await connection.fetchrow(
            "INSERT INTO api_keys (api_key, user_id, account, label, algorithm, secret, public_key, scopes, "  # noqa: S608 - a constant
            "allowed_addresses, cancel_orders_on_revoke, max_orders_per_second, max_open_orders, expires_at, "
            "request_id, request_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) "
            f"RETURNING {_COLUMNS}",
            api_key,
            user.user_id,
            account,
            request.label,
            request.algorithm,
            self.box.encrypt(secret, api_key) if secret else None,
            request.public_key or None,
            list(request.scopes),
            list(networks),
            request.cancel_orders_on_revoke,
            request.max_orders_per_second,
            request.max_open_orders,
            request.expires_at,
            request.request_id,
            request_hash(request),
        )
        assert row is not None, "RETURNING gives the row"
        return ApiKey.of(row), secret


async def _repeat_of(connection: Connection, user_id: int, request: KeyRequest) -> ApiKey | None:
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS}, request_hash FROM api_keys WHERE user_id = $1 AND request_id = $2",  # noqa: S608 - a constant
        user_id,
        request.request_id,
    )
    if row is None:
        return None
    if row["request_hash"] != request_hash(request):
        raise ServiceError(ErrorReason.DUPLICATE_ID)
    return ApiKey.of(row)


async def _check_standing(
    connection: Connection, user: users.User, request: KeyRequest, granted: frozenset[str], now: datetime
) -> str:
    """Check what depends on the user, and return the key's account."""
    allowed = granted.intersection(scopes_of(user))
    for scope in request.scopes:
        if scope not in allowed:
            reject(ErrorReason.SCOPE_MISSING, scope=scope)
    account = await check_account(connection, user.user_id, request.account)
    await _check_room(connection, user.user_id, now)
    return account


async def _check_room(connection: Connection, user_id: int, now: datetime) -> None:
    live = await connection.fetchval(
        "SELECT count(*) FROM api_keys "
        "WHERE user_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)",
        user_id,
        now,
    )
    if live >= MAX_LIVE_KEYS:
        raise ServiceError(
            ErrorReason.QUOTA_EXCEEDED,
            f"a user has at most {MAX_LIVE_KEYS} live keys: revoke one first",
            metadata={"limit": f"user:{user_id}"},
        )


async def _mark_revoked(connection: Connection, api_key: str, reason: str) -> ApiKey:
    row = await connection.fetchrow(
        "UPDATE api_keys SET revoked_at = clock_timestamp(), revoked_reason = $2 "  # noqa: S608 - a constant
        f"WHERE api_key = $1 RETURNING {_COLUMNS}",
        api_key,
        reason,
    )
    assert row is not None, "its row is held"
    return ApiKey.of(row)


async def _announce(connection: Connection, key: ApiKey, reason: str, *, cancel_orders: bool) -> None:
    await revocations.revoke(
        connection,
        revocations.API_KEY,
        key.api_key,
        user_id=key.user_id,
        accounts=[key.account],
        cancel_orders=cancel_orders,
        reason=reason,
    )

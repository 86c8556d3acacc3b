"""What every service reads of the auth service's tables: public signing keys, and what was revoked."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import asyncpg
import msgspec

from exchange.runtime import postgres

# Tokens live five minutes by default and an hour at most (PINCEX_ACCESS_TOKEN_SECONDS); a minute for clocks that differ.
LONGEST_TOKEN_S: Final = 3_600 + 60
MAX_SIGNING_KEYS: Final = 64
REVOCATIONS_A_READ: Final = 1_000
# A database that takes longer than this is as good as away.
QUERY_TIMEOUT_S: Final = 2.0

STORE_ERRORS: Final[tuple[type[Exception], ...]] = (asyncpg.PostgresError, *postgres.CONNECTION_ERRORS)

_KEYS: Final = """
SELECT key_id, public_jwk::text AS public_jwk FROM auth_signing_keys
WHERE retired_at IS NULL OR retired_at > clock_timestamp() - make_interval(secs => $1)
ORDER BY created_at DESC LIMIT $2
"""
_START: Final = """
SELECT coalesce(max(sequence), 0) FROM auth_revocations
WHERE revoked_at < clock_timestamp() - make_interval(secs => $1)
"""
_REVOCATIONS: Final = """
SELECT sequence, kind, subject, generation, user_id, accounts, cancel_orders, reason,
    extract(epoch FROM clock_timestamp() - revoked_at)::float8 AS age_s
FROM auth_revocations WHERE sequence >= $1 ORDER BY sequence LIMIT $2
"""


class Revocation(msgspec.Struct, frozen=True):
    """A row of auth_revocations; `age_s` is how old it was when it was read, by the database's clock."""

    sequence: int
    kind: str
    subject: str
    generation: int
    user_id: str
    accounts: tuple[str, ...]
    cancel_orders: bool
    reason: str
    age_s: float = 0.0


class IdentityStore:
    """One connection of its own, opened when it is needed and again after each failure. One statement at a time."""

    def __init__(self, dsn: str, *, application_name: str) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._lock = asyncio.Lock()

    async def signing_keys(self) -> dict[str, str]:
        """The public keys (JWK in JSON) whose tokens may still be good, by id. Raises one of STORE_ERRORS."""
        rows = await self._fetch(_KEYS, float(LONGEST_TOKEN_S), MAX_SIGNING_KEYS)
        return {row["key_id"]: row["public_jwk"] for row in rows}

    async def first_sequence(self) -> int:
        """The newest revocation whose tokens have all expired, 0 for none: one reads from there. Raises STORE_ERRORS."""
        rows = await self._fetch(_START, float(LONGEST_TOKEN_S))
        return int(rows[0][0])

    async def revocations(self, first: int) -> list[Revocation]:
        """At most REVOCATIONS_A_READ rows from sequence `first` on, itself included. Raises one of STORE_ERRORS."""
        rows = await self._fetch(_REVOCATIONS, first, REVOCATIONS_A_READ)
        return [Revocation(**{**dict(row), "accounts": tuple(row["accounts"])}) for row in rows]

    async def close(self) -> None:
        """Close the connection, at once."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        async with self._lock:
            try:
                if self._connection is None:
                    self._connection = await postgres.connect(self._dsn, application_name=self._application_name)
                return await self._connection.fetch(statement, *values, timeout=QUERY_TIMEOUT_S)
            except BaseException:
                # A statement that was cancelled or has failed leaves a connection of unknown use.
                with contextlib.suppress(Exception):
                    await self.close()
                raise

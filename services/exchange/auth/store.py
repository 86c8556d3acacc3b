"""The auth service's connections to PostgreSQL, and what it means that there are none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg
import structlog

from exchange.runtime import postgres
from exchange.runtime.errors import ErrorReason, ServiceError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
Row: TypeAlias = asyncpg.Record

MAX_CONNECTIONS: Final = 8
# A call that waits longer for a connection is refused: the client asks again, and the queue stays short.
ACQUIRE_TIMEOUT_S: Final = 3.0
# None of our statements takes long. PostgreSQL counts it off before the commit, which may wait for a standby.
_STATEMENT_TIMEOUT_MS: Final = 10_000


class Store:
    """A bounded pool. Every failure of the database is ServiceError AUTH_UNAVAILABLE: nothing is let in, ask again.

    Locks are taken in one order, so that no two calls wait for each other: the user's row, session rows, token and key
    rows, and last of all what `revocations.revoke` takes.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str, *, application_name: str = "pincex-auth") -> Store:
        """Connect. Raises one of `postgres.CONNECTION_ERRORS`."""
        return cls(
            await postgres.create_pool(
                url,
                application_name=application_name,
                max_connections=MAX_CONNECTIONS,
                stateless=True,
                settings={"statement_timeout": str(_STATEMENT_TIMEOUT_MS)},
            )
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection whose statements commit one by one.

        Raises ServiceError AUTH_UNAVAILABLE, and MALFORMED_REQUEST for a text with NUL, which protobuf carries and
        PostgreSQL does not.
        """
        try:
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
                yield connection
        except postgres.CONNECTION_ERRORS as error:
            structlog.get_logger("store").warning("the database did not answer", error=repr(error))
            raise ServiceError(ErrorReason.AUTH_UNAVAILABLE) from error
        except asyncpg.CharacterNotInRepertoireError as error:
            raise ServiceError(ErrorReason.MALFORMED_REQUEST) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction, committed at the end and rolled back by an exception. Raises as above."""
        async with self.connection() as connection, connection.transaction():
            yield connection

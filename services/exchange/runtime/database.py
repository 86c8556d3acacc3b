"""A service's pool of connections to PostgreSQL, and what it means that there are none."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg
import structlog

from exchange.runtime import postgres
from exchange.runtime.errors import ErrorReason, ServiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

MAX_CONNECTIONS: Final = 6
# A call that waits longer for a connection is refused: the caller asks again, and the queue stays short.
ACQUIRE_TIMEOUT_S: Final = 3.0
STATEMENT_TIMEOUT_MS: Final = 8_000


class Database:
    """A bounded pool. A database that is away is ServiceError NOT_READY: ask again."""

    def __init__(self, url: str, instance: str) -> None:
        self._url = url
        self._name = f"pincex-{instance}"
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Make the pool. Its connections are made when they are needed: the database may come later."""
        self._pool = await postgres.create_pool(
            self._url,
            application_name=self._name,
            min_connections=0,
            max_connections=MAX_CONNECTIONS,
            stateless=True,
            settings={"statement_timeout": str(STATEMENT_TIMEOUT_MS)},
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection whose statements commit one by one.

        Raises ServiceError NOT_READY, RESPONSE_TOO_LARGE for what takes too long to find, and MALFORMED_REQUEST for a text with
        NUL, which protobuf carries and PostgreSQL does not.
        """
        if self._pool is None:
            raise ServiceError(ErrorReason.NOT_READY)
        try:
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
                yield connection
        except asyncpg.QueryCanceledError as error:
            raise ServiceError(ErrorReason.RESPONSE_TOO_LARGE, "that takes too long to find: ask for less") from error
        except postgres.CONNECTION_ERRORS as error:
            structlog.get_logger("database").warning("the database did not answer", error=repr(error))
            raise ServiceError(ErrorReason.NOT_READY, "the database does not answer now: ask again") from error
        except asyncpg.CharacterNotInRepertoireError as error:
            raise ServiceError(ErrorReason.MALFORMED_REQUEST) from error

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """All statements see one state of the tables. Raises as `connection`."""
        async with (
            self.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Committed at the end, rolled back by an exception. Raises as `connection`."""
        async with self.connection() as connection, connection.transaction():
            yield connection

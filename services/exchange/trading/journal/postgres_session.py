"""One PostgreSQL session that a journal or lease keeps for itself, reopened after a failure.

It listens for warnings: a commit whose wait for the synchronous standby was cancelled by an operator
still reports success, with nothing but a warning, although it may not have been replicated.
"""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import asyncpg

from exchange.runtime import postgres
from exchange.trading.journal.errors import Fenced

if TYPE_CHECKING:
    from asyncpg.prepared_stmt import PreparedStatement

logger = logging.getLogger(__name__)

CURRENT_INCARNATION = "SELECT incarnation::text FROM journal_incarnation ORDER BY number DESC LIMIT 1"


class Session:
    """A connection for one caller at a time, with its prepared statements.

    After any of `postgres.CONNECTION_ERRORS` call `drop`; the next `statement` connects anew. With
    `incarnation` given, a session to another history (a restored database) raises Fenced.
    """

    def __init__(self, dsn: str, *, application_name: str, incarnation: str | None = None) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._incarnation = incarnation
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._statements: dict[str, PreparedStatement[asyncpg.Record]] = {}
        self._warned = False

    @property
    def connected(self) -> bool:
        """Whether a connection is open, as far as is known."""
        return self._connection is not None and not self._connection.is_closed()

    async def fetch_value(self, sql: str, *arguments: object) -> Any:
        """Run the statement, prepared once a connection, and return the first value, None without rows."""
        statement = self._statements.get(sql)
        if statement is None or not self.connected:
            statement = await self._prepare(sql)
        return await statement.fetchval(*arguments)

    def take_warning(self) -> bool:
        """Return whether the server warned since the last call: then the last commit is in doubt."""
        warned, self._warned = self._warned, False
        return warned

    def drop(self) -> None:
        """Close the connection without waiting for the server."""
        connection, self._connection = self._connection, None
        self._statements.clear()
        if connection is not None and not connection.is_closed():
            connection.terminate()

    async def close(self, timeout_s: float) -> None:
        """Close the connection politely, or drop it after the time-out."""
        connection = self._connection
        if connection is not None and not connection.is_closed():
            with contextlib.suppress(*postgres.CONNECTION_ERRORS):
                await connection.close(timeout=timeout_s)
        self.drop()

    async def _prepare(self, sql: str) -> "PreparedStatement[asyncpg.Record]":
        if not self.connected:
            self.drop()
            await self._connect()
        assert self._connection is not None
        statement = await self._connection.prepare(sql)
        self._statements[sql] = statement
        return statement

    async def _connect(self) -> None:
        connection = await postgres.connect(self._dsn, application_name=self._application_name)
        try:
            await self._check_incarnation(connection)
            connection.add_log_listener(self._on_log)
        except (Exception, asyncio.CancelledError):
            connection.terminate()
            raise
        self._connection = connection
        self._warned = False

    async def _check_incarnation(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        if self._incarnation is None:
            return
        current = await connection.fetchval(CURRENT_INCARNATION)
        if current != self._incarnation:
            raise Fenced(f"the database holds the incarnation {current}, this process serves {self._incarnation}")

    def _on_log(self, _connection: object, message: asyncpg.PostgresLogMessage) -> None:
        # The text may be translated, so any warning counts: the doubt costs one more commit.
        if getattr(message, "severity_en", None) == "WARNING":
            self._warned = True
            logger.warning("PostgreSQL warns on %s: %s", self._application_name, message)

"""How a server of the pair does, asked ten times a second."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import asyncpg

from exchange.stack.edge.plan import LOOPBACK

if TYPE_CHECKING:
    from exchange.stack.postgresql.node import Node

# Longer than a busy machine makes a healthy server wait, three times shorter than a fail-over may take.
SILENT_AFTER_S = 0.5
# A commit that waits so long for the standby's word will not get it.
STUCK_AFTER_S = 2.0
# Every so many looks, and after each failure: whether the server still takes new connections.
NEW_CONNECTION_EVERY = 5

# The last one is asyncpg's own confusion when a server dies in the middle of an answer.
UNREACHABLE: tuple[type[Exception], ...] = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

_LOOK = """
SELECT pg_is_in_recovery() AS in_recovery,
       EXISTS (SELECT FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming') AS streaming,
       EXISTS (SELECT FROM pg_stat_activity
               WHERE wait_event = 'SyncRep' AND state_change < clock_timestamp() - $2 * interval '1 second') AS stuck
"""
# The first thing that a client may send, answered by one byte before any authentication (protocol 3.0, SSLRequest).
_SSL_REQUEST = bytes((0, 0, 0, 8, 4, 210, 22, 47))


class Answer(Enum):
    """What came back."""

    WELL = "well"
    REFUSED = "refused"
    """Nobody listens, or it says that it cannot: it starts, stops or recovers."""

    SILENT = "silent"
    """Nothing in time: it hangs."""


@dataclass(frozen=True, slots=True)
class Look:
    """`streaming`: the other server follows this one. `stuck`: a commit waits for the standby too long."""

    answer: Answer
    in_recovery: bool = False
    streaming: bool = False
    stuck: bool = False


class Probe:
    """Looks at one server over a connection that it keeps."""

    def __init__(self, node: Node, follower: Node) -> None:
        """`follower` is who may stream from it."""
        self._node = node
        self._follower = follower
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._until_new = 0

    async def look(self) -> Look:
        """Returns within SILENT_AFTER_S, whatever the server does."""
        try:
            async with asyncio.timeout(SILENT_AFTER_S):
                found = await self._look()
        except TimeoutError:
            self.drop()
            return Look(Answer.SILENT)
        except UNREACHABLE:
            self.drop()
            return Look(Answer.REFUSED)
        self._until_new = self._until_new - 1 if self._until_new else NEW_CONNECTION_EVERY
        return found

    def drop(self) -> None:
        """Forgets the connection, without a word to the server."""
        connection, self._connection = self._connection, None
        self._until_new = 0
        if connection is not None:
            connection.terminate()

    async def _look(self) -> Look:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._node.connect(SILENT_AFTER_S)
        elif not self._until_new:
            # A postmaster that hangs leaves the sessions that it has at work.
            await _knock(self._node.port)
        row = await self._connection.fetchrow(_LOOK, self._follower.name, STUCK_AFTER_S)
        assert row is not None
        return Look(Answer.WELL, row["in_recovery"], row["streaming"], row["stuck"])


async def _knock(port: int) -> None:
    """Has the postmaster make a session that ends at once; a login would cost a hundred times as much."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(_SSL_REQUEST)
        if not await reader.read(1):
            raise ConnectionError("the server closed the connection")
    finally:
        writer.close()

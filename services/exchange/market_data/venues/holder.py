"""Which instance runs the feeds: the one that holds an advisory lock of PostgreSQL; the others stand by.

While the database is away the holder goes on: feeds do not need it. Another can take over only where the lock is free, and
the holder finds that out when it is back, and stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import structlog

from exchange.runtime import postgres

if TYPE_CHECKING:
    import asyncpg

# Any constant does, as long as all instances use the same.
FEEDS_LOCK: Final = 0x50_49_4E_46_45_44
# On it an instance asks the holder to begin a feed anew; the message is its name.
RESTARTS: Final = "market_data_feed_restarts"
POLL_S: Final = 0.5


class Holder:
    """`run` it. `begin` is called when this instance becomes the holder, `end` when it no longer is; a restart that another
    instance asks for goes to `restart`.
    """

    def __init__(
        self,
        database_url: str,
        instance: str,
        *,
        begin: Callable[[], Awaitable[None]],
        end: Callable[[], Awaitable[None]],
        restart: Callable[[str], None],
    ) -> None:
        self._database_url = database_url
        self._name = f"pincex-{instance} feeds"
        self._begin = begin
        self._end = end
        self._restart = restart
        self.is_holder = False
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("feeds")

    async def run(self) -> None:
        """Until cancelled; then the feeds have ended."""
        try:
            while True:
                try:
                    await self._hold()
                except postgres.CONNECTION_ERRORS as error:
                    self._log.warning("the lock of the feeds is asked for again", error=repr(error))
                await asyncio.sleep(POLL_S)
        finally:
            await self._become(holder=False)

    async def _hold(self) -> None:
        """Ask for the lock until it is ours, and hold it for as long as the session lives."""
        connection = await postgres.connect(self._database_url, application_name=self._name)
        try:
            ended = asyncio.Event()
            connection.add_termination_listener(lambda _connection: ended.set())
            await connection.add_listener(RESTARTS, self._asked)
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", FEEDS_LOCK):
                await self._become(holder=False)
                await asyncio.sleep(POLL_S)
            await self._become(holder=True)
            await ended.wait()
        finally:
            connection.terminate()

    async def _become(self, *, holder: bool) -> None:
        if holder == self.is_holder:
            return
        self._log.info("this instance runs the feeds" if holder else "this instance runs no feeds any more")
        if not holder:
            self.is_holder = False
            await self._end()
            return
        try:
            await self._begin()
        except BaseException:
            await self._end()
            raise
        self.is_holder = True

    def _asked(self, connection: asyncpg.Connection[Any] | Any, pid: int, channel: str, payload: object) -> None:
        del connection, pid, channel
        if self.is_holder:
            self._restart(str(payload))

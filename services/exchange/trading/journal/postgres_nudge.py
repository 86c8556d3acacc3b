"""Wakes PostgreSQL's walsender while an append waits for the standby.

With a single writer the walsender may fall asleep one record short: the record is on the primary's disk, not sent, and
nothing more is written, since the writer waits. It wakes at the standby's next report, `wal_receiver_status_interval` later
(1 s where that is set, 10 s by default), or when anybody flushes the log. So does this, on a connection of its own, with a
commit that waits for no standby. Measured in docs/DATABASE.md.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator

import asyncpg

from exchange.runtime.postgres import CONNECTION_ERRORS
from exchange.trading.journal.postgres_session import Session

logger = logging.getLogger(__name__)

# Ten times the usual commit with a standby. Nearly every append is over by then.
NUDGE_AFTER_S = 0.01
# Between two nudges of one wait: it doubles up to this, since a standby that is gone needs no waking.
NUDGE_MAX_S = 1.0

_TROUBLE: tuple[type[Exception], ...] = (*CONNECTION_ERRORS, asyncpg.PostgresError)

# The message has no reader and no meaning. Without a synchronous standby there is nobody to wake, and nothing is written.
_NUDGE = """
SELECT set_config('synchronous_commit', 'local', true), pg_logical_emit_message(true, 'pincex', '')
WHERE current_setting('synchronous_standby_names') <> ''
"""


class Nudger:
    """Watches one append at a time; `nudges` counts what it sent."""

    def __init__(self, session: Session) -> None:
        """The session is its own: it connects when it is first needed."""
        self.nudges = 0
        self._session = session
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Nudge while what runs inside takes longer than it should."""
        over = self._over = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(NUDGE_AFTER_S, self._begin)
        try:
            yield
        finally:
            timer.cancel()
            over.set()

    async def close(self) -> None:
        """End what is under way, without waiting for the server."""
        self._over.set()
        self._session.drop()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._session.drop()

    def _begin(self) -> None:
        # One whose last nudge has no answer yet, from an append before: the server hangs, or is about to answer.
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._nudge())

    async def _nudge(self) -> None:
        delay = NUDGE_AFTER_S
        while not self._over.is_set():
            try:
                await self._session.fetch_value(_NUDGE)
                self.nudges += 1
            except _TROUBLE as error:
                # The append meets the same trouble and deals with it.
                logger.debug("no nudge: %r", error)
                self._session.drop()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), delay)
            delay = min(2 * delay, NUDGE_MAX_S)

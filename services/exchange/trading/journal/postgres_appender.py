"""Fenced appends to PostgreSQL that survive the server: the writing half of `PostgresJournal`.

An append is one auto-commit statement. It takes a shared lock on the fence row only where the epoch
is still the frame's, and inserts only if it got it: a deposed leader inserts nothing, and a successor
raising the epoch waits for an insert in flight. The statement is never cancelled or timed out.

When a connection breaks in mid-append the outcome is unknown. The same insert is then sent again on a
new connection: it lands; or it is fenced; or the primary key is taken, and the hash there tells whether
by this frame. The last case returns only behind a later synchronous commit under the same epoch, since
a row left by a backend that died while waiting for its standby is visible, but not replicated.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

import asyncpg

from exchange.runtime.postgres import CONNECTION_ERRORS
from exchange.trading.journal.errors import Fenced, JournalError, JournalUnavailable
from exchange.trading.journal.frame import Frame
from exchange.trading.journal.postgres_nudge import Nudger
from exchange.trading.journal.postgres_session import Session

logger = logging.getLogger(__name__)

RECONNECT_FIRST_S = 0.02
RECONNECT_MAX_S = 0.5
CLOSE_GRACE_S = 5.0
# An append that has not returned after this long counts as stalled: a hundred times the usual commit.
STALL_AFTER_S = 0.25
# A check that reads through the pool reports the same failures as JournalUnavailable.
_AWAY: tuple[type[Exception], ...] = (JournalUnavailable, *CONNECTION_ERRORS)

_APPEND = """
WITH fence AS MATERIALIZED (SELECT epoch FROM journal_fence WHERE shard = $1 AND epoch = $4 FOR SHARE)
INSERT INTO journal_frames (shard, first_sequence, last_sequence, epoch, time_ns, commands, events,
                            digest, prev_hash, hash, format_version, rules_version)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM fence
RETURNING true
"""
# Locking the row writes WAL, so this commit is a synchronous one and carries all earlier ones with it.
_BARRIER = "SELECT epoch FROM journal_fence WHERE shard = $1 AND epoch = $2 FOR SHARE"
_CURRENT_EPOCH = "SELECT epoch FROM journal_fence WHERE shard = $1"
_STORED_HASH = "SELECT hash FROM journal_frames WHERE shard = $1 AND first_sequence = $2"
ENSURE_PARTITIONS = "SELECT journal_ensure_partitions($1)"


class Appender:
    """Stores one frame at a time on a session of its own."""

    def __init__(
        self,
        session: Session,
        shard: int,
        observe_append: Callable[[float], None] | None = None,
        nudger: Nudger | None = None,
    ) -> None:
        self._session = session
        self._nudger = nudger
        self._shard = shard
        self._observe_append = observe_append
        self._closing = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._started_at: float | None = None
        self._broken = False
        # The first sequence for which no partition is known to exist, and from where to make more ahead.
        self._uncovered = 0
        self._extend_at = 0

    @property
    def stalled_since(self) -> float | None:
        """Start of the append in flight (monotonic) if its connection broke or it takes too long."""
        started = self._started_at
        if started is None or not (self._broken or time.monotonic() - started > STALL_AFTER_S):
            return None
        return started

    async def store(self, frame: Frame, check: Callable[[], Awaitable[None]] | None = None) -> None:
        """Make the frame durable; see `Journal.append` for the errors. The caller must not cancel it.

        `check` runs first, and again if the server goes away meanwhile; what else it raises ends the append.
        """
        self._started_at = started = time.monotonic()
        self._idle.clear()
        try:
            with self._nudger.watching() if self._nudger is not None else contextlib.nullcontext():
                if check is not None:
                    await self._until_known(check)
                await self._until_known(lambda: self._insert(frame))
        finally:
            self._started_at, self._broken = None, False
            self._idle.set()
        if self._observe_append is not None:
            self._observe_append(time.monotonic() - started)

    def wants_partitions(self, next_sequence: int) -> bool:
        """Whether it is time to make more partitions, well before an append would have to wait for one."""
        return next_sequence >= self._extend_at

    def partitions_reach(self, next_sequence: int, uncovered: int) -> None:
        """Note that, asked at `next_sequence`, partitions were made for all sequences below `uncovered`."""
        self._uncovered = max(self._uncovered, uncovered)
        self._extend_at = max(self._extend_at, (next_sequence + uncovered) // 2)

    async def close(self, give_up: Callable[[], None]) -> None:
        """Let the append in flight finish if the server answers in time; else it raises JournalUnavailable.

        `give_up` is called before that, to end what a check of the append may be waiting for.
        """
        self._closing.set()
        # asyncpg's close() would cancel a running statement, so it must not see one.
        with contextlib.suppress(TimeoutError):
            # One that is long overdue has had its time.
            overdue = 0.0 if self._started_at is None else time.monotonic() - self._started_at
            await asyncio.wait_for(self._idle.wait(), max(0.0, CLOSE_GRACE_S - overdue))
        if self._idle.is_set():
            await self._session.close(CLOSE_GRACE_S)
        else:
            give_up()
        self._session.drop()
        await self._idle.wait()
        if self._nudger is not None:
            await self._nudger.close()

    async def _until_known(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Repeat an attempt, on new connections, until it succeeds or fails for a reason of its own."""
        delay = RECONNECT_FIRST_S
        while not self._closing.is_set():
            try:
                await attempt()
            except _AWAY as error:
                if isinstance(error, asyncpg.InterfaceError) and self._session.connected:
                    raise JournalError(f"shard {self._shard}: asyncpg refuses the statement: {error}") from error
                if not self._broken:
                    logger.warning("journal of shard %d: the connection broke, outcome unknown: %r", self._shard, error)
                self._broken = True
                self._session.drop()
            except asyncpg.PostgresError as error:
                raise JournalError(f"shard {self._shard}: PostgreSQL refuses the statement: {error}") from error
            else:
                if self._broken:
                    logger.warning("journal of shard %d: resumed", self._shard)
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay)
            delay = min(delay * 2, RECONNECT_MAX_S)
        raise JournalUnavailable(f"shard {self._shard}: the journal is closed; an append under way may have landed")

    async def _insert(self, frame: Frame) -> None:
        if frame.first_sequence >= self._uncovered:
            uncovered = await self._session.fetch_value(ENSURE_PARTITIONS, frame.first_sequence)
            self.partitions_reach(frame.first_sequence, uncovered)
        self._session.take_warning()
        try:
            landed = await self._session.fetch_value(
                _APPEND,
                frame.shard,
                frame.first_sequence,
                frame.last_sequence,
                frame.epoch,
                frame.time_ns,
                frame.commands,
                frame.events,
                frame.digest,
                frame.prev_hash,
                frame.hash,
                frame.format_version,
                frame.rules_version,
            )
        except asyncpg.UniqueViolationError:
            await self._resolve(frame)
            return
        if landed is None:
            await self._raise_fenced(frame.epoch)
        if self._session.take_warning():
            # The session may have come to another server meanwhile, which need not have the row.
            await self._resolve(frame)

    async def _resolve(self, frame: Frame) -> None:
        """Return if the row that stands at its place is this very frame, durable and under our epoch."""
        await self.barrier(frame.epoch)
        stored: bytes | None = await self._session.fetch_value(_STORED_HASH, frame.shard, frame.first_sequence)
        if stored != frame.hash:
            there = "no frame" if stored is None else f"frame {stored.hex()[:16]}"
            raise Fenced(f"shard {frame.shard}: {there} stands at {frame.first_sequence}, not {frame.hash.hex()[:16]}")

    async def barrier(self, epoch: int) -> None:
        """Return behind a synchronous commit that proves the epoch current; Fenced if it is not."""
        while True:
            self._session.take_warning()
            if await self._session.fetch_value(_BARRIER, self._shard, epoch) is None:
                await self._raise_fenced(epoch)
            if not self._session.take_warning():
                return

    async def _raise_fenced(self, epoch: int) -> NoReturn:
        current = await self._session.fetch_value(_CURRENT_EPOCH, self._shard)
        raise Fenced(f"shard {self._shard}: epoch {epoch} is no longer ours, it is {current} now")

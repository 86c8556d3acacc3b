"""The journal in PostgreSQL: fenced, hash-chained group rows. Tables: `migrations/`, reasons: docs/JOURNAL.md."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Self

import asyncpg

from exchange.runtime.config import Secret
from exchange.runtime.postgres import CONNECTION_ERRORS, create_pool, redact
from exchange.trading.journal.checks import check_head, check_next, check_same_state, check_snapshot_frame
from exchange.trading.journal.contract import StoredSnapshot
from exchange.trading.journal.errors import JournalCorrupt, JournalError, JournalUnavailable
from exchange.trading.journal.frame import MAX_SEQUENCE, Frame
from exchange.trading.journal.postgres_appender import ENSURE_PARTITIONS, Appender
from exchange.trading.journal.postgres_nudge import Nudger
from exchange.trading.journal.postgres_reader import READ_SETTINGS, Reader
from exchange.trading.journal.postgres_session import CURRENT_INCARNATION, Session

logger = logging.getLogger(__name__)

# Pages, snapshots and partitions; appends have a connection of their own.
READ_POOL_MAX = 4
CLOSE_POOL_S = 5.0

# The lower bound is where the head was when last seen: it spares the server a look at every older partition.
_HEAD = """
SELECT (SELECT max(sequence) FROM journal_snapshots WHERE shard = $1) AS newest_snapshot,
       newest.first_sequence, newest.last_sequence, newest.hash
FROM (SELECT) AS always
LEFT JOIN LATERAL (
    SELECT first_sequence, last_sequence, hash FROM journal_frames
    WHERE shard = $1 AND first_sequence >= $2 ORDER BY first_sequence DESC LIMIT 1
) AS newest ON true
"""
_FRAME_AT = """
SELECT last_sequence, hash FROM journal_frames
WHERE shard = $1 AND first_sequence <= $2 ORDER BY first_sequence DESC LIMIT 1
"""
_SNAPSHOT_FIELDS = "shard, sequence, time_ns, state, state_hash, digest, frame_hash, format_version, rules_version"
_SAVE_SNAPSHOT = f"""
INSERT INTO journal_snapshots ({_SNAPSHOT_FIELDS}, state_sha256)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING
"""  # noqa: S608 - only constants are put together
_LATEST_SNAPSHOT = f"""
SELECT state_sha256, {_SNAPSHOT_FIELDS} FROM journal_snapshots
WHERE shard = $1 AND sequence <= $2 ORDER BY sequence DESC LIMIT 1
"""  # noqa: S608 - only constants are put together
_SNAPSHOT_SEQUENCES = "SELECT sequence FROM journal_snapshots WHERE shard = $1 ORDER BY sequence"


class PostgresJournal:
    """`Journal` over the tables of the `migrations` folder. Make one with `open`.

    One event loop uses it. Appends run one after the other on their own connection, each in a task of
    the journal, so that a caller that is cancelled leaves its append alone.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        session: Session,
        *,
        dsn: Secret,
        shard: int,
        incarnation: str,
        observe_append: Callable[[float], None] | None,
        nudger: Nudger | None = None,
    ) -> None:
        self._pool = pool
        self._dsn = dsn
        self._shard = shard
        self._incarnation = incarnation
        self._appender = Appender(session, shard, observe_append, nudger)
        self._reader = Reader(pool, shard)
        self._append_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._extending: asyncio.Task[None] | None = None
        # Where the next append must begin, as far as this object knows; None: ask the database.
        self._known_head: tuple[int, bytes] | None = None
        self._head_seen_at = 0

    @classmethod
    async def open(cls, dsn: str, *, shard: int = 0, observe_append: Callable[[float], None] | None = None) -> Self:
        """Connect and learn the incarnation.

        `observe_append` gets the seconds of each append that succeeded. Raises JournalUnavailable
        when no server accepts writes, JournalError when the migrations have not run.
        """
        name = f"pincex-journal-{shard}"
        try:
            pool = await create_pool(
                dsn,
                application_name=f"{name}-read",
                max_connections=READ_POOL_MAX,
                stateless=True,
                settings=READ_SETTINGS,
            )
        except CONNECTION_ERRORS as error:
            raise JournalUnavailable(f"no connection to {redact(dsn)}: {error!r}") from error
        try:
            incarnation = await _current_incarnation(pool)
        except JournalError:
            pool.terminate()
            raise
        session = Session(dsn, application_name=f"{name}-append", incarnation=incarnation)
        return cls(
            pool,
            session,
            dsn=Secret(dsn),
            shard=shard,
            incarnation=incarnation,
            observe_append=observe_append,
            nudger=Nudger(Session(dsn, application_name=f"{name}-nudge")),
        )

    @property
    def shard(self) -> int:
        """The number of the shard."""
        return self._shard

    @property
    def dsn(self) -> Secret | None:
        """By what another process opens this journal."""
        return self._dsn

    @property
    def incarnation(self) -> str:
        """Name of this history."""
        return self._incarnation

    @property
    def stalled_since(self) -> float | None:
        """Start of the overdue append, None while all is well; see `Journal.stalled_since`."""
        return self._appender.stalled_since

    async def append(self, frame: Frame) -> None:
        """Store the frame durably; see `Journal.append`."""
        if frame.shard != self._shard:
            raise JournalError(f"a frame of shard {frame.shard} does not belong in the journal of {self._shard}")
        task = asyncio.create_task(self._append_in_turn(frame))
        self._tasks.add(task)
        task.add_done_callback(self._on_append_done)
        await asyncio.shield(task)

    async def head(self) -> tuple[int, bytes]:
        """Return (last durable sequence, its frame hash); see `Journal.head`."""
        found = (await self._reader.fetch(_HEAD, self._shard, self._head_seen_at))[0]
        if found["last_sequence"] is None and self._head_seen_at > 0:
            found = (await self._reader.fetch(_HEAD, self._shard, 0))[0]
        newest_snapshot, first_sequence, last_sequence, last_hash = found
        self._head_seen_at = first_sequence or 0
        if last_sequence is None:
            floor = await self._reader.floor()
            last_sequence, last_hash = floor.last_sequence, floor.hash
        check_head(self._shard, last_sequence, last_hash, newest_snapshot)
        return last_sequence, last_hash

    def read(self, from_sequence: int, *, to_sequence: int | None = None) -> AsyncIterator[Frame]:
        """Yield verified frames; see `Journal.read`."""
        return self._reader.read(from_sequence, to_sequence)

    async def floor(self) -> int:
        """Return the oldest retained sequence."""
        return (await self._reader.floor()).last_sequence + 1

    async def save_snapshot(self, snapshot: StoredSnapshot) -> None:
        """Store a snapshot durably; see `Journal.save_snapshot`."""
        check_snapshot_frame(snapshot, await self._hash_at(snapshot.sequence), must_exist=True)
        await self._reader.fetch(
            _SAVE_SNAPSHOT,
            self._shard,
            snapshot.sequence,
            snapshot.time_ns,
            snapshot.state,
            snapshot.state_hash,
            snapshot.digest,
            snapshot.frame_hash,
            snapshot.format_version,
            snapshot.rules_version,
            hashlib.sha256(snapshot.state).digest(),
        )
        check_same_state(snapshot, await self._snapshot_at(snapshot.sequence))

    async def latest_snapshot(self, at_or_before: int | None = None) -> StoredSnapshot | None:
        """Return the newest snapshot at or before the sequence; see `Journal.latest_snapshot`."""
        snapshot = await self._snapshot_at(MAX_SEQUENCE if at_or_before is None else at_or_before)
        if snapshot is not None:
            check_snapshot_frame(snapshot, await self._hash_at(snapshot.sequence), must_exist=False)
        return snapshot

    async def snapshot_sequences(self) -> list[int]:
        """Return the sequences of all stored snapshots, the oldest first."""
        rows = await self._reader.fetch(_SNAPSHOT_SEQUENCES, self._shard)
        return [row["sequence"] for row in rows]

    async def close(self) -> None:
        """Finish or give up the append in flight, then close all connections; see `Journal.close`."""
        # A server that hangs with its connections open answers nothing, ever: what waits for it must be ended.
        await self._appender.close(self._pool.terminate)
        pending = [*self._tasks, *([self._extending] if self._extending is not None else [])]
        if pending and (await asyncio.wait(pending, timeout=CLOSE_POOL_S))[1]:
            self._pool.terminate()
        await asyncio.gather(*pending, return_exceptions=True)
        try:
            await asyncio.wait_for(self._pool.close(), CLOSE_POOL_S)
        except CONNECTION_ERRORS:
            self._pool.terminate()

    async def _append_in_turn(self, frame: Frame) -> None:
        async with self._append_lock:
            follows = self._known_head == (frame.first_sequence - 1, frame.prev_hash)
            self._known_head = None
            await self._appender.store(frame, None if follows else lambda: self._check_next(frame))
            self._known_head = frame.last_sequence, frame.hash
            if self._extending is None and self._appender.wants_partitions(frame.last_sequence + 1):
                self._extending = asyncio.create_task(self._extend_partitions(frame.last_sequence + 1))

    async def _check_next(self, frame: Frame) -> None:
        # A deposed leader must hear that it is fenced, not that its frame does not fit.
        await self._appender.barrier(frame.epoch)
        check_next(frame, *await self.head())

    def _on_append_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # Also retrieves it for a caller that was cancelled and will not.
            logger.info("append failed: %r", task.exception())

    async def _extend_partitions(self, next_sequence: int) -> None:
        """Make partitions ahead of need; if that fails, a later append tries again."""
        try:
            rows = await self._reader.fetch(ENSURE_PARTITIONS, next_sequence)
            self._appender.partitions_reach(next_sequence, rows[0][0])
        except (JournalError, asyncpg.PostgresError) as error:
            logger.warning("journal of shard %d: no partitions made ahead: %r", self._shard, error)
        finally:
            self._extending = None

    async def _snapshot_at(self, at_or_before: int) -> StoredSnapshot | None:
        rows = await self._reader.fetch(_LATEST_SNAPSHOT, self._shard, at_or_before)
        if not rows:
            return None
        state_sha256, *fields = rows[0]
        snapshot = StoredSnapshot(*fields)
        if hashlib.sha256(snapshot.state).digest() != state_sha256:
            raise JournalCorrupt(
                self._shard, snapshot.sequence, f"the {len(snapshot.state)} bytes of the snapshot were altered"
            )
        return snapshot

    async def _hash_at(self, sequence: int) -> bytes | None:
        """Return the hash of the frame that ends at `sequence`, None if no retained frame does."""
        rows = await self._reader.fetch(_FRAME_AT, self._shard, sequence)
        if rows and rows[0]["last_sequence"] == sequence:
            found: bytes = rows[0]["hash"]
            return found
        floor = await self._reader.floor()
        return floor.hash if sequence == floor.last_sequence else None


async def _current_incarnation(pool: "asyncpg.Pool[asyncpg.Record]") -> str:
    try:
        incarnation: str | None = await pool.fetchval(CURRENT_INCARNATION)
    except asyncpg.UndefinedTableError as error:
        raise JournalError("the journal's tables are missing: run `pincex migrate run`") from error
    except CONNECTION_ERRORS as error:
        raise JournalUnavailable(f"PostgreSQL went away: {error!r}") from error
    except asyncpg.PostgresError as error:
        raise JournalError(f"PostgreSQL refuses: {error}") from error
    if incarnation is None:
        raise JournalError("journal_incarnation is empty: the database is not migrated properly")
    return incarnation

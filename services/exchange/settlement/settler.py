"""The loop of settlement: whoever holds the lock follows the engine's events and writes what they post, exactly once.

While PostgreSQL writes one batch, the frames that come are posted into the books: they are the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

import asyncpg
import structlog

from exchange.runtime import postgres
from exchange.settlement import store
from exchange.settlement.store import Offset, Overtaken

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from exchange.settlement.ledger.books import Books
    from exchange.settlement.metrics import SettlementMetrics

RETRY_S: Final = 0.5
STANDBY_POLL_S: Final = 0.5
# Behind by less than this it counts as caught up: a commit is under way nearly always.
CAUGHT_UP_S: Final = 1.0
# Lines and trades of one transaction: frames beyond them are posted when it is written.
MAX_ROWS: Final = 60_000
_READ_ANEW: Final[tuple[type[Exception], ...]] = (Overtaken, *postgres.CONNECTION_ERRORS)


class State(StrEnum):
    """What an instance does."""

    STARTING = "STARTING"
    STANDBY = "STANDBY"
    WAITING_FOR_DATABASE = "WAITING_FOR_DATABASE"
    WAITING_FOR_ENGINE = "WAITING_FOR_ENGINE"
    CATCHING_UP = "CATCHING_UP"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


class NotWriter(Exception):
    """Another instance writes, or none does now."""


@dataclass(frozen=True, slots=True)
class Posted:
    """How far the books are, ahead of the tables."""

    sequence: int
    resume_token: str
    event_time_ns: int


@dataclass(frozen=True, slots=True)
class Full:
    """As many rows as go into one transaction, and how far they are."""

    posted: Posted
    rows: store.Rows


@dataclass(frozen=True, slots=True)
class Session:
    """The writer's own connection, and the books as its tables have them."""

    connection: asyncpg.Connection[asyncpg.Record]
    books: Books


class Feed(Protocol):
    """Where events come from; see `runtime.event_feed.EventFeed`."""

    head_sequence: int

    def batches(self, sequence: int, resume_token: str) -> AsyncGenerator[list[Any], None]:
        """Frames after a place, in lists; an empty list is a heartbeat."""
        ...


class Intake(Protocol):
    """Posts the events of a frame; see `service.intake.Intake`."""

    time_ns: int

    def take(self, batch: Any) -> None:
        """Post them all."""
        ...


class Settler:
    """One instance's part.

    `passing` are the errors of the feed after which it connects again. Errors of the database's connection have the books
    read anew. Whatever else fails stops it: nothing is skipped.
    """

    def __init__(
        self,
        database_url: str,
        instance: str,
        feed: Feed,
        make_intake: Callable[[Books], Intake],
        *,
        passing: tuple[type[Exception], ...],
    ) -> None:
        self._database_url = database_url
        self._name = f"pincex-{instance} writer"
        self._feed = feed
        self._make_intake = make_intake
        self._passing = passing
        self._session: Session | None = None
        # The books have what the tables do not have yet, up to there.
        self._posted: Posted | None = None
        # Taken from the books already, to be written before what was posted since.
        self._full: Full | None = None
        self._posting = asyncio.Lock()
        self._writing = asyncio.Lock()
        # There is something to write, or to hear of.
        self._news = asyncio.Event()
        # What was full is being written.
        self._room = asyncio.Event()
        self.metrics: SettlementMetrics | None = None
        self.state = State.STARTING
        self.problem = ""
        self.offset = Offset(0, "", 0, 0, 0)
        # Whoever waits for a sequence to be settled is woken by each batch.
        self.moved = asyncio.Condition()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("settler")

    @property
    def head_sequence(self) -> int:
        """The newest durable sequence of the engine, as far as known."""
        return max(self._feed.head_sequence, self.offset.sequence)

    @property
    def lag_s(self) -> float:
        """How old the last settled event is, while there are newer ones; else 0."""
        if self.head_sequence <= self.offset.sequence or not self.offset.event_time_ns:
            return 0.0
        return max(0.0, time.time() - self.offset.event_time_ns / 1e9)

    async def run(self) -> None:
        """Until cancelled. Where the record cannot be followed it stops, says why, and never skips."""
        while True:
            try:
                await self._hold_and_follow()
            except _READ_ANEW as error:
                self.state = State.WAITING_FOR_DATABASE
                self._log.warning("the books are read anew", error=repr(error))
            except Exception as error:  # noqa: BLE001 - said aloud, and held for an operator: none may be passed over
                self.state, self.problem = State.STOPPED, f"{type(error).__name__}: {error}"
                self._log.error("settlement has stopped: nothing is skipped", problem=self.problem, exc_info=True)
                await asyncio.Event().wait()
            if self.metrics is not None:
                self.metrics.restarts.inc()
            await asyncio.sleep(RETRY_S)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """The writer's session: the tables have all that the books have, and nothing else is posted or written meanwhile.

        Raises NotWriter where this instance is not the writer. Whoever posts into the books and does not store it must end
        the connection: all is read anew then.
        """
        async with self._posting, self._writing:
            if self._session is None or self._session.connection.is_closed():
                raise NotWriter
            await self._write(self._session)
            yield self._session

    @property
    def is_writer(self) -> bool:
        """Whether this instance is the one that writes."""
        return self._session is not None

    async def _hold_and_follow(self) -> None:
        """As the one writer, for as long as its session lives; else wait to become it."""
        connection = await postgres.connect(self._database_url, application_name=self._name)
        try:
            while not await store.become_writer(connection):
                self.state = State.STANDBY
                await asyncio.sleep(STANDBY_POLL_S)
            books, self.offset = await store.load(connection)
            self._log.info("the books are open", sequence=self.offset.sequence, postings=self.offset.posting_id)
            intake = self._make_intake(books)
            self._posted = self._full = None
            self._session = Session(connection, books)
            while True:
                self.state = State.WAITING_FOR_ENGINE
                try:
                    await self._follow(self._session, intake)
                except self._passing as error:
                    self._log.warning("the engine's events are asked for again", error=str(error))
                await asyncio.sleep(RETRY_S)
        finally:
            self._session = None
            connection.terminate()

    async def _follow(self, session: Session, intake: Intake) -> None:
        """Write what is posted, again and again, until the feed has ended."""
        async with aclosing(self._feed.batches(self.offset.sequence, self.offset.resume_token)) as batches:
            posting = asyncio.create_task(self._post(session, batches, intake))
            posting.add_done_callback(lambda _: self._news.set())
            try:
                while True:
                    await self._news.wait()
                    self._news.clear()
                    ended = posting.done()
                    if session.connection.is_closed():
                        if ended:
                            posting.result()
                        raise asyncpg.InterfaceError("the writer's session has ended")
                    async with self._writing:
                        await self._write(session)
                    self.state = State.RUNNING if self.lag_s < CAUGHT_UP_S else State.CATCHING_UP
                    if ended:
                        posting.result()
                        return
            finally:
                posting.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await posting

    async def _post(self, session: Session, batches: AsyncGenerator[list[Any], None], intake: Intake) -> None:
        """Post frames as they come, at most MAX_ROWS ahead of the tables; what is half posted is never written."""
        async for frames in batches:
            self._news.set()
            for frame in frames:
                async with self._posting:
                    try:
                        intake.take(frame)
                    except BaseException:
                        session.connection.terminate()
                        raise
                    self._posted = Posted(frame.last_sequence, frame.resume_token, intake.time_ns)
                self._news.set()
                # Between frames, whoever writes has its turn.
                await asyncio.sleep(0)
                if session.books.batch.rows >= MAX_ROWS:
                    self._full, self._posted = Full(self._posted, store.Rows(session.books)), None
                    self._room.clear()
                    await self._room.wait()

    async def _write(self, session: Session) -> None:
        """One transaction with what is posted. Where it fails the connection ends: the books are ahead of the tables."""
        full, self._full = self._full, None
        if full is None:
            if self._posted is None:
                return
            full, self._posted = Full(self._posted, store.Rows(session.books)), None
        self._room.set()
        posted, rows, old = full.posted, full.rows, self.offset
        time_ns = posted.event_time_ns or old.event_time_ns
        new = Offset(posted.sequence, posted.resume_token, rows.posting_id, rows.trade_count, time_ns)
        started = time.perf_counter()
        try:
            await store.write(session.connection, rows, old, new)
        except BaseException:
            session.connection.terminate()
            self._news.set()
            raise
        self.offset = new
        if self.metrics is not None:
            self.metrics.write_seconds.observe(time.perf_counter() - started)
            self.metrics.trades.inc(new.trade_count - old.trade_count)
            self.metrics.postings.inc(new.posting_id - old.posting_id)
        async with self.moved:
            self.moved.notify_all()

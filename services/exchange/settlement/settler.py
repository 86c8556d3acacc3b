"""The loop of settlement: whoever holds the lock follows the engine's events and writes what they post, exactly once."""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

import asyncpg
import structlog

from exchange.runtime import postgres
from exchange.settlement import store
from exchange.settlement.ledger.books import Books, UnknownThing
from exchange.settlement.store import Offset, Overtaken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from exchange.settlement.metrics import SettlementMetrics

RETRY_S: Final = 0.5
STANDBY_POLL_S: Final = 0.5
# Behind by less than this it counts as caught up: a commit is under way nearly always.
CAUGHT_UP_S: Final = 1.0
_READ_ANEW: Final[tuple[type[Exception], ...]] = (Overtaken, *postgres.CONNECTION_ERRORS)


class State(StrEnum):
    """What an instance does."""

    STARTING = "STARTING"
    STANDBY = "STANDBY"
    WAITING_FOR_ENGINE = "WAITING_FOR_ENGINE"
    CATCHING_UP = "CATCHING_UP"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


class Feed(Protocol):
    """Where events come from; see `service.feed.EventFeed`."""

    head_sequence: int

    def batches(self, sequence: int, resume_token: str) -> AsyncIterator[list[Any]]:
        """Frames after a place, in lists; an empty list is a heartbeat."""
        ...


class Intake(Protocol):
    """Posts the events of a frame; see `service.intake.Intake`."""

    time_ns: int

    def take(self, batch: Any) -> None:
        """Post them all."""
        ...


class Settler:
    """One instance's part. `passing` are the errors of the feed after which it connects again, `final` those that stop it."""

    def __init__(
        self,
        database_url: str,
        instance: str,
        feed: Feed,
        make_intake: Callable[[Books], Intake],
        *,
        passing: tuple[type[Exception], ...],
        final: tuple[type[Exception], ...],
    ) -> None:
        self._database_url = database_url
        self._name = f"pincex-{instance} writer"
        self._feed = feed
        self._make_intake = make_intake
        self._passing = passing
        self._final: tuple[type[Exception], ...] = (
            *final,
            UnknownThing,
            asyncpg.IntegrityConstraintViolationError,
        )
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
            except self._final as error:
                self.state, self.problem = State.STOPPED, f"{type(error).__name__}: {error}"
                self._log.error("settlement has stopped: nothing is skipped", problem=self.problem)
                await asyncio.Event().wait()
            except _READ_ANEW as error:
                self._log.warning("the books are read anew", error=repr(error))
            if self.metrics is not None:
                self.metrics.restarts.inc()
            await asyncio.sleep(RETRY_S)

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
            while True:
                self.state = State.WAITING_FOR_ENGINE
                try:
                    await self._follow(connection, books, intake)
                except self._passing as error:
                    self._log.warning("the engine's events are asked for again", error=str(error))
                await asyncio.sleep(RETRY_S)
        finally:
            connection.terminate()

    async def _follow(self, connection: asyncpg.Connection[asyncpg.Record], books: Books, intake: Intake) -> None:
        async for frames in self._feed.batches(self.offset.sequence, self.offset.resume_token):
            if frames:
                for frame in frames:
                    intake.take(frame)
                last = frames[-1]
                await self._write(connection, books, last.last_sequence, last.resume_token, intake.time_ns)
            elif connection.is_closed():
                raise asyncpg.InterfaceError("the writer's session has ended")
            self.state = State.RUNNING if self.lag_s < CAUGHT_UP_S else State.CATCHING_UP

    async def _write(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        books: Books,
        sequence: int,
        resume_token: str,
        event_time_ns: int,
    ) -> None:
        old = self.offset
        new = Offset(sequence, resume_token, books.posting_id, books.trade_count, event_time_ns or old.event_time_ns)
        started = time.perf_counter()
        await store.write(connection, books, old, new)
        self.offset = new
        if self.metrics is not None:
            self.metrics.write_seconds.observe(time.perf_counter() - started)
            self.metrics.trades.inc(new.trade_count - old.trade_count)
            self.metrics.postings.inc(new.posting_id - old.posting_id)
        async with self.moved:
            self.moved.notify_all()

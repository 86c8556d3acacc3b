"""Market data's record of the past: every instance builds candles and tickers, the one that holds the lock writes the candles.

All begin with what the tables say and follow the engine's events from there, so that an instance that takes over, or comes
back, builds the same rows. The writer puts candles and offset into the tables in one transaction, a few times a second. After a
failure of the database, or when another instance becomes the writer, it begins with the tables again; what was published
before stays readable until the new copy has come as far, and is not published twice. Where the events turn out to be of another
history, as after a restore, all streams end, and what the new copy has is published at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

import asyncpg
import structlog

from exchange.market_data import history_store as store
from exchange.market_data.candles import Candle, CandleBuilder, Trade, bars_of
from exchange.market_data.history_store import Offset, Overtaken
from exchange.market_data.tickers import TickerWindow
from exchange.runtime import postgres
from exchange.runtime.feeds.tokens import parse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from exchange.market_data.history_store import Connection

RETRY_S: Final = 0.5
# How often an instance that does not write asks whether it should.
STANDBY_POLL_S: Final = 0.5
# Longer than a commit with a standby takes, short enough that nobody misses what is not written yet.
WRITE_EVERY_S: Final = 0.2
# With nothing but the offset to write it is written only after so many times of that.
IDLE_BEATS: Final = 5
# Candles that wait to be written; the feed is not read on while there are more. A day of catching up has fewer a second.
MAX_PENDING: Final = 50_000
# How often an instance that has stopped looks whether the tables say something else now.
STOPPED_LOOK_S: Final = 2.0
# Behind by less than this it counts as caught up.
CAUGHT_UP_S: Final = 1.0
_READ_ANEW: Final[tuple[type[Exception], ...]] = (Overtaken, *postgres.CONNECTION_ERRORS)


class State(StrEnum):
    """What an instance does."""

    STARTING = "STARTING"
    WAITING_FOR_DATABASE = "WAITING_FOR_DATABASE"
    WAITING_FOR_ENGINE = "WAITING_FOR_ENGINE"
    CATCHING_UP = "CATCHING_UP"
    RUNNING = "RUNNING"
    STANDBY = "STANDBY"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class Frame:
    """What a frame of the journal says of trades. `time_ns` is the engine's time at its end; 0 where it says none."""

    last_sequence: int
    resume_token: str
    time_ns: int
    trades: list[Trade]


class Feed(Protocol):
    """Where events come from; see `runtime.event_feed.EventFeed`."""

    head_sequence: int

    def batches(self, sequence: int, resume_token: str) -> AsyncGenerator[list[Any], None]:
        """Frames after a place, in lists; an empty list is a heartbeat."""
        ...


class Listener(Protocol):
    """Something that new candles are of interest to. Must not wait and must not fail."""

    def frame(self, frame: Frame, candles: list[Candle]) -> None:
        """A frame, and the candles that it changed or closed, in order for each market and interval."""
        ...

    def stopped(self) -> None:
        """Nothing more will come from here."""
        ...


class Days:
    """Candles and tickers of all markets at one sequence."""

    def __init__(self, offset: Offset, builders: dict[str, CandleBuilder], windows: dict[str, TickerWindow]) -> None:
        self.sequence = offset.sequence
        self.resume_token = offset.resume_token
        self.time_ns = offset.event_time_ns
        self.builders = builders
        self.windows = windows

    @property
    def offset(self) -> Offset:
        """How far it is."""
        return Offset(self.sequence, self.resume_token, self.time_ns)

    def take(self, frame: Frame) -> list[Candle]:
        """Go on by one frame. Returns the candles that it changed or closed. Raises TimeWentBack."""
        changed: list[Candle] = []
        for symbol, bars in bars_of(frame.trades).items():
            builder = self.builders.get(symbol)
            if builder is None:
                builder = self.builders[symbol] = CandleBuilder(symbol)
                self.windows[symbol] = TickerWindow()
            window = self.windows[symbol]
            for bar in bars:
                window.add(bar)
            changed += builder.take(bars)
        if frame.time_ns > self.time_ns:
            self.time_ns = frame.time_ns
            for builder in self.builders.values():
                changed += builder.close(frame.time_ns)
        self.sequence, self.resume_token = frame.last_sequence, frame.resume_token
        return changed


class BecameWriter(Exception):
    """This instance writes from now on: begin with the tables."""


class History:
    """One instance's part. `passing` are the errors of the feed after which it connects again; others stop it: nothing is
    skipped, and nothing is built on a broken record.
    """

    def __init__(
        self,
        database_url: str,
        instance: str,
        feed: Feed,
        frame_of: Callable[[Any], Frame],
        *,
        passing: tuple[type[Exception], ...],
    ) -> None:
        self._database_url = database_url
        self._name = f"pincex-{instance} history"
        self._feed = feed
        self._frame_of = frame_of
        self._passing = passing
        self._listeners: list[Listener] = []
        self._pending: dict[tuple[str, int, int], Candle] = {}
        self._room = asyncio.Event()
        self._following: Days | None = None
        # Where the tables were when they were read last, and the history that was published last.
        self._begun = Offset(0, "", 0)
        self._incarnation = ""
        self.state = State.STARTING
        self.problem = ""
        self.is_writer = False
        # As far as the tables are, as far as known here.
        self.written = Offset(0, "", 0)
        self.days: Days | None = None
        """What is published: never behind what it was; None before the first."""
        # Whoever waits for a sequence is woken by each batch.
        self.moved = asyncio.Condition()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("history")

    def listen(self, listener: Listener) -> None:
        """Tell a listener of all frames from now on."""
        self._listeners.append(listener)

    @property
    def sequence(self) -> int:
        """The sequence of what is published."""
        return self.days.sequence if self.days is not None else 0

    @property
    def head_sequence(self) -> int:
        """The newest durable sequence of the engine, as far as known."""
        return max(self._feed.head_sequence, self.sequence)

    @property
    def lag_s(self) -> float:
        """How old the last event taken is, while there are newer ones; else 0."""
        days = self._following
        if days is None or self._feed.head_sequence <= days.sequence or not days.time_ns:
            return 0.0
        return max(0.0, time.time() - days.time_ns / 1e9)

    async def reached(self, sequence: int, timeout_s: float) -> bool:
        """Whether what is published has a sequence, or gets it in time."""
        try:
            async with asyncio.timeout(timeout_s), self.moved:
                await self.moved.wait_for(lambda: self.sequence >= sequence)
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._session()
            except Exception as error:  # noqa: BLE001 - said aloud, and held for an operator: none may be passed over
                first = _first(error)
                if not isinstance(first, _READ_ANEW):
                    await self._stopped(first)
                self.state = State.WAITING_FOR_DATABASE
                self._log.warning("candles are read anew", error=repr(first))
            await asyncio.sleep(RETRY_S)

    async def _stopped(self, why: Exception) -> None:
        """Hold, until the tables are not where this instance began: they were restored, built anew, or written by another."""
        self.state, self.problem = State.STOPPED, f"{type(why).__name__}: {why}"
        way_out = "pincex db rebuild-candles"
        self._log.error("the history has stopped: nothing is skipped", problem=self.problem, help=way_out, exc_info=why)
        self._end_streams()
        # What it had may not have been.
        self.days = None
        while True:
            await asyncio.sleep(STOPPED_LOOK_S)
            # While it is being restored there may be no tables.
            with contextlib.suppress(asyncpg.PostgresError, *postgres.CONNECTION_ERRORS):
                connection = await postgres.connect(self._database_url, application_name=self._name)
                try:
                    offset = await store.read_offset(connection)
                finally:
                    connection.terminate()
                if offset != self._begun:
                    self._begun, self.problem, self._feed.head_sequence = offset, "", 0
                    return

    def _end_streams(self) -> None:
        for listener in self._listeners:
            listener.stopped()

    async def _session(self) -> None:
        """On one connection, whose life is that of the lock: begin with the tables and follow, as a writer or not."""
        connection = await postgres.connect(self._database_url, application_name=self._name)
        try:
            self.is_writer = await store.become_writer(connection)
            while not self.is_writer:
                try:
                    await self._follow_from_tables(connection, self._stand_by)
                except* BecameWriter:
                    self._log.info("this instance writes the candles now")
                    self.is_writer = True
            await self._follow_from_tables(connection, self._write)
        finally:
            self.is_writer = False
            connection.terminate()

    async def _follow_from_tables(
        self, connection: Connection, beside: Callable[[Connection], Coroutine[Any, Any, None]]
    ) -> None:
        days = Days(*await store.load(connection))
        self._pending.clear()
        self._room.set()
        self._following, self._begun, self.written = days, days.offset, days.offset
        if self.days is None:
            self.days = days
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(days))
            group.create_task(beside(connection))

    async def _stand_by(self, connection: Connection) -> None:
        while True:
            if await store.become_writer(connection):
                raise BecameWriter
            await asyncio.sleep(STANDBY_POLL_S)

    async def _write(self, connection: Connection) -> None:
        """What has been gathered, again and again; a transaction holds all of some whole frames."""
        days = self._following
        assert days is not None
        beats = 0
        while True:
            beats += 1
            if self._pending or (days.sequence != self.written.sequence and beats >= IDLE_BEATS):
                pending, self._pending, new = self._pending, {}, days.offset
                self._room.set()
                # A candle that was closed since, and did not grow, is written already.
                grown = [candle for candle in pending.values() if candle.bar.sequence > self.written.sequence]
                await store.write(connection, grown, self.written, new)
                self.written = new
                beats = 0
            elif connection.is_closed():
                raise ConnectionError("the writer's session has ended")
            await asyncio.sleep(WRITE_EVERY_S)

    async def _follow(self, days: Days) -> None:
        while True:
            self.state = State.WAITING_FOR_ENGINE
            try:
                async with aclosing(self._feed.batches(days.sequence, days.resume_token)) as batches:
                    async for frames in batches:
                        await self._take(days, frames)
            except self._passing as error:
                self._log.warning("the engine's events are asked for again", error=str(error))
            await asyncio.sleep(RETRY_S)

    async def _take(self, days: Days, frames: list[Any]) -> None:
        for raw in frames:
            frame = self._frame_of(raw)
            candles = days.take(frame)
            if raw is frames[0]:
                self._notice_history(days, frame)
            if self.is_writer:
                self._pending |= {(one.symbol, one.length_s, one.bar.start_s): one for one in candles}
            if days is self.days:
                self._publish(frame, candles)
            elif frame.last_sequence >= self.sequence:
                published = self.sequence
                self.days = days
                if frame.last_sequence > published:
                    self._publish(frame, candles)
        if frames:
            async with self.moved:
                self.moved.notify_all()
        behind = self.lag_s >= CAUGHT_UP_S
        self.state = State.CATCHING_UP if behind else State.RUNNING if self.is_writer else State.STANDBY
        if len(self._pending) > MAX_PENDING:
            self._room.clear()
            await self._room.wait()

    def _notice_history(self, days: Days, frame: Frame) -> None:
        """Where events are of another history than those before, nothing of that one is told any more."""
        incarnation = parse(frame.resume_token).incarnation
        if incarnation != self._incarnation:
            if self._incarnation:
                self._log.warning("the events are of another history", sequence=frame.last_sequence)
                self._end_streams()
                self.days = days
            self._incarnation = incarnation

    def _publish(self, frame: Frame, candles: list[Candle]) -> None:
        for listener in self._listeners:
            listener.frame(frame, candles)


def _first(error: Exception) -> Exception:
    """The first of those that a group holds."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error

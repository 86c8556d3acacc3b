"""The journal's database as its clients see it: a primary, a synchronous standby, and the statements of the journal.

What talks to it are the real `PostgresJournal` and `PostgresLease`; their sessions and pool are simulated here. Each
statement is one atomic step, as in PostgreSQL: fence and primary key are checked, and nothing else is. A commit is
acknowledged once the standby has it. While the standby lags a row may be seen that it does not have yet; after a
fail-over such a row is gone, and was never acknowledged.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from exchange.trading.journal import postgres, postgres_appender, postgres_lease, postgres_reader
from exchange.trading.journal.frame import Frame

PARTITION = 10_000_000
NO_REPLY_S = 1.0
"""After this long without an answer a read gives up, as the pool's command timeout makes it."""


_NO_LEASE: dict[str, Any] = {"epoch": 0, "holder": None, "expires": 0.0}

Reply = Callable[[Any, bool], None]
"""Gets a statement's value, or the error that it ended with, and whether the server warned."""


class Record(dict[str, Any]):
    """A row: by name like a mapping, by position when it is iterated."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values())


@dataclass(slots=True)
class Tables:
    """What is stored."""

    frames: list[Frame] = field(default_factory=list)  # by first sequence
    fence: int = 0
    lease: dict[str, Any] | None = None
    snapshots: dict[int, Record] = field(default_factory=dict)

    def copy(self) -> Tables:
        return Tables(list(self.frames), self.fence, deepcopy(self.lease), dict(self.snapshots))


class Database:
    """The server. `on_frame` hears of every row as it becomes visible, `on_lost` of those that a fail-over has lost."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.on_frame: Callable[[Frame], None] = lambda _frame: None
        self.on_lost: Callable[[list[Frame]], None] = lambda _frames: None
        self.now = now
        self.generation = 0
        """Counts the servers: a session belongs to one of them."""
        self.serves = True
        self.expose_next: str = ""
        """What happens to the next append: "break" or "warn" lets its row be seen before the standby has it."""
        self.fencing = True
        """False is a planted bug: appends land under any epoch."""
        self.raises_epoch = True
        """False is a planted bug: a new holder of the lease gets the epoch of the one before."""
        self._tables = Tables()
        self._standby: Tables | None = None  # what the standby has while it lags
        self._waiting: list[tuple[str, tuple[Any, ...], Reply]] = []
        self._statements: dict[str, Callable[..., Any]] = {
            postgres_appender._APPEND: self._append,
            postgres_appender._BARRIER: self._barrier,
            postgres_appender._CURRENT_EPOCH: lambda _shard: self._tables.fence,
            postgres_appender._STORED_HASH: self._stored_hash,
            postgres_appender.ENSURE_PARTITIONS: self._ensure_partitions,
            postgres_lease._ACQUIRE: self._acquire,
            postgres_lease._RENEW: self._renew,
            postgres_lease._LOOK: self._look,
            postgres_lease._RELEASE: self._release,
            postgres_reader._FLOOR: lambda _shard: [],
            postgres_reader._AROUND: self._around,
            postgres_reader._PAGE: self._page,
            postgres._HEAD: self._head,
            postgres._FRAME_AT: self._frame_at,
            postgres._SAVE_SNAPSHOT: self._save_snapshot,
            postgres._LATEST_SNAPSHOT: self._latest_snapshot,
            postgres._SNAPSHOT_SEQUENCES: lambda _shard: [
                Record(sequence=sequence) for sequence in sorted(self._tables.snapshots)
            ],
        }
        self._writes = {
            postgres_appender._APPEND,
            postgres_appender._BARRIER,
            postgres_lease._ACQUIRE,
            postgres_lease._RENEW,
            postgres_lease._RELEASE,
            postgres._SAVE_SNAPSHOT,
        }

    @property
    def frames(self) -> list[Frame]:
        """All rows that can be seen, in order."""
        return self._tables.frames

    @property
    def durable(self) -> int:
        """The last sequence that the standby has too."""
        frames = self._tables.frames if self._standby is None else self._standby.frames
        return frames[-1].last_sequence if frames else 0

    @property
    def epoch(self) -> int:
        """The fencing epoch."""
        return self._tables.fence

    @property
    def holder(self) -> str | None:
        """Who holds the lease, whether its time is up or not."""
        return self._tables.lease["holder"] if self._tables.lease is not None else None

    # --- the server's life ---

    @property
    def lags(self) -> bool:
        """Whether the standby lags behind what can be seen."""
        return self._standby is not None

    def execute(self, sql: str, arguments: tuple[Any, ...], reply: Reply) -> None:
        """Run a statement. While the server is away, or for a write while the standby lags, it waits."""
        if not self.serves or (self._standby is not None and sql in self._writes):
            self._waiting.append((sql, arguments, reply))
            return
        exposed = ""
        if sql == postgres_appender._APPEND and self.expose_next:
            exposed, self.expose_next = self.expose_next, ""
            self._standby = self._tables.copy()
        try:
            value = self._statements[sql](*arguments)
        except asyncpg.PostgresError as error:
            value = error
        if exposed == "break":
            value = ConnectionResetError("the server has ended the session")
        reply(value, exposed == "warn")

    def replicate(self) -> None:
        """The standby has caught up: what waited for it goes on."""
        self._standby = None
        self._go_on()

    def stop(self) -> None:
        """Nobody is answered until `start` or `fail_over`."""
        self.serves = False

    def start(self) -> None:
        """It serves again, with all that it had."""
        self.serves = True
        self._go_on()

    def fail_over(self) -> None:
        """The standby takes over: what it does not have is gone, and so are all sessions."""
        if self._standby is not None:
            lost = self._tables.frames[len(self._standby.frames) :]
            self._tables, self._standby = self._standby, None
            if lost:
                self.on_lost(lost)
        self.generation += 1
        self.serves = True
        waiting, self._waiting = self._waiting, []
        for _, _, reply in waiting:
            reply(ConnectionResetError("the server is gone"), False)

    def _go_on(self) -> None:
        waiting, self._waiting = self._waiting, []
        for sql, arguments, reply in waiting:
            self.execute(sql, arguments, reply)

    # --- the statements of the appender and the lease ---

    def _append(self, shard: int, first: int, last: int, epoch: int, *values: Any) -> bool | None:
        if self.fencing and epoch != self._tables.fence:
            return None
        frames = self._tables.frames
        place = bisect_right(frames, first, key=lambda frame: frame.first_sequence)
        if place > 0 and frames[place - 1].first_sequence == first:
            raise asyncpg.UniqueViolationError("duplicate key value violates unique constraint")
        frame = Frame(shard, first, last, epoch, *values)
        frames.insert(place, frame)
        self.on_frame(frame)
        return True

    def _barrier(self, _shard: int, epoch: int) -> int | None:
        return epoch if epoch == self._tables.fence or not self.fencing else None

    def _stored_hash(self, _shard: int, first: int) -> bytes | None:
        return next((frame.hash for frame in reversed(self._tables.frames) if frame.first_sequence == first), None)

    def _ensure_partitions(self, next_sequence: int) -> Any:
        return (next_sequence // PARTITION + 3) * PARTITION

    def _acquire(self, _shard: int, holder: str, ttl: float, address: str, deposing: int) -> int | None:
        tables = self._tables
        lease: dict[str, Any] = tables.lease if tables.lease is not None else _NO_LEASE
        free = lease["holder"] in (None, holder) or lease["expires"] <= self.now() or lease["epoch"] == deposing
        if not free:
            return None
        epoch: int = lease["epoch"] + 1 if self.raises_epoch or lease["epoch"] == 0 else lease["epoch"]
        tables.lease = {"epoch": epoch, "holder": holder, "expires": self.now() + ttl, "address": address}
        tables.fence = epoch
        return epoch

    def _renew(self, _shard: int, epoch: int, ttl: float) -> bool | None:
        lease = self._tables.lease
        if lease is None or lease["epoch"] != epoch or lease["holder"] is None:
            return None
        lease["expires"] = self.now() + ttl
        return True

    def _look(self, _shard: int) -> str | None:
        lease = self._tables.lease
        if lease is None:
            return None
        return json.dumps([lease["holder"], lease["address"], lease["epoch"], lease["expires"] > self.now()])

    def _release(self, _shard: int, epoch: int) -> bool | None:
        lease = self._tables.lease
        if lease is None or lease["epoch"] != epoch:
            return None
        lease["holder"] = None
        return True

    # --- the statements of readers ---

    def _around(self, _shard: int, sequence: int, lowest: int) -> list[Record]:
        frames = self._tables.frames
        end = bisect_right(frames, sequence, key=lambda frame: frame.first_sequence)
        found = [frame for frame in reversed(frames[max(0, end - 2) : end]) if frame.first_sequence > lowest]
        # One row at least, for the floor; nothing is archived here.
        return [Record(_NO_FLOOR | _place(frame)) for frame in found] or [Record(_NO_FLOOR | _place(None))]

    def _page(self, shard: int, after: int, last: int, limit: int, max_bytes: int) -> list[Record]:
        frames = self._tables.frames
        start = bisect_right(frames, after, key=lambda frame: frame.first_sequence)
        scanned = [frame for frame in frames[start : start + limit] if frame.first_sequence <= last]
        rows, running = [], 0
        for frame in scanned:
            size = len(frame.commands) + len(frame.events)
            if running < max_bytes:
                rows.append(
                    Record(
                        scanned=len(scanned),
                        size=size,
                        shard=shard,
                        first_sequence=frame.first_sequence,
                        last_sequence=frame.last_sequence,
                        epoch=frame.epoch,
                        time_ns=frame.time_ns,
                        commands=frame.commands,
                        events=frame.events,
                        digest=frame.digest,
                        prev_hash=frame.prev_hash,
                        hash=frame.hash,
                        format_version=frame.format_version,
                        rules_version=frame.rules_version,
                    )
                )
            running += size
        return rows

    def _head(self, _shard: int, lowest: int) -> list[Record]:
        frames = self._tables.frames
        newest = frames[-1] if frames and frames[-1].first_sequence >= lowest else None
        return [Record({"newest_snapshot": max(self._tables.snapshots, default=None)} | _place(newest))]

    def _frame_at(self, _shard: int, sequence: int) -> list[Record]:
        frames = self._tables.frames
        place = bisect_right(frames, sequence, key=lambda frame: frame.first_sequence)
        return [Record(last_sequence=frames[place - 1].last_sequence, hash=frames[place - 1].hash)] if place else []

    def _save_snapshot(self, shard: int, sequence: int, *values: Any) -> list[Record]:
        names = ("time_ns", "state", "state_hash", "digest", "frame_hash", "format_version", "rules_version")
        *fields, sha256 = values
        row = Record(state_sha256=sha256, shard=shard, sequence=sequence, **dict(zip(names, fields, strict=True)))
        self._tables.snapshots.setdefault(sequence, row)
        return []

    def _latest_snapshot(self, _shard: int, at_or_before: int) -> list[Record]:
        found = max((sequence for sequence in self._tables.snapshots if sequence <= at_or_before), default=None)
        return [self._tables.snapshots[found]] if found is not None else []


_NO_FLOOR: dict[str, Any] = {"floor_sequence": None, "prev_hash": None}


def _place(frame: Frame | None) -> dict[str, Any]:
    """A frame's place in the chain, as columns; all NULL without one."""
    names = ("first_sequence", "last_sequence", "hash")
    return {name: getattr(frame, name) if frame is not None else None for name in names}


@dataclass(slots=True)
class Weather:
    """How the network between an instance and the database behaves: chances for each statement."""

    lost_requests: float = 0.0
    lost_replies: float = 0.0
    late_requests: float = 0.0
    """The client hears that the connection broke, and the statement arrives all the same, up to `late_s` later."""
    late_s: float = 3.0
    slow: float = 0.0
    """Answers that take up to `slow_s`."""
    slow_s: float = 0.5


class Wire:
    """One instance's way to the database. `cut` holds back what is sent, until it is mended."""

    def __init__(self, loop: Any, database: Database, rng: Any, weather: Weather, context: Any) -> None:
        self.weather = weather
        self.database = database
        self.broken = False
        self._loop = loop
        self._rng = rng
        self._context = context
        self._held: list[Callable[[], None]] = []

    def mend(self) -> None:
        """What was held back goes on."""
        self.broken = False
        held, self._held = self._held, []
        for send in held:
            send()

    async def call(self, sql: str, arguments: tuple[Any, ...], generation: int) -> tuple[Any, bool]:
        """Run a statement in a session of the server of this generation; answers its value and whether the server warned.
        Raises what the server raises, and ConnectionResetError where the connection breaks.
        """
        answer: asyncio.Future[tuple[Any, bool]] = self._loop.create_future()
        rng, weather = self._rng, self.weather
        chance = rng.random()
        lost_request = chance < weather.lost_requests
        late = not lost_request and chance < weather.lost_requests + weather.late_requests
        lost_reply = rng.random() < weather.lost_replies

        def settle(value: Any, warned: bool) -> None:  # noqa: FBT001 - it is what the server says
            if answer.done():
                return
            if isinstance(value, Exception):
                answer.set_exception(value)
                answer.exception()
            else:
                answer.set_result((value, warned))

        def reset() -> None:
            settle(ConnectionResetError("the connection to the database broke"), False)

        def reply(value: Any, warned: bool) -> None:  # noqa: FBT001 - it is what the server says
            if lost_reply or self.database.generation != generation:
                reset()
            else:
                self._later(self._delay(), lambda: self._through(lambda: settle(value, warned)))

        def arrive() -> None:
            if self.database.generation != generation:
                reset()
            else:
                self.database.execute(sql, arguments, reply)

        if lost_request:
            self._later(self._delay(), reset)
        else:
            if late:
                self._later(self._delay(), reset)
            travel = self._delay() + (rng.random() * weather.late_s if late else 0.0)
            self._later(travel, lambda: self._through(arrive))
        return await answer

    def notices(self, generation: int) -> bool:
        """Whether a client knows already that the server of its session is gone."""
        return generation != self.database.generation and self._rng.random() < 0.5

    def _delay(self) -> float:
        rng, weather = self._rng, self.weather
        base: float = 0.0002 + 0.0008 * rng.random()
        return base + (rng.random() * weather.slow_s if rng.random() < weather.slow else 0.0)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._loop.call_later(seconds, act, context=self._context)

    def _through(self, act: Callable[[], None]) -> None:
        if self.broken:
            self._held.append(act)
        else:
            act()


class SimSession:
    """`Session` over a wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._warned = False
        self._generation = 0
        self.connected = False

    async def fetch_value(self, sql: str, *arguments: Any) -> Any:
        """As `Session.fetch_value`: where the client has seen its server go, it connects to the next by itself."""
        if not self.connected or self._wire.notices(self._generation):
            self.connected, self._generation = True, self._wire.database.generation
        value, warned = await self._wire.call(sql, arguments, self._generation)
        self._warned = self._warned or warned
        return value

    def take_warning(self) -> bool:
        warned, self._warned = self._warned, False
        return warned

    def drop(self) -> None:
        self.connected = False

    async def close(self, timeout_s: float) -> None:
        self.drop()


class SimPool:
    """The reading pool over a wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def fetch(self, sql: str, *arguments: Any) -> Any:
        async with asyncio.timeout(NO_REPLY_S):
            return (await self._wire.call(sql, arguments, self._wire.database.generation))[0]

    def terminate(self) -> None:
        """Nothing is kept open."""

    async def close(self) -> None:
        """Nothing is kept open."""

"""A follower's end of the link: what its clients ask goes up in batches, durable frames and results come down.

A link lives as long as one leader. What has no outcome when it ends goes again on the next one, in order, if repeating it
is safe; the core of the next leader answers what was applied already from its memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from exchange.runtime.clock import Clock
from exchange.trading import codec
from exchange.trading.core.commands import Command
from exchange.trading.core.events import Result
from exchange.trading.replication.messages import (
    Attendance,
    Comparison,
    Connection,
    FollowerBatch,
    FollowerHello,
    LeaderBatch,
    LinkLost,
    Outcome,
    ReplicaInfo,
    StateReport,
    Status,
    Submission,
)
from exchange.trading.replication.submissions import decode_results, is_repeatable, sessions_of
from exchange.trading.seat import Overloaded, Stalled, Stopped, fail


@dataclass(frozen=True, slots=True)
class UplinkLimits:
    """Bounds and times of a follower's link."""

    max_queued_commands: int = 50_000
    max_batch_commands: int = 4_096
    """Commands in one message to the leader."""
    hold_s: float = 5.0
    """How long commands wait for a leader, before their callers are told that there is none."""
    silence_s: float = 1.0
    """A leader that says nothing for so long does not lead well: its link is dropped."""
    ping_s: float = 0.25
    """A follower that has nothing to say asks the leader where it stands this often."""
    head_wait_s: float = 0.25
    """How long a read waits to hear where the leader stands."""
    compare_wait_s: float = 5.0


@dataclass(slots=True)
class _Pending:
    """A submission without an outcome."""

    commands: list[Command]
    future: asyncio.Future[list[Result]]
    since: float
    sent: bool = False


class Uplink:
    """See the module. One a follower's life; all methods belong to one event loop."""

    def __init__(
        self,
        clock: Clock,
        *,
        attended: Callable[[], Iterable[Attendance]],
        limits: UplinkLimits | None = None,
    ) -> None:
        """`attended` names the sessions that are connected here."""
        self.limits = limits if limits is not None else UplinkLimits()
        self.epoch = 0
        self.leader = ""
        self.replicas: list[ReplicaInfo] = []
        self._clock = clock
        self._attended = attended
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, _Pending] = {}
        self._last_id = 0
        self._queued = 0
        self._leader_depth = 0
        self._sequence = 0
        self._early: deque[tuple[int, _Pending, list[Result]]] = deque()
        self._outbox = FollowerBatch()
        self._unsent: list[int] = []
        self._something = asyncio.Event()
        self._connection: Connection | None = None
        self._unlinked_since = clock.monotonic()
        self._sweep: asyncio.TimerHandle | None = None
        self._ping = 0
        self._head_asked: list[asyncio.Future[int]] = []
        self._head_waiting: dict[int, list[asyncio.Future[int]]] = {}
        self._comparing = asyncio.Lock()
        self._comparison: asyncio.Future[Comparison] | None = None
        self._heard_at = 0.0
        self._stopped = False

    # --- what the seat asks ---

    @property
    def linked(self) -> bool:
        """Whether a leader has taken this link."""
        return self.epoch != 0

    @property
    def queue_depth(self) -> int:
        """Commands that wait here, and at the leader as it last said."""
        return self._queued + self._leader_depth

    def submit(self, commands: list[Command]) -> asyncio.Future[list[Result]]:
        """Send commands to the leader, or keep them until there is one; see `Seat.submit`."""
        if self._stopped:
            raise Stopped
        if self._queued + len(commands) > self.limits.max_queued_commands:
            raise Overloaded
        now = self._clock.monotonic()
        if not self.linked and now - self._unlinked_since > self.limits.hold_s:
            raise Stalled
        future: asyncio.Future[list[Result]] = self._loop.create_future()
        self._keep(commands, future, now)
        return future

    def adopt(self, unapplied: list[tuple[list[Command], asyncio.Future[list[Result]]]]) -> None:
        """Take over what a leader that steps down has queued and not applied."""
        now = self._clock.monotonic()
        for commands, future in unapplied:
            self._keep(commands, future, now)

    def _keep(self, commands: list[Command], future: asyncio.Future[list[Result]], now: float) -> None:
        self._last_id += 1
        self._pending[self._last_id] = _Pending(commands, future, now)
        self._unsent.append(self._last_id)
        self._queued += len(commands)
        self._something.set()
        if self._sweep is None:
            self._sweep = self._loop.call_later(self.limits.hold_s / 4, self._expire)

    def take_pending(self) -> list[tuple[list[Command], asyncio.Future[list[Result]]]]:
        """What has no outcome yet, in order, for this instance leads now; it is forgotten here."""
        taken = [(pending.commands, pending.future) for pending in self._pending.values()]
        self._pending.clear()
        self._unsent.clear()
        self._queued = sum(len(early[1].commands) for early in self._early)
        return taken

    async def leader_head(self) -> int | None:
        """A sequence that holds all that was durable before the call; None if no leader says so in time."""
        if not self.linked:
            return None
        future: asyncio.Future[int] = self._loop.create_future()
        self._head_asked.append(future)
        self._something.set()
        try:
            # Not `wait_for`: where `future` has just ended, Python 3.11 swallows the cancellation of who waits.
            async with asyncio.timeout(self.limits.head_wait_s):
                return await future
        except (TimeoutError, Stopped):
            return None

    async def compare(self, symbol: str) -> Comparison | None:
        """Have the leader compare all instances; None if there is none, or it does not answer in time."""
        async with self._comparing:
            if not self.linked:
                return None
            self._ping += 1
            self._comparison = self._loop.create_future()
            self._outbox.compare, self._outbox.compare_symbol = self._ping, symbol
            self._something.set()
            try:
                async with asyncio.timeout(self.limits.compare_wait_s):
                    return await self._comparison
            except (TimeoutError, Stopped):
                return None

    def attend(self, attendance: Attendance) -> None:
        """A session's connection came or went here."""
        if self._connection is not None:
            self._outbox.attendances.append(attendance)
            self._something.set()

    def report(self, report: StateReport) -> None:
        """Answer a comparison of the leader."""
        self._outbox.reports.append(report)
        self._something.set()

    def applied(self, sequence: int) -> None:
        """The core stands at this sequence: results that hold there may be let out."""
        self._sequence = sequence
        early = self._early
        while early and early[0][0] <= sequence:
            _, pending, results = early.popleft()
            self._end(pending, results)

    def stop(self) -> None:
        """End everything that waits here, its outcome unknown."""
        self._stopped = True
        if self._sweep is not None:
            self._sweep.cancel()
        for pending in (*self._pending.values(), *(early[1] for early in self._early)):
            fail(pending.future, Stopped())
        self._pending.clear()
        self._early.clear()
        self._unsent.clear()
        self._end_waits()

    def _expire(self) -> None:
        """Tell those who have waited for too long that the outcome is unknown, or that nobody leads."""
        self._sweep = None
        oldest = self._clock.monotonic() - self.limits.hold_s
        for number in [number for number, pending in self._pending.items() if pending.since <= oldest]:
            self._fail(number, Stalled())
        if self._pending:
            self._sweep = self._loop.call_later(self.limits.hold_s / 4, self._expire)

    # --- a link ---

    async def run(
        self,
        connection: Connection,
        hello: FollowerHello,
        take: Callable[[LeaderBatch], None],
    ) -> None:
        """Use a link until it is lost. `take` gets each message after what is for the link itself was read from it,
        results excepted: these are let out after it. Raises LinkLost, and what `take` raises.
        """
        self._connection = connection
        self._outbox = FollowerBatch()
        self._heard_at = self._clock.monotonic()
        tasks = [asyncio.create_task(self._drop_when_silent(connection))]
        try:
            await connection.send(FollowerBatch(hello=replace(hello, attendances=tuple(self._attended()))))
            first = await connection.receive()
            if first.hello is None:
                raise LinkLost("the leader's first message is no hello")
            self.epoch, self.leader = first.hello.epoch, first.hello.instance
            tasks.append(asyncio.create_task(self._write(connection)))
            self._read(first, take)
            while True:
                self._read(await connection.receive(), take)
        finally:
            connection.close()
            for task in tasks:
                task.cancel()
            self._lost()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _drop_when_silent(self, connection: Connection) -> None:
        while self._clock.monotonic() - self._heard_at < self.limits.silence_s:  # noqa: ASYNC110 - time is the event
            await asyncio.sleep(self.limits.silence_s / 4)
        connection.close()

    def _read(self, batch: LeaderBatch, take: Callable[[LeaderBatch], None]) -> None:
        self._heard_at = self._clock.monotonic()
        self._leader_depth = batch.queue_depth
        if batch.replicas:
            self.replicas = batch.replicas
        take(batch)
        for outcome in batch.outcomes:
            self._take_outcome(outcome)
        if batch.pong:
            for nonce in [one for one in self._head_waiting if one <= batch.pong]:
                for asked in self._head_waiting.pop(nonce):
                    if not asked.done():
                        asked.set_result(batch.head_sequence)
        for comparison in batch.comparisons:
            if self._comparison is not None and not self._comparison.done():
                self._comparison.set_result(comparison)

    def _take_outcome(self, outcome: Outcome) -> None:
        pending = self._pending.get(outcome.id)
        if pending is None:
            return
        if outcome.status is Status.APPLIED:
            results = decode_results(outcome.results, pending.commands)
            del self._pending[outcome.id]
            if outcome.sequence <= self._sequence:
                self._end(pending, results)
            else:
                # A frame of it is not here yet: who hears the result must find what it speaks of.
                self._early.append((outcome.sequence, pending, results))
        elif outcome.status is Status.NOT_LEADING:
            # Not applied: it waits for the next leader.
            pending.sent = False
        else:
            self._fail(outcome.id, Overloaded() if outcome.status is Status.OVERLOADED else Stalled())

    def _fail(self, number: int, error: Exception) -> None:
        """End a submission with an error, and with it what its sessions have asked after it: applied without it, that
        would forbid the numbers before it for ever.
        """
        failed = self._pending.pop(number, None)
        if failed is None:
            return
        sessions = sessions_of(failed.commands)
        later = [
            after
            for after, pending in (self._pending.items() if sessions else ())
            if after > number and not sessions.isdisjoint(sessions_of(pending.commands))
        ]
        for pending in (failed, *map(self._pending.pop, later)):
            self._queued -= len(pending.commands)
            fail(pending.future, error)

    def _end(self, pending: _Pending, results: list[Result]) -> None:
        self._queued -= len(pending.commands)
        if not pending.future.done():
            pending.future.set_result(results)

    async def _write(self, connection: Connection) -> None:
        """Send what gathers; a lost link shows in the reader too, which ends it."""
        while True:
            try:
                async with asyncio.timeout(self.limits.ping_s):
                    await self._something.wait()
            except TimeoutError:
                self._head_asked.append(self._loop.create_future())
            self._something.clear()
            try:
                await connection.send(self._next_batch())
            except LinkLost:
                connection.close()
                return

    def _next_batch(self) -> FollowerBatch:
        batch, self._outbox = self._outbox, FollowerBatch()
        batch.sequence = self._sequence
        count = taken = 0
        for number in self._unsent:
            pending = self._pending.get(number)
            if pending is not None:
                if count and count + len(pending.commands) > self.limits.max_batch_commands:
                    break
                count += len(pending.commands)
                pending.sent = True
                batch.submissions.append(Submission(number, codec.encode_commands(pending.commands)))
            taken += 1
        del self._unsent[:taken]
        if self._unsent:
            self._something.set()
        if self._head_asked:
            self._ping += 1
            batch.ping = self._ping
            self._head_waiting[self._ping], self._head_asked = self._head_asked, []
        return batch

    def _lost(self) -> None:
        """The link is gone: what was sent and may have been applied goes again only if that is safe."""
        self._connection = None
        self.epoch, self.leader = 0, ""
        self.replicas = []
        self._leader_depth = 0
        self._unlinked_since = self._clock.monotonic()
        self._outbox = FollowerBatch()
        for number, pending in list(self._pending.items()):
            if pending.sent and not all(map(is_repeatable, pending.commands)):
                self._fail(number, Stopped())
            pending.sent = False
        self._unsent = list(self._pending)
        self._something.set()
        self._end_waits()

    def _end_waits(self) -> None:
        for waits in (self._head_asked, *self._head_waiting.values()):
            for asked in waits:
                fail(asked, Stopped())
        if self._comparison is not None:
            fail(self._comparison, Stopped())
        self._head_asked = []
        self._head_waiting.clear()

"""The sequencer: one order of all commands, and nothing let out before it is durable.

Commands that arrive are applied to the core at once and gather in an open frame. While one frame is being committed the
next one fills; when the commit is done its results and events are released and the next frame follows. A lone command
never waits; where arrivals are dense frames are paced, so that each carries more.

Reads of a leader wait for the same: `barrier()` returns when all that the core has applied is durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from exchange.runtime.clock import Clock
from exchange.trading import codec
from exchange.trading.core import commands as cmd
from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import Event, Result
from exchange.trading.journal.contract import Frame, Journal
from exchange.trading.seat import Overloaded, SequenceWaiters, Stalled, Stopped, fail

DENSE_ARRIVALS_PER_SECOND: Final = 1_700
"""Separate submissions a second above which frames are paced."""

FRAME_INTERVAL_S: Final = 0.002
"""Least time between two frames while arrivals are dense."""

TICK_AGAIN_S: Final = 0.02
"""When a tick that could not be had now is tried again."""


@dataclass(frozen=True, slots=True)
class SequencerLimits:
    """Bounds of the sequencer; beyond them commands are refused, never queued without end."""

    max_queued_commands: int = 50_000
    max_frame_commands: int = 4_096
    stall_refuse_s: float = 1.0
    """An append overdue by this much makes new commands be refused."""
    stall_fail_s: float = 2.0
    """An append overdue by this much makes those who wait be told that the outcome is unknown."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A durable frame as readers see it; `events` holds one list for each command from `first_sequence` on."""

    first_sequence: int
    last_sequence: int
    time_ns: int
    frame_hash: bytes
    events: list[list[Event]]


@dataclass(slots=True)
class _OpenFrame:
    first_sequence: int
    time_ns: int
    commands: list[Command] = field(default_factory=list)
    events: list[list[Event]] = field(default_factory=list)


Submission = tuple[list[Command], "asyncio.Future[list[Result]]"]


class Sequencer:
    """Leads one shard. All methods belong to one event loop."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        *,
        shard: int,
        epoch: int,
        head_hash: bytes,
        digest: bytes,
        clock: Clock,
        on_commit: Callable[[Committed, Frame], None],
        limits: SequencerLimits | None = None,
        on_append: Callable[[float, int], None] | None = None,
        still_leading: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`still_leading` says whether the lease is surely ours, asking its store if need be; None: it always is."""
        self.engine = engine
        self._epoch = epoch
        self.limits = limits if limits is not None else SequencerLimits()
        self.committed_sequence: int = engine.state.sequence
        self.committed_hash = head_hash
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._journal = journal
        self._shard = shard
        self._hash = head_hash
        self._digest = digest
        self._clock = clock
        self._on_commit = on_commit
        self._on_append = on_append
        self._still_leading = still_leading
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[Submission] = deque()
        self._queued = 0
        self._open: _OpenFrame | None = None
        self._appending: asyncio.Task[None] | None = None
        self._waiters: deque[tuple[int, asyncio.Future[list[Result]], list[Result]]] = deque()
        self._sequence_waiters = SequenceWaiters()
        self._frame_end_looks: list[Callable[[int], None]] = []
        self._pump_scheduled = False
        self._stopped = False
        self._paused = False
        self._last_append_at = 0.0
        self._window_started = 0.0
        self._window_count = 0
        self._dense = False
        self._tick_at = -1
        self._tick_handle: asyncio.TimerHandle | None = None
        self._stall_handle: asyncio.TimerHandle | None = None
        # What a recovered core has due must not wait for somebody's command.
        self._schedule_tick()

    # --- what callers do ---

    @property
    def epoch(self) -> int:
        """The epoch under which this sequencer leads."""
        return self._epoch

    @property
    def digest(self) -> bytes:
        """The rolling digest of all events up to the last frame that was sealed."""
        return self._digest

    @property
    def queue_depth(self) -> int:
        """Commands that have arrived and are not durable yet."""
        return self._queued

    @property
    def max_queued_commands(self) -> int:
        """Beyond this many commands are refused."""
        return self.limits.max_queued_commands

    def submit(self, commands: list[Command]) -> asyncio.Future[list[Result]]:
        """Queue commands to be applied in order; the future has one result for each, once all are durable.

        Raises Overloaded, Stalled or Stopped at once. The future may fail with Stalled or Stopped: the outcome is then
        unknown, and only a repeat with the same ids tells.
        """
        if self._stopped:
            raise Stopped
        if self._queued + len(commands) > self.limits.max_queued_commands:
            raise Overloaded
        stalled = self._journal.stalled_since
        if stalled is not None and self._clock.monotonic() - stalled > self.limits.stall_refuse_s:
            raise Stalled
        future: asyncio.Future[list[Result]] = self._loop.create_future()
        self._arrived.append((commands, future))
        self._queued += len(commands)
        self._window_count += 1
        if not self._pump_scheduled and not self._paused:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)
        return future

    def barrier(self) -> asyncio.Future[list[Result]] | None:
        """What to await so that everything the core has applied is durable; None when it is."""
        sequence = self.engine.state.sequence
        if sequence <= self.committed_sequence:
            return None
        future: asyncio.Future[list[Result]] = self._loop.create_future()
        if self._stopped:
            future.set_exception(Stopped())
        else:
            self._waiters.append((sequence, future, []))
        return future

    async def reached(self, sequence: int) -> None:
        """Wait until `sequence` is durable here; the caller bounds the time. Raises Stopped."""
        if sequence <= self.committed_sequence:
            return
        if self._stopped:
            raise Stopped
        await self._sequence_waiters.wait(sequence)

    async def fresh(self) -> bool:
        """Whether this core is the newest: a leader that slept may have been deposed meanwhile."""
        return not self._stopped and (self._still_leading is None or await self._still_leading())

    def at_frame_end(self, look: Callable[[int], None]) -> None:
        """Call `look(sequence)` when the core stands at the end of a frame: now, if nothing is under way, else as the
        next frame is sealed, before it is durable. The look must not wait and must not fail.
        """
        if self._open is None and not self._arrived:
            look(self.engine.state.sequence)
        else:
            self._frame_end_looks.append(look)

    def pause(self) -> None:
        """Apply nothing that has not been applied: it stays queued until `take_unapplied`, for leadership is handed over."""
        self._paused = True
        if self._tick_handle is not None:
            self._tick_handle.cancel()
            self._tick_handle = None

    def resume(self) -> None:
        """Go on after a pause: leadership was not given away after all."""
        self._paused = False
        self._pump()

    def take_unapplied(self) -> list[Submission]:
        """What a pause has kept back, in order; none of it was applied."""
        taken = list(self._arrived)
        self._arrived.clear()
        self._queued -= sum(len(commands) for commands, _ in taken)
        return taken

    async def drain(self) -> None:
        """Wait until all that has arrived is durable. Raises Stalled or Stopped when that is not to be had."""
        while not self._stopped and (
            (self._arrived and not self._paused) or self.engine.state.sequence > self.committed_sequence
        ):
            barrier = self.barrier()
            if barrier is not None:
                await barrier
            else:
                await asyncio.sleep(0)

    def give_up(self, error: Exception) -> None:
        """See `Seat.give_up`."""
        self.stop(error)

    def stop(self, error: Exception | None = None) -> None:
        """Refuse everything from now on; what waits fails, its outcome unknown. An append under way is not cancelled,
        and no other follows it. `failure` ends: with the error, if one is given.
        """
        if self._stopped:
            return
        self._stopped = True
        self._open = None
        for handle in (self._tick_handle, self._stall_handle):
            if handle is not None:
                handle.cancel()
        self._fail_waiting(Stopped)
        self._sequence_waiters.fail(Stopped())
        if not self.failure.done():
            if error is None:
                self.failure.set_result(None)
            else:
                self.failure.set_exception(error)

    # --- applying ---

    def _pump(self) -> None:
        self._pump_scheduled = False
        if not self._stopped:
            self._apply_arrived(self.limits.max_frame_commands)
        if self._appending is None and self._open is not None:
            self._start_append()
        self._schedule_tick()

    def apply_now(self) -> None:
        """Apply what has been submitted without waiting for the loop's next turn, so that the core can be asked about
        it; its answers are durable no sooner than otherwise.
        """
        if not self._stopped:
            self._apply_arrived(self.limits.max_queued_commands)

    def _apply_arrived(self, room: int) -> None:
        """Apply what has arrived while the open frame has room; stops this leader if the core breaks."""
        while self._arrived and not self._paused and (self._open is None or len(self._open.commands) < room):
            submitted, future = self._arrived.popleft()
            try:
                results = self._apply(submitted)
            except Exception as error:  # noqa: BLE001 - the core's invariants break in any shape
                # The state is not to be used any more, and nothing of this frame may get out.
                self._queued -= len(submitted)
                fail(future, Stopped())
                self.stop(error)
                return
            self._release_later(self.engine.state.sequence, future, results, len(submitted))

    def _apply(self, submitted: list[Command]) -> list[Result]:
        """Apply one submission into the open frame; repeats and what ids forbid are answered from memory."""
        engine = self.engine
        frame = self._open
        results: list[Result] = []
        for command in submitted:
            known = engine.recall(command)
            if known is not None:
                results.append(known)
                continue
            if frame is None:
                frame = self._open = _OpenFrame(
                    engine.state.sequence + 1, max(engine.state.time_ns, self._clock.time_ns())
                )
            events = engine.apply(engine.state.sequence + 1, frame.time_ns, command)
            frame.commands.append(command)
            frame.events.append(events)
            results.append(engine.result)
        return results

    def _release_later(
        self, sequence: int, future: asyncio.Future[list[Result]], results: list[Result], count: int
    ) -> None:
        """Hand over the results once `sequence` is durable, a repeat's too: it may have seen what is not yet."""
        if sequence <= self.committed_sequence:
            self._queued -= count
            if not future.done():
                future.set_result(results)
        else:
            self._waiters.append((sequence, future, results))

    # --- committing ---

    def _start_append(self) -> None:
        now = self._clock.monotonic()
        if now - self._window_started > 0.1:
            self._dense = self._window_count > DENSE_ARRIVALS_PER_SECOND * min(now - self._window_started, 1.0)
            self._window_started = now
            self._window_count = 0
        if self._dense:
            early = FRAME_INTERVAL_S - (now - self._last_append_at)
            if early > 0:
                self._appending = self._loop.create_task(self._append_after(early))
                return
        self._appending = self._loop.create_task(self._append())

    async def _append_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._apply_arrived(self.limits.max_frame_commands)
        await self._append()

    async def _append(self) -> None:
        opened, self._open = self._open, None
        if opened is None:
            assert self._stopped, "an append has a frame, unless this leader was stopped meanwhile"
            return
        try:
            frame = self._seal(opened)
            started = self._last_append_at = self._clock.monotonic()
            self._watch_stall()
            await self._journal.append(frame)
            if self._on_append is not None:
                self._on_append(self._clock.monotonic() - started, len(opened.commands))
            self._committed(opened, frame)
        except Exception as error:  # noqa: BLE001 - whatever it was: who leads on would answer without a journal
            self.stop(error)

    def _seal(self, opened: _OpenFrame) -> Frame:
        events = codec.encode_events(opened.events)
        self._digest = codec.next_digest(self._digest, events)
        frame = Frame.seal(
            shard=self._shard,
            first_sequence=opened.first_sequence,
            last_sequence=opened.first_sequence + len(opened.commands) - 1,
            epoch=self._epoch,
            time_ns=opened.time_ns,
            commands=codec.encode_commands(opened.commands),
            events=events,
            digest=self._digest,
            prev_hash=self._hash,
            format_version=codec.FORMAT_VERSION,
            rules_version=self.engine.state.rules_version,
        )
        self._hash = frame.hash
        if self._frame_end_looks:
            looks, self._frame_end_looks = self._frame_end_looks, []
            for look in looks:
                look(frame.last_sequence)
        return frame

    def _committed(self, opened: _OpenFrame, frame: Frame) -> None:
        self._appending = None
        if self._stopped:
            return
        self.committed_sequence = frame.last_sequence
        self.committed_hash = frame.hash
        waiters = self._waiters
        while waiters and waiters[0][0] <= frame.last_sequence:
            _, future, results = waiters.popleft()
            self._queued -= len(results)
            if not future.done():
                future.set_result(results)
        committed = Committed(frame.first_sequence, frame.last_sequence, frame.time_ns, frame.hash, opened.events)
        self._on_commit(committed, frame)
        self._sequence_waiters.release(frame.last_sequence)
        if not self._pump_scheduled and (self._arrived or self._open is not None):
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    # --- when the journal is away ---

    def _watch_stall(self) -> None:
        if self._stall_handle is None:
            self._stall_handle = self._loop.call_later(self.limits.stall_fail_s / 2, self._check_stall)

    def _check_stall(self) -> None:
        self._stall_handle = None
        stalled = self._journal.stalled_since
        if stalled is not None and self._clock.monotonic() - stalled > self.limits.stall_fail_s:
            self._fail_waiting(Stalled)
        if not self._stopped and (self._appending is not None or self._open is not None):
            self._watch_stall()

    def _fail_waiting(self, error: type[Exception]) -> None:
        """Tell all who wait that the outcome is unknown. What has been applied stays in the frames that wait."""
        while self._waiters:
            _, future, results = self._waiters.popleft()
            self._queued -= len(results)
            fail(future, error())
        while self._arrived:
            commands, future = self._arrived.popleft()
            self._queued -= len(commands)
            fail(future, error())

    # --- time ---

    def _schedule_tick(self) -> None:
        """Let time in when something falls due and no command brings it."""
        if self._stopped or self._paused:
            return
        due = self.engine.due_ns()
        if due == self._tick_at and self._tick_handle is not None:
            return
        if self._tick_handle is not None:
            self._tick_handle.cancel()
            self._tick_handle = None
        self._tick_at = due
        if due >= 0:
            delay = max(0.0, (due - self._clock.time_ns()) / 1e9)
            # Far timers are looked at again from time to time: clocks jump.
            self._tick_handle = self._loop.call_later(min(delay + 0.001, 1.0), self._tick)

    def _tick(self) -> None:
        self._tick_handle = None
        due = self.engine.due_ns()
        if self._stopped or due < 0:
            return
        self._tick_at = -1
        if due > self._clock.time_ns() or self._arrived:
            self._schedule_tick()
        elif self._open is not None and self._open.time_ns < due:
            # The frame that waits was begun before: only the next one carries a time that is late enough.
            self._tick_handle = self._loop.call_later(TICK_AGAIN_S, self._tick)
        else:
            try:
                self.submit([cmd.tick()])
            except (Overloaded, Stalled):
                self._tick_handle = self._loop.call_later(TICK_AGAIN_S, self._tick)

"""The core of an instance that follows: durable frames in, in order and proved; commands of its clients to the leader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from exchange.trading import recovery
from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import Event, Result
from exchange.trading.journal.contract import Diverged, Frame, Journal
from exchange.trading.replication.messages import StateReport, StateRequest
from exchange.trading.replication.uplink import Uplink
from exchange.trading.seat import SequenceWaiters, Stopped, fail
from exchange.trading.sequencer import Committed

MAX_PUSHED_FRAMES: Final = 4_096
"""Pushed frames that may wait for those before them; beyond it all are dropped and read from the journal."""


class Follower:
    """A `Seat` whose core is only ever as new as the journal: nothing here waits to become durable.

    Frames come from the leader's link or from the journal, whichever has them first; each is proved before it is
    applied, and what comes out is compared with the digest that it carries.
    """

    def __init__(
        self,
        recovered: recovery.Recovered,
        journal: Journal,
        uplink: Uplink,
        *,
        on_frame: Callable[[Committed], None],
    ) -> None:
        self.engine: Engine = recovered.engine
        self.committed_sequence: int = recovered.engine.state.sequence
        self.committed_hash = recovered.frame_hash
        self.digest = recovered.digest
        self.uplink = uplink
        self._journal = journal
        self._on_frame = on_frame
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters = SequenceWaiters()
        self._state_requests: list[StateRequest] = []
        self._pushed: list[Frame] = []
        self.gap = asyncio.Event()
        """Set where frames are missing here that only the journal has."""
        self._catching_up = asyncio.Lock()
        self._stopped = False

    # --- the seat ---

    @property
    def epoch(self) -> int:
        """The leader's epoch, 0 while none is linked."""
        return self.uplink.epoch

    @property
    def queue_depth(self) -> int:
        """Commands that wait here, and at the leader as it last said."""
        return self.uplink.queue_depth

    @property
    def max_queued_commands(self) -> int:
        """Beyond this many commands are refused here."""
        return self.uplink.limits.max_queued_commands

    def submit(self, commands: list[Command]) -> asyncio.Future[list[Result]]:
        """Forward commands to the leader; see `Seat.submit`."""
        if self._stopped:
            raise Stopped
        return self.uplink.submit(commands)

    def apply_now(self) -> None:
        """Nothing is applied here before it is durable."""

    def barrier(self) -> None:
        """Everything that this core has applied is durable."""
        return

    async def reached(self, sequence: int) -> None:
        """Wait until `sequence` is applied here. Raises Stopped."""
        if sequence <= self.committed_sequence:
            return
        if self._stopped:
            raise Stopped
        await self._waiters.wait(sequence)

    async def fresh(self) -> bool:
        """Ask the leader where it stands, and wait until this core stands there; see `Seat.fresh`."""
        head = await self.uplink.leader_head()
        if head is None:
            return False
        await self.reached(head)
        return True

    def give_up(self, error: Exception) -> None:
        """See `Seat.give_up`: following ends with the error."""
        fail(self.failure, error)

    # --- following ---

    def take(self, frames: list[Frame]) -> None:
        """Frames that the leader pushes. Those that do not follow wait for what lies between. Raises JournalError."""
        self._pushed.extend(frames)
        # Though the journal is being read too: its store may not answer for long, while the link does.
        self._apply_pushed()
        if self._pushed:
            self.gap.set()
        if len(self._pushed) > MAX_PUSHED_FRAMES:
            self._pushed.clear()

    async def catch_up(self) -> None:
        """Read what the journal holds beyond this core. Raises JournalError, Diverged above all."""
        async with self._catching_up:
            async for frame in self._journal.read(self.committed_sequence + 1):
                if frame.last_sequence > self.committed_sequence:
                    self.apply(frame)
            self._apply_pushed()

    async def check_place(self) -> None:
        """Raise Diverged unless the journal holds the frame at which this core stands."""
        # Both now: while the journal is read, the core goes on.
        sequence, frame_hash = self.committed_sequence, self.committed_hash
        if sequence == 0:
            return
        async for frame in self._journal.read(sequence, to_sequence=sequence):
            if (frame.last_sequence, frame.hash) == (sequence, frame_hash):
                return
        raise Diverged(f"the journal does not hold frame {frame_hash.hex()[:16]} that ends at {sequence}")

    async def check_head(self) -> None:
        """Raise Diverged unless the journal ends where this core stands: for taking over from here."""
        sequence, frame_hash = await self._journal.head()
        if (sequence, frame_hash) != (self.committed_sequence, self.committed_hash):
            raise Diverged(
                f"the core stands at {self.committed_sequence} after frame {self.committed_hash.hex()[:16]}, "
                f"the journal ends at {sequence} with {frame_hash.hex()[:16]}"
            )

    def apply(self, frame: Frame) -> None:
        """Prove a frame, apply it and let it out. Raises JournalCorrupt for a wrong frame or core, Diverged for one that
        follows another than ours.
        """
        if frame.first_sequence != self.committed_sequence + 1 or frame.prev_hash != self.committed_hash:
            raise Diverged(
                f"the frame {frame.first_sequence}..{frame.last_sequence} follows {frame.prev_hash.hex()[:16]}, "
                f"the core stands at {self.committed_sequence} after {self.committed_hash.hex()[:16]}"
            )
        events: list[list[Event]]
        if self.failure.done():
            # A core that broke in the middle of a frame is not to be used again: what is wrong is what was wrong first.
            self.failure.result()
        try:
            self.digest, events = recovery.replay_frame_events(self.engine, frame, self.digest)
        except Exception as error:
            self.give_up(error)
            raise
        self.committed_sequence, self.committed_hash = frame.last_sequence, frame.hash
        if self._state_requests:
            self._report_states()
        self._on_frame(Committed(frame.first_sequence, frame.last_sequence, frame.time_ns, frame.hash, events))
        self._waiters.release(frame.last_sequence)
        self.uplink.applied(frame.last_sequence)

    def _apply_pushed(self) -> None:
        pushed, self._pushed = self._pushed, []
        for position, frame in enumerate(pushed):
            if frame.first_sequence > self.committed_sequence + 1:
                self._pushed = pushed[position:]
                return
            if frame.last_sequence > self.committed_sequence:
                frame.verify()
                self.apply(frame)
            elif frame.last_sequence == self.committed_sequence and frame.hash != self.committed_hash:
                raise Diverged(f"the leader's frame that ends at {frame.last_sequence} is another than ours")

    # --- comparing ---

    def take_state_request(self, request: StateRequest) -> None:
        """Report the state at the end of the frame that ends at a sequence: now, or when it is reached."""
        self._state_requests.append(request)
        self._report_states()

    def _report_states(self) -> None:
        due = [request for request in self._state_requests if request.sequence <= self.committed_sequence]
        if not due:
            return
        self._state_requests = [one for one in self._state_requests if one.sequence > self.committed_sequence]
        for request in due:
            if request.sequence < self.committed_sequence:
                self.uplink.report(StateReport(request.id, "", ""))
                continue
            known = request.symbol in self.engine.state.market_index
            book_hash = self.engine.book_hash(request.symbol) if known else ""
            self.uplink.report(StateReport(request.id, self.engine.state_hash(), book_hash))

    def stop(self) -> None:
        """Out of use: another seat takes over, or the instance stops. What waits for sequences fails."""
        self._stopped = True
        self._waiters.fail(Stopped())

"""The leader's ends of its followers' links: their commands in, durable frames and results out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from exchange.trading import codec
from exchange.trading.core.commands import Command
from exchange.trading.core.events import Result
from exchange.trading.journal.contract import Frame
from exchange.trading.replication.messages import (
    FOLLOWER,
    LEADER,
    Attendance,
    Comparison,
    FollowerBatch,
    FollowerHello,
    LeaderBatch,
    LeaderHello,
    LinkLost,
    Outcome,
    ReplicaInfo,
    StateReport,
    StateRequest,
    Status,
    Submission,
)
from exchange.trading.replication.submissions import encode_results, opened_by, sessions_of
from exchange.trading.seat import Overloaded, Stalled, Stopped
from exchange.trading.sequencer import Sequencer

_LOG: structlog.typing.FilteringBoundLogger = structlog.get_logger("downlinks")
_EMPTY: Final = LeaderBatch()


@dataclass(frozen=True, slots=True)
class DownlinkLimits:
    """Bounds of the leader's side."""

    max_links: int = 32
    kept_frames: int = 4_096
    """Newest frames kept for followers that link now; older ones they read from the journal."""
    kept_bytes: int = 32 * 1024 * 1024
    max_outbox_bytes: int = 64 * 1024 * 1024
    """A follower that takes its messages too slowly is cut off here; it reads on from the journal."""
    max_message_bytes: int = 2 * 1024 * 1024
    """Frames in one message; a larger frame is left out, and the follower reads it from the journal."""
    replicas_every_s: float = 1.0
    """How often followers are told who is there."""


class Downlink:
    """One follower's link. The server's task feeds `take` and sends what `next` gives."""

    def __init__(self, links: Downlinks, number: int, hello: FollowerHello) -> None:
        self.number = number
        self.replica = hello.replica
        self.sequence = hello.from_sequence - 1
        self.attended: set[tuple[str, str]] = set()
        self._refused: set[tuple[str, str]] = set()
        self._links = links
        self._outbox = LeaderBatch()
        self._outbox_bytes = 0
        self._something = asyncio.Event()
        self._closed = False
        self._attend(list(hello.attendances))

    # --- from the follower ---

    def take(self, batch: FollowerBatch) -> None:
        """Read a message of the follower, in the order of its fields."""
        self.sequence = batch.sequence
        for submission in batch.submissions:
            self._submit(submission)
        self._attend(batch.attendances)
        for report in batch.reports:
            self._links.reported(self, report)
        if batch.compare:
            self._links.compare_for(self, batch.compare, batch.compare_symbol)
        if batch.ping:
            self._outbox.pong = batch.ping
            self._wake()

    def _submit(self, submission: Submission) -> None:
        if self._closed or not self._links.takes_commands:
            self._answer(Outcome(submission.id, Status.NOT_LEADING))
            return
        commands = codec.decode_commands(submission.commands)
        try:
            self._refused -= opened_by(commands)
            if not self._refused.isdisjoint(sessions_of(commands)):
                raise Overloaded
            future = self._links.sequencer.submit(commands)
        except Overloaded:
            self._refuse(submission, commands, Status.OVERLOADED)
        except Stalled:
            self._refuse(submission, commands, Status.STALLED)
        except Stopped:
            self._answer(Outcome(submission.id, Status.NOT_LEADING))
        else:
            future.add_done_callback(lambda done: self._settled(submission.id, commands, done))

    def _refuse(self, submission: Submission, commands: list[Command], status: Status) -> None:
        """Refuse a submission, and with it what its sessions have sent after it and may be under way already, until they
        attach again: applied without it, that would forbid the numbers before it for ever.
        """
        self._refused |= sessions_of(commands)
        self._answer(Outcome(submission.id, status))

    def _settled(self, number: int, commands: list[Command], future: asyncio.Future[list[Result]]) -> None:
        """A submission is durable, or its outcome unknown. One of a deposed leader gets no answer: the link ends."""
        if future.cancelled() or self._closed:
            return
        error = future.exception()
        if error is None:
            results = encode_results(future.result(), commands)
            self._answer(Outcome(number, Status.APPLIED, results, self._links.sequencer.committed_sequence))
        elif isinstance(error, Stalled):
            self._answer(Outcome(number, Status.UNKNOWN))

    def _attend(self, attendances: list[Attendance]) -> None:
        for attendance in attendances:
            key = (attendance.account, attendance.session)
            if attendance.attended:
                self.attended.add(key)
            else:
                self.attended.discard(key)
            if attendance.attended or not self._links.is_attended(key):
                self._links.on_attendance(attendance)

    # --- to the follower ---

    async def next(self) -> LeaderBatch:
        """What has gathered for the follower, once there is something. Raises LinkLost once the link is closed."""
        await self._something.wait()
        self._something.clear()
        if self._closed and self._outbox == _EMPTY:
            raise LinkLost("this instance leads no more")
        batch, self._outbox = self._outbox, LeaderBatch()
        if self._outbox_bytes > self._links.limits.max_message_bytes:
            self._keep_for_later(batch)
        else:
            self._outbox_bytes = 0
        if batch.pong and not self._links.surely_leads():
            # Another may lead already: where the journal stands is not known here.
            batch.pong = 0
        batch.head_sequence = self._links.sequencer.committed_sequence
        batch.queue_depth = self._links.sequencer.queue_depth
        if self._closed:
            self._something.set()
        return batch

    def _keep_for_later(self, batch: LeaderBatch) -> None:
        """Cut a message that is too large: what comes after its last frame waits for the next one."""
        later, size, taken = self._outbox, 0, 0
        for frame in batch.frames:
            size += frame_bytes(frame)
            if taken and size > self._links.limits.max_message_bytes:
                break
            taken += 1
        later.frames, batch.frames = batch.frames[taken:], batch.frames[:taken]
        later.outcomes, later.comparisons, later.pong = batch.outcomes, batch.comparisons, batch.pong
        later.hand_over = batch.hand_over
        batch.outcomes, batch.comparisons, batch.pong, batch.hand_over = [], [], 0, False
        self._outbox_bytes = sum(map(frame_bytes, later.frames))
        self._wake()

    def greet(self, hello: LeaderHello, frames: list[Frame]) -> None:
        """The first message: who leads, and the newest frames that the follower lacks."""
        self._outbox.hello = hello
        for frame in frames:
            self.push(frame)
        self._wake()

    def push(self, frame: Frame) -> None:
        """Send a durable frame."""
        size = frame_bytes(frame)
        if size <= self._links.limits.max_message_bytes:
            self._outbox.frames.append(frame)
            self._outbox_bytes += size
        if self._outbox_bytes > self._links.limits.max_outbox_bytes:
            _LOG.warning("a follower is too slow for its link", follower=self.replica.instance)
            self._outbox = LeaderBatch()
            self.close()
        self._wake()

    def ask_state(self, request: StateRequest) -> None:
        """Have the follower report its state."""
        self._outbox.state_requests.append(request)
        self._wake()

    def tell_replicas(self, replicas: list[ReplicaInfo]) -> None:
        """Say who is there."""
        self._outbox.replicas = replicas
        self._wake()

    def tell_comparison(self, comparison: Comparison) -> None:
        """Answer a comparison that the follower asked for."""
        self._outbox.comparisons.append(comparison)
        self._wake()

    def hand_over(self) -> None:
        """Let the follower take the lease, which is free now."""
        self._outbox.hand_over = True
        self._wake()

    def _answer(self, outcome: Outcome) -> None:
        self._outbox.outcomes.append(outcome)
        self._wake()

    def _wake(self) -> None:
        self._something.set()

    def close(self) -> None:
        """End the link once what has gathered is sent."""
        self._closed = True
        self._wake()


class Downlinks:
    """All links of a leader; one a leadership. All methods belong to one event loop."""

    def __init__(
        self,
        me: ReplicaInfo,
        sequencer: Sequencer,
        *,
        on_attendance: Callable[[Attendance], None],
        on_link_lost: Callable[[set[tuple[str, str]]], None],
        surely_leads: Callable[[], bool] = lambda: True,
        limits: DownlinkLimits | None = None,
    ) -> None:
        """`on_attendance` hears of sessions at followers; `on_link_lost` which were connected to one that is gone;
        `surely_leads` says whether nobody else can have taken the lease.
        """
        self.sequencer = sequencer
        self.limits = limits if limits is not None else DownlinkLimits()
        self.takes_commands = True
        """False while leadership is handed over: followers keep what they have for the next leader."""
        self.on_attendance = on_attendance
        self.on_report: Callable[[Downlink, StateReport], None] = lambda _link, _report: None
        self.on_compare: Callable[[Downlink, int, str], None] = lambda _link, _number, _symbol: None
        self._me = me
        self._on_link_lost = on_link_lost
        self.surely_leads = surely_leads
        self._links: dict[int, Downlink] = {}
        self._numbers = 0
        self._recent: deque[Frame] = deque()
        self._recent_bytes = 0
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._telling: asyncio.TimerHandle | None = None

    @property
    def links(self) -> list[Downlink]:
        """The links that are open."""
        return list(self._links.values())

    def replicas(self) -> list[ReplicaInfo]:
        """All instances, the leader first."""
        me = self._me.at(LEADER, self.sequencer.committed_sequence)
        return [me, *(link.replica.at(FOLLOWER, link.sequence) for link in self._links.values())]

    def frame(self, frame: Frame) -> None:
        """A frame is durable: send it to all."""
        recent = self._recent
        recent.append(frame)
        self._recent_bytes += frame_bytes(frame)
        while len(recent) > self.limits.kept_frames or self._recent_bytes > self.limits.kept_bytes:
            oldest = recent.popleft()
            self._recent_bytes -= frame_bytes(oldest)
        for link in self._links.values():
            link.push(frame)

    def open(self, hello: FollowerHello) -> Downlink:
        """Take a follower's link. Raises LinkLost where there is no leader of that epoch, or no room."""
        if not self._open or hello.epoch != self.sequencer.epoch:
            raise LinkLost(f"epoch {hello.epoch} does not lead here")
        if len(self._links) >= self.limits.max_links:
            raise LinkLost(f"{self.limits.max_links} followers are linked already")
        self._numbers += 1
        link = Downlink(self, self._numbers, hello)
        frames = [frame for frame in self._recent if frame.last_sequence >= hello.from_sequence]
        first = frames[0].first_sequence if frames else self.sequencer.committed_sequence + 1
        link.greet(LeaderHello(self._me.instance, self.sequencer.epoch, first), frames)
        self._links[link.number] = link
        for older in [one for one in self._links.values() if one.replica.instance == link.replica.instance]:
            if older is not link:
                # Its connection died and nobody has heard of it yet: an instance has one link.
                older.close()
                self.gone(older)
        _LOG.info("a follower has linked", follower=hello.replica.instance, from_sequence=hello.from_sequence)
        self._tell()
        return link

    def gone(self, link: Downlink) -> None:
        """A link has ended."""
        if self._links.pop(link.number, None) is None:
            return
        _LOG.info("a follower's link has ended", follower=link.replica.instance, sequence=link.sequence)
        if self._open:
            self._on_link_lost({key for key in link.attended if not self.is_attended(key)})

    def is_attended(self, key: tuple[str, str]) -> bool:
        """Whether any follower has a connection to this session."""
        return any(key in link.attended for link in self._links.values())

    def reported(self, link: Downlink, report: StateReport) -> None:
        """A follower has reported its state."""
        self.on_report(link, report)

    def compare_for(self, link: Downlink, number: int, symbol: str) -> None:
        """A follower asks for a comparison."""
        self.on_compare(link, number, symbol)

    def hand_over(self) -> str:
        """Let the follower that is furthest on take the lease; answers its name, "" for none. All links end."""
        successor = max(self._links.values(), key=lambda link: link.sequence, default=None)
        if successor is not None:
            successor.hand_over()
        self.close()
        return successor.replica.instance if successor is not None else ""

    def begin_again(self) -> None:
        """Leadership is kept after all: followers link anew, and what they were told to keep comes again, in order."""
        self.takes_commands = True
        for link in self._links.values():
            link.close()

    def close(self) -> None:
        """End all links, and take no new ones."""
        self._open = False
        if self._telling is not None:
            self._telling.cancel()
        for link in self._links.values():
            link.close()

    def _tell(self) -> None:
        """Tell all followers who is there, now and from time to time."""
        if self._telling is not None:
            self._telling.cancel()
        replicas = self.replicas()
        for link in self._links.values():
            link.tell_replicas(replicas)
        self._telling = self._loop.call_later(self.limits.replicas_every_s, self._tell) if self._links else None


def frame_bytes(frame: Frame) -> int:
    """What a frame takes in memory and in a message, but for its header."""
    return len(frame.commands) + len(frame.events)

"""What goes over the link between a follower and the leader; `service/replica_link.py` gives it its form on the wire.

Each message carries all that has gathered since the one before it, in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final, Protocol

from exchange.trading.journal.contract import Frame

LEADER: Final = "LEADER"
FOLLOWER: Final = "FOLLOWER"


class LinkLost(Exception):
    """The connection between two instances is gone, or the other side does not want it."""


class Refused(LinkLost):
    """Nobody listens at the leader's address: its process is gone."""


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """An instance as the others know it; `ops_address` is host:port of its gRPC server for operators."""

    instance: str
    role: str
    ops_address: str
    metrics_url: str
    version: str
    core_mode: str
    supported_rules_version: int
    sequence: int = 0

    def at(self, role: str, sequence: int) -> ReplicaInfo:
        """The same instance in a role and at a sequence."""
        return replace(self, role=role, sequence=sequence)


@dataclass(frozen=True, slots=True)
class Attendance:
    """A session's connection came to an instance, or went."""

    account: str
    session: str
    attended: bool


@dataclass(frozen=True, slots=True)
class Submission:
    """Commands to be applied in order, as the codec writes them; `id` counts up within a link."""

    id: int
    commands: bytes


class Status(IntEnum):
    """How a submission ended; the numbers are those of the contract."""

    APPLIED = 1
    OVERLOADED = 2
    STALLED = 3
    NOT_LEADING = 4
    UNKNOWN = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a submission; `results` hold once the follower has applied `sequence`."""

    id: int
    status: Status
    results: bytes = b""
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class StateRequest:
    """Report the state at the end of the frame that ends at `sequence`."""

    id: int
    sequence: int
    symbol: str


@dataclass(frozen=True, slots=True)
class StateReport:
    """The state at the sequence of a request; empty: the follower was past it."""

    id: int
    state_hash: str
    book_hash: str


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One instance at the sequence of a comparison; empty hashes: it did not answer in time."""

    replica: ReplicaInfo
    state_hash: str
    book_hash: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The states of all instances at one sequence."""

    id: int
    sequence: int
    states: tuple[ReplicaState, ...]


@dataclass(frozen=True, slots=True)
class FollowerHello:
    """Who follows; it needs the frames from `from_sequence` on, and has the one with `frame_hash` before it."""

    replica: ReplicaInfo
    epoch: int
    from_sequence: int
    frame_hash: bytes
    attendances: tuple[Attendance, ...]


@dataclass(frozen=True, slots=True)
class LeaderHello:
    """What the follower gets: frames before `first_sequence` are its own to read from the journal."""

    instance: str
    epoch: int
    first_sequence: int


@dataclass(slots=True)
class FollowerBatch:
    """A message to the leader. `ping` and `compare` are 0 where there is none."""

    hello: FollowerHello | None = None
    submissions: list[Submission] = field(default_factory=list)
    attendances: list[Attendance] = field(default_factory=list)
    ping: int = 0
    sequence: int = 0
    reports: list[StateReport] = field(default_factory=list)
    compare: int = 0
    compare_symbol: str = ""


@dataclass(slots=True)
class LeaderBatch:
    """A message to a follower, to be read in the order of the fields."""

    hello: LeaderHello | None = None
    state_requests: list[StateRequest] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    pong: int = 0
    head_sequence: int = 0
    queue_depth: int = 0
    replicas: list[ReplicaInfo] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    hand_over: bool = False


class Connection(Protocol):
    """A follower's end of a link. Every method raises LinkLost once it is gone."""

    async def send(self, batch: FollowerBatch) -> None:
        """Send a message, waiting while the leader is slow to take it."""
        ...

    async def receive(self) -> LeaderBatch:
        """The next message."""
        ...

    def close(self) -> None:
        """Let go of it; does nothing the second time."""
        ...


class Transport(Protocol):
    """How a follower reaches the leader."""

    async def connect(self, address: str, epoch: int) -> Connection:
        """Open a link to the leader of this epoch. Raises Refused where nobody listens, else LinkLost."""
        ...

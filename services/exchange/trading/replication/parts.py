"""What an instance's life is made of: everything that differs between production, tests and the simulation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from exchange.runtime.clock import Clock
from exchange.trading.journal.contract import Journal, Lease
from exchange.trading.replication.downlinks import DownlinkLimits
from exchange.trading.replication.messages import Attendance, ReplicaInfo, Transport
from exchange.trading.replication.uplink import UplinkLimits
from exchange.trading.seat import Seat
from exchange.trading.sequencer import Committed, Sequencer, SequencerLimits


@dataclass(frozen=True, slots=True)
class ReplicaTimes:
    """How often an instance looks, in seconds."""

    lease_renew_s: float = 0.5
    lease_look_s: float = 0.2
    """Between two looks at the lease of another, a quarter of it more or less."""
    stand_back_s: float = 1.0
    """An instance that has handed leadership over leaves the lease to others for so long."""
    journal_poll_linked_s: float = 1.0
    """A follower looks into the journal this often though the leader pushes its frames."""
    journal_poll_alone_s: float = 0.05
    """And this often while no leader is linked."""
    link_retry_s: float = 0.05
    refusals_of_the_dead: int = 2
    """A leader at whose address nobody listens, this many times in a row, is dead: its lease is not waited for."""
    retry_s: float = 0.2
    """After the journal's store was away."""


class Watcher(Protocol):
    """What an instance tells those around it."""

    async def joined(self, seat: Seat, snapshot_sequence: int) -> None:
        """A core was made from the journal, from the snapshot at a sequence (0: none): what was copied from the one before
        is void. No frame comes meanwhile.
        """
        ...

    def seated(self, seat: Seat | None) -> None:
        """Services work with this seat from now on; None: with none."""
        ...

    def frame(self, committed: Committed) -> None:
        """A frame is durable, and the core in use has applied it."""
        ...

    async def leads(self, sequencer: Sequencer) -> bool:
        """This instance leads: see that what must be in the journal before clients are served is there. False where
        that was not to be had.
        """
        ...

    async def while_leading(self, sequencer: Sequencer) -> None:
        """Runs while this instance leads, and is cancelled when that ends."""
        ...

    async def serving(self, ready: bool) -> None:  # noqa: FBT001 - it is the state
        """Whether clients may be served."""
        ...

    def attended(self) -> Iterable[Attendance]:
        """Sessions that are connected here."""
        ...

    def attendance(self, attendance: Attendance) -> None:
        """Leading: a session's connection came to a follower, or went there."""
        ...

    def link_lost(self, sessions: set[tuple[str, str]]) -> None:
        """Leading: a follower is gone, to which these sessions were connected."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """`address` is where this instance takes links while it leads; `on_append` gets seconds and commands of each
    append.
    """

    me: ReplicaInfo
    address: str
    shard: int
    journal: Journal
    lease: Lease
    transport: Transport
    clock: Clock
    watcher: Watcher
    on_append: Callable[[float, int], None] | None = None
    times: ReplicaTimes = field(default_factory=ReplicaTimes)
    sequencer_limits: SequencerLimits = field(default_factory=SequencerLimits)
    uplink_limits: UplinkLimits = field(default_factory=UplinkLimits)
    downlink_limits: DownlinkLimits = field(default_factory=DownlinkLimits)
    # Spreads looks in time; need not be unpredictable.
    rng: random.Random = field(default_factory=random.Random)

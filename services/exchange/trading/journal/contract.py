"""What the sequencer, replicas and tools may ask of a journal and of a leader's lease.

Two implementations keep this contract, and one suite holds both to it: PostgreSQL for production,
memory for `--memory`, tests and the simulation.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from exchange.runtime.config import Secret
from exchange.trading.journal.errors import (
    BelowFloor,
    Diverged,
    Fenced,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
)
from exchange.trading.journal.frame import GENESIS_HASH, Frame

__all__ = [
    "GENESIS_HASH",
    "BelowFloor",
    "Diverged",
    "Fenced",
    "Frame",
    "Journal",
    "JournalCorrupt",
    "JournalError",
    "JournalUnavailable",
    "Lease",
    "LeaseView",
    "StoredSnapshot",
]


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """The engine's state after `sequence`, which must be the end of a frame.

    `state` is opaque and compressed by the caller; `state_hash` is the engine's full hash of it;
    `digest` and `frame_hash` are those of the frame that ends at `sequence`; `time_ns` its engine time.
    """

    shard: int
    sequence: int
    time_ns: int
    state: bytes
    state_hash: str
    digest: bytes
    frame_hash: bytes
    format_version: int
    rules_version: int


class Journal(Protocol):
    """The durable, ordered, hash-chained record of one shard's commands and events."""

    @property
    def shard(self) -> int:
        """The number of the shard."""
        ...

    @property
    def dsn(self) -> Secret | None:
        """By what another process opens this journal; None where it lives in this process only."""
        ...

    @property
    def incarnation(self) -> str:
        """Name of this history; a point-in-time restore starts a new one (DESIGN section 3, rule 11)."""
        ...

    @property
    def stalled_since(self) -> float | None:
        """`time.monotonic()` at which an append now overdue began, None while appends complete in time.

        The sequencer refuses new work while this is set, since what it accepts could not be acknowledged.
        """
        ...

    async def append(self, frame: Frame) -> None:
        """Store the frame; returns only when it is durable.

        Appends are one at a time and in order. A cancelled caller does not cancel the append. While
        the store is away this waits, for as long as it takes. Raises Fenced when the frame's epoch is
        no longer the current one (whether the frame landed is then unknown), JournalUnavailable when
        the journal was closed meanwhile (likewise unknown), JournalError when the frame does not
        follow the head.
        """
        ...

    async def head(self) -> tuple[int, bytes]:
        """Return (last durable sequence, hash of the frame that ends there); (0, GENESIS_HASH) when empty."""
        ...

    def read(self, from_sequence: int, *, to_sequence: int | None = None) -> AsyncIterator[Frame]:
        """Yield the frame that contains `from_sequence`, then each next one, up to the head as it is found.

        With `to_sequence` the frame that contains it is the last. Beyond the head nothing is yielded.
        Each frame is verified: its hash, its place in the chain, no hole; JournalCorrupt otherwise,
        BelowFloor when `from_sequence` has been archived, ValueError when it is not at least 1.
        """
        ...

    async def floor(self) -> int:
        """Return the oldest sequence that is still retained; 1 until something has been archived."""
        ...

    async def save_snapshot(self, snapshot: StoredSnapshot) -> None:
        """Store a snapshot durably; saving the same one again does nothing.

        JournalCorrupt when another state is already stored for that sequence or the frame that ends
        there has another hash; JournalError when no frame ends there.
        """
        ...

    async def latest_snapshot(self, at_or_before: int | None = None) -> StoredSnapshot | None:
        """Return the newest snapshot, of those at or before the given sequence if there is one given.

        JournalCorrupt when its bytes are damaged or the journal holds another frame at its sequence.
        """
        ...

    async def snapshot_sequences(self) -> list[int]:
        """Return the sequences of all stored snapshots, the oldest first."""
        ...

    async def close(self) -> None:
        """Release everything; an append that still waits for the store raises JournalUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class LeaseView:
    """Who holds the lease, as its store says: `holder` None after a release, `address` where the holder takes links,
    `valid` whether the time is not up. `epoch` 0: nobody has ever led.
    """

    holder: str | None
    address: str
    epoch: int
    valid: bool


class Lease(Protocol):
    """The right to lead one shard, held for a limited time and fenced by a growing epoch."""

    @property
    def held_until(self) -> float:
        """`time.monotonic()` until which nobody else can have acquired it, unless this process was taken for dead; 0.0
        while it is not held.
        """
        ...

    async def acquire(self, holder: str, address: str = "", *, deposing: int = 0) -> int | None:
        """Return a new fencing epoch, or None while another holder's lease is valid.

        The same holder name takes over at once, and so does anybody from the holder of the epoch `deposing`: for when
        that one is known to be dead. The epoch is durable, and no append under an older one can land, when this
        returns. JournalUnavailable: unknown, ask again.
        """
        ...

    async def look(self) -> LeaseView:
        """Return who holds it now. JournalUnavailable: the store did not answer in time."""
        ...

    async def renew(self) -> bool:
        """Extend the lease; False when it is lost. JournalUnavailable: the store did not answer in time."""
        ...

    async def release(self) -> None:
        """Give the lease up so that another holder may acquire at once; does nothing when not held."""
        ...

    async def close(self) -> None:
        """Release the connection; a lease still held runs out by itself."""
        ...

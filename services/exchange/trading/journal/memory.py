"""A journal and a lease in memory: `--memory` mode, tests and the simulation.

The store outlives journals and leases, as a database outlives processes: replicas of one simulation
share a `MemoryStore`, each with a `MemoryJournal` and a `MemoryLease` of its own. One shard a store.
"""

import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from uuid import uuid4

from exchange.runtime.config import Secret
from exchange.trading.journal.checks import (
    check_head,
    check_next,
    check_range,
    check_same_state,
    check_snapshot_frame,
)
from exchange.trading.journal.contract import LeaseView, StoredSnapshot
from exchange.trading.journal.errors import Fenced, JournalError, JournalUnavailable
from exchange.trading.journal.frame import GENESIS_HASH, Frame

DEFAULT_LEASE_SECONDS = 2.0


@dataclass(slots=True)
class MemoryStore:
    """What a database would hold for one shard.

    `keep_frames` bounds memory: beyond it the oldest frames that a snapshot already covers are
    dropped and the floor rises. None keeps them all. Without a snapshot nothing is dropped, because
    the state could not be rebuilt.
    """

    shard: int = 0
    keep_frames: int | None = None
    incarnation: str = field(default_factory=lambda: str(uuid4()))
    epoch: int = 0
    holder: str | None = None
    address: str = ""
    expires_at: float = 0.0
    frames: list[Frame] = field(default_factory=list)
    snapshots: dict[int, StoredSnapshot] = field(default_factory=dict)
    floor_sequence: int = 1
    floor_prev_hash: bytes = GENESIS_HASH

    def head(self) -> tuple[int, bytes]:
        """Return (last sequence, its frame hash)."""
        if not self.frames:
            return self.floor_sequence - 1, self.floor_prev_hash
        return self.frames[-1].last_sequence, self.frames[-1].hash

    def index_of(self, sequence: int) -> int:
        """Return the index of the last frame that starts at or before `sequence`, -1 if there is none."""
        return bisect_right(self.frames, sequence, key=lambda frame: frame.first_sequence) - 1

    def drop_covered(self) -> None:
        """Drop the frames beyond `keep_frames` that the newest snapshot covers."""
        if self.keep_frames is None or not self.snapshots:
            return
        covered = max(self.snapshots)
        excess = 0
        while excess < len(self.frames) - self.keep_frames and self.frames[excess].last_sequence <= covered:
            excess += 1
        if excess:
            last = self.frames[excess - 1]
            self.floor_sequence, self.floor_prev_hash = last.last_sequence + 1, last.hash
            del self.frames[:excess]


class MemoryJournal:
    """`Journal` over a `MemoryStore`; durable for as long as the store lives."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store if store is not None else MemoryStore()
        self._closed = False

    @property
    def shard(self) -> int:
        """The number of the shard."""
        return self.store.shard

    @property
    def dsn(self) -> Secret | None:
        """Always None: no other process can see this memory."""
        return None

    @property
    def incarnation(self) -> str:
        """Name of this history."""
        return self.store.incarnation

    @property
    def stalled_since(self) -> float | None:
        """Always None: memory does not stall."""
        return None

    async def append(self, frame: Frame) -> None:
        """Append the frame; see `Journal.append`."""
        self._check_open()
        store = self.store
        if frame.shard != store.shard:
            raise JournalError(f"a frame of shard {frame.shard} does not belong in the journal of {store.shard}")
        if frame.epoch != store.epoch:
            raise Fenced(f"shard {store.shard}: epoch {frame.epoch} is no longer ours, it is {store.epoch} now")
        check_next(frame, *store.head())
        store.frames.append(frame)
        store.drop_covered()

    async def head(self) -> tuple[int, bytes]:
        """Return (last sequence, its frame hash); see `Journal.head`."""
        self._check_open()
        check_head(self.store.shard, *self.store.head(), max(self.store.snapshots, default=None))
        return self.store.head()

    async def read(self, from_sequence: int, *, to_sequence: int | None = None) -> AsyncIterator[Frame]:
        """Yield verified frames; see `Journal.read`."""
        self._check_open()
        check_range(self.store.shard, from_sequence, self.store.floor_sequence)
        frames = self.store.frames
        position = self.store.index_of(from_sequence)
        if position < 0 or frames[position].last_sequence < from_sequence:
            position += 1
        # Frames may be dropped while the reader is away, so the place is kept by sequence, not by index.
        last_sequence, last_hash = self.store.floor_sequence - 1, self.store.floor_prev_hash
        if position > 0:
            last_sequence, last_hash = frames[position - 1].last_sequence, frames[position - 1].hash
        end = self.store.head()[0]
        while last_sequence < (end if to_sequence is None else min(end, to_sequence)):
            self._check_open()
            check_range(self.store.shard, last_sequence + 1, self.store.floor_sequence)
            position = self.store.index_of(last_sequence) + 1
            frame = frames[position]
            frame.verify()
            frame.check_follows(last_sequence, last_hash)
            last_sequence, last_hash = frame.last_sequence, frame.hash
            yield frame

    async def floor(self) -> int:
        """Return the oldest retained sequence."""
        self._check_open()
        return self.store.floor_sequence

    async def save_snapshot(self, snapshot: StoredSnapshot) -> None:
        """Store a snapshot; see `Journal.save_snapshot`."""
        self._check_open()
        check_same_state(snapshot, self.store.snapshots.get(snapshot.sequence))
        check_snapshot_frame(snapshot, self._hash_at(snapshot.sequence), must_exist=True)
        self.store.snapshots[snapshot.sequence] = snapshot
        self.store.drop_covered()

    async def latest_snapshot(self, at_or_before: int | None = None) -> StoredSnapshot | None:
        """Return the newest snapshot at or before the sequence; see `Journal.latest_snapshot`."""
        self._check_open()
        eligible = [at for at in self.store.snapshots if at_or_before is None or at <= at_or_before]
        if not eligible:
            return None
        snapshot = self.store.snapshots[max(eligible)]
        check_snapshot_frame(snapshot, self._hash_at(snapshot.sequence), must_exist=False)
        return snapshot

    async def snapshot_sequences(self) -> list[int]:
        """Return the sequences of all snapshots, the oldest first."""
        self._check_open()
        return sorted(self.store.snapshots)

    async def close(self) -> None:
        """Refuse further calls; the store stays."""
        self._closed = True

    def _hash_at(self, sequence: int) -> bytes | None:
        """Return the hash of the frame that ends at `sequence`, None if no retained frame does."""
        if sequence == self.store.floor_sequence - 1:
            return self.store.floor_prev_hash
        index = self.store.index_of(sequence)
        if index < 0 or self.store.frames[index].last_sequence != sequence:
            return None
        return self.store.frames[index].hash

    def _check_open(self) -> None:
        if self._closed:
            raise JournalUnavailable("the journal is closed")


class MemoryLease:
    """`Lease` over a `MemoryStore`. `now` gives monotonic seconds; the simulation passes its own."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        ttl_seconds: float = DEFAULT_LEASE_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._now = now
        self._epoch = 0
        self._held_until = 0.0

    @property
    def held_until(self) -> float:
        """Time of `now` until which nobody else can have it."""
        return self._held_until

    async def acquire(self, holder: str, address: str = "", *, deposing: int = 0) -> int | None:
        """Take the lease; see `Lease.acquire`."""
        store = self._store
        is_taken = store.holder not in {None, holder} and store.expires_at > self._now()
        if is_taken and store.epoch != deposing:
            return None
        store.epoch += 1
        store.holder, store.address = holder, address
        self._epoch = store.epoch
        self._held_until = store.expires_at = self._now() + self._ttl_seconds
        return self._epoch

    async def look(self) -> LeaseView:
        """Who holds it; see `Lease.look`."""
        store = self._store
        return LeaseView(store.holder, store.address, store.epoch, store.expires_at > self._now())

    async def renew(self) -> bool:
        """Extend the lease; see `Lease.renew`."""
        if not self._holds():
            self._held_until = 0.0
            return False
        self._held_until = self._store.expires_at = self._now() + self._ttl_seconds
        return True

    async def release(self) -> None:
        """Give the lease up; see `Lease.release`."""
        self._held_until = 0.0
        if self._holds():
            self._store.holder = None
            self._epoch = 0

    async def close(self) -> None:
        """Nothing to release; a lease still held runs out by itself."""

    def _holds(self) -> bool:
        return self._epoch != 0 and self._store.epoch == self._epoch and self._store.holder is not None

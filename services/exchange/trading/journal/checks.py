"""The checks that every journal makes, whatever stores its frames."""

from exchange.trading.journal.contract import StoredSnapshot
from exchange.trading.journal.errors import BelowFloor, JournalCorrupt, JournalError
from exchange.trading.journal.frame import Frame


def check_next(frame: Frame, last_sequence: int, last_hash: bytes) -> None:
    """Raise JournalError unless the frame continues the head: the caller's mistake, so not JournalCorrupt."""
    if frame.first_sequence != last_sequence + 1 or frame.prev_hash != last_hash:
        raise JournalError(
            f"shard {frame.shard}: the frame {frame.first_sequence}..{frame.last_sequence} after "
            f"{frame.prev_hash.hex()[:16]} does not follow the head {last_sequence}, {last_hash.hex()[:16]}"
        )


def check_head(shard: int, last_sequence: int, last_hash: bytes, newest_snapshot: int | None) -> None:
    """Raise JournalCorrupt when a snapshot lies beyond the head: then the newest frames were removed."""
    if newest_snapshot is not None and newest_snapshot > last_sequence:
        raise JournalCorrupt(
            shard,
            last_sequence + 1,
            f"the journal ends at {last_sequence} ({last_hash.hex()[:16]}), but a snapshot was taken at {newest_snapshot}",
        )


def check_range(shard: int, from_sequence: int, floor: int) -> None:
    """Raise ValueError or BelowFloor for a read that cannot be served."""
    if from_sequence < 1:
        raise ValueError(f"sequences start at 1, not {from_sequence}")
    if from_sequence < floor:
        raise BelowFloor(shard, from_sequence, floor)


def check_same_state(snapshot: StoredSnapshot, stored: StoredSnapshot | None) -> None:
    """Raise JournalCorrupt when another state is stored for the sequence: two replicas have diverged."""
    if stored is not None and (stored.state_hash, stored.digest) != (snapshot.state_hash, snapshot.digest):
        raise JournalCorrupt(
            snapshot.shard,
            snapshot.sequence,
            f"the stored snapshot has the state {stored.state_hash[:16]}, this one {snapshot.state_hash[:16]}",
        )


def check_snapshot_frame(snapshot: StoredSnapshot, hash_there: bytes | None, *, must_exist: bool) -> None:
    """Raise when the frame that ends at the snapshot's sequence is absent or another one."""
    if hash_there is None:
        if must_exist:
            raise JournalError(f"shard {snapshot.shard}: no frame ends at {snapshot.sequence}, a snapshot must")
        return
    if hash_there != snapshot.frame_hash:
        raise JournalCorrupt(
            snapshot.shard,
            snapshot.sequence,
            f"the snapshot was taken after frame {snapshot.frame_hash.hex()[:16]}, "
            f"but the journal has {hash_there.hex()[:16]} there",
        )

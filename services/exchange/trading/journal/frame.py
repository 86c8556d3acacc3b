"""A frame: one group commit, sealed so that no byte of it can change unseen.

Frames form a hash chain. The hash of a frame covers the hash of the one before it, its header fields,
and its stored bytes with their lengths, so neither an altered byte, nor a byte moved between fields,
nor a removed or reordered frame passes `verify` and `check_follows`.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Self

from exchange.trading.journal.errors import JournalCorrupt

# The domain tag keeps these hashes apart from every other SHA-256 in the system; its number is the
# version of the sealing itself.
_DOMAIN = b"pincex.journal.frame.1"
_HEADER = struct.Struct(">qqqqqqqqq")
HASH_BYTES = 32
DIGEST_BYTES = 32
MAX_SEQUENCE = 2**63 - 1

GENESIS_HASH: bytes = hashlib.sha256(b"pincex.journal.genesis.1").digest()


def frame_hash(
    *,
    shard: int,
    first_sequence: int,
    last_sequence: int,
    epoch: int,
    time_ns: int,
    commands: bytes,
    events: bytes,
    digest: bytes,
    prev_hash: bytes,
    format_version: int,
    rules_version: int,
) -> bytes:
    """Return SHA-256 over tag, previous hash, header (9 big-endian int64), commands, events and digest.

    The header carries both lengths, so the boundary between commands and events is covered as well.
    """
    header = _HEADER.pack(
        shard, first_sequence, last_sequence, epoch, time_ns, format_version, rules_version, len(commands), len(events)
    )
    running = hashlib.sha256(b"".join((_DOMAIN, prev_hash, header)))
    running.update(commands)
    running.update(events)
    running.update(digest)
    return running.digest()


@dataclass(frozen=True, slots=True)
class Frame:
    """One group commit of commands `first_sequence` to `last_sequence`, both included.

    `time_ns` is the engine time of all its commands (nanoseconds since the Unix epoch). `commands` and
    `events` are the codec's bytes, opaque here. `digest` is the rolling digest (32 bytes) of the
    canonical events up to and including this frame, given by the caller. `prev_hash` is the hash of
    the frame that ends at `first_sequence - 1`, or `GENESIS_HASH` for the first of all.
    """

    shard: int
    first_sequence: int
    last_sequence: int
    epoch: int
    time_ns: int
    commands: bytes
    events: bytes
    digest: bytes
    prev_hash: bytes
    hash: bytes
    format_version: int
    rules_version: int

    @classmethod
    def seal(
        cls,
        *,
        shard: int,
        first_sequence: int,
        last_sequence: int,
        epoch: int,
        time_ns: int,
        commands: bytes,
        events: bytes,
        digest: bytes,
        prev_hash: bytes,
        format_version: int,
        rules_version: int,
    ) -> Self:
        """Make a frame with its hash computed; ValueError if a field is out of its range."""
        if not 1 <= first_sequence <= last_sequence <= MAX_SEQUENCE:
            raise ValueError(f"a frame holds at least one sequence from 1 on, not {first_sequence}..{last_sequence}")
        if len(digest) != DIGEST_BYTES or len(prev_hash) != HASH_BYTES:
            raise ValueError(f"digest and prev_hash are 32 bytes, not {len(digest)} and {len(prev_hash)}")
        if (prev_hash == GENESIS_HASH) != (first_sequence == 1):
            raise ValueError("the frame of sequence 1, and no other, follows GENESIS_HASH")
        return cls(
            shard=shard,
            first_sequence=first_sequence,
            last_sequence=last_sequence,
            epoch=epoch,
            time_ns=time_ns,
            commands=commands,
            events=events,
            digest=digest,
            prev_hash=prev_hash,
            hash=frame_hash(
                shard=shard,
                first_sequence=first_sequence,
                last_sequence=last_sequence,
                epoch=epoch,
                time_ns=time_ns,
                commands=commands,
                events=events,
                digest=digest,
                prev_hash=prev_hash,
                format_version=format_version,
                rules_version=rules_version,
            ),
            format_version=format_version,
            rules_version=rules_version,
        )

    def verify(self) -> None:
        """Raise JournalCorrupt unless the stored hash is the hash of the stored fields."""
        expected = frame_hash(
            shard=self.shard,
            first_sequence=self.first_sequence,
            last_sequence=self.last_sequence,
            epoch=self.epoch,
            time_ns=self.time_ns,
            commands=self.commands,
            events=self.events,
            digest=self.digest,
            prev_hash=self.prev_hash,
            format_version=self.format_version,
            rules_version=self.rules_version,
        )
        if expected != self.hash:
            raise JournalCorrupt(
                self.shard,
                self.first_sequence,
                f"the frame {self.first_sequence}..{self.last_sequence} hashes to {expected.hex()[:16]}, "
                f"but {self.hash.hex()[:16]} is stored with it",
            )

    def check_follows(self, last_sequence: int, last_hash: bytes) -> None:
        """Raise JournalCorrupt unless this frame comes directly after the frame that ends there.

        A frame that starts later leaves a hole, one that starts earlier overlaps; either way the
        sequence named is the first one in question.
        """
        expected = last_sequence + 1
        if self.first_sequence > expected:
            raise JournalCorrupt(
                self.shard, expected, f"sequences {expected}..{self.first_sequence - 1} are missing from the journal"
            )
        if self.first_sequence < expected:
            raise JournalCorrupt(
                self.shard,
                self.first_sequence,
                f"the frame {self.first_sequence}..{self.last_sequence} overlaps the one that ends at {last_sequence}",
            )
        if self.prev_hash != last_hash:
            raise JournalCorrupt(
                self.shard,
                self.first_sequence,
                f"the chain breaks: the frame follows {self.prev_hash.hex()[:16]}, "
                f"but the frame before it hashes to {last_hash.hex()[:16]}",
            )

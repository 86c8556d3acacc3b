"""The hash of an audit record: SHA-256 over bytes that only this record with this past has. docs/AUDIT.md has vectors.

The database computes the same (`audit_hash` in `admin/migrations/audit-0001-records.sql`); here it is computed again from
what is stored, so that a trail is proved by other code than wrote it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

FORMAT: Final = "PINCEX-AUDIT-1"
# What stands in the first record as the hash of the one before.
GENESIS: Final = bytes(32)

_LENGTH: Final = struct.Struct(">I")
_NUMBER: Final = struct.Struct(">q")


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it stands in the chain. Times are microseconds since 1970 UTC, hashes 32 bytes."""

    sequence: int
    record_id: str
    record_micros: int
    store_micros: int
    writer_role: str
    phase: str
    service: str
    instance: str
    action: str
    actor: str
    credential: str
    address: str
    details: str
    reason: str
    request_id: str
    outcome: str
    prev_hash: bytes
    hash: bytes


def encoded(record: StoredRecord) -> bytes:
    """The bytes that are hashed.

    In this order: the format's name, the hash before (32 bytes as they are), sequence, record id, both times, then the texts.
    A text is its length in bytes, 4 bytes big endian, and its UTF-8; a number is 8 bytes big endian. The id is the text of
    a UUID in lower case. Lengths stand before all that varies, so no two records have the same bytes.
    """
    return b"".join(
        (
            _text(FORMAT),
            record.prev_hash,
            _NUMBER.pack(record.sequence),
            _text(record.record_id),
            _NUMBER.pack(record.record_micros),
            _NUMBER.pack(record.store_micros),
            _text(record.writer_role),
            _text(record.phase),
            _text(record.service),
            _text(record.instance),
            _text(record.action),
            _text(record.actor),
            _text(record.credential),
            _text(record.address),
            _text(record.details),
            _text(record.reason),
            _text(record.request_id),
            _text(record.outcome),
        )
    )


def hash_of(record: StoredRecord) -> bytes:
    """The SHA-256 that the record should have, whatever its `hash` says."""
    return hashlib.sha256(encoded(record)).digest()


def _text(value: str) -> bytes:
    data = value.encode()
    return _LENGTH.pack(len(data)) + data

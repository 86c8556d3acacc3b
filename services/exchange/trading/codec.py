"""The journal's format: commands and events of a frame as msgpack arrays, snapshots as compressed msgpack.

Nothing here rounds, guesses or defaults: what was encoded is what comes back, tuples included. `FORMAT_VERSION` stands
in every frame and snapshot; a build reads the versions that it knows and refuses the others by name.
"""

from __future__ import annotations

import zlib
from hashlib import sha256
from typing import Any, Final

import msgspec

from exchange.trading import rules
from exchange.trading.core.commands import Command
from exchange.trading.core.events import Event
from exchange.trading.journal.errors import JournalError

FORMAT_VERSION: Final = 1
SUPPORTED_FORMATS: Final = frozenset({1})

GENESIS_DIGEST: Final = bytes(32)
"""Digest before the first frame."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_COMMANDS: Final = msgspec.msgpack.Decoder(list[tuple[Any, ...]])
_EVENTS: Final = msgspec.msgpack.Decoder(list[list[tuple[Any, ...]]])
_ANY: Final = msgspec.msgpack.Decoder()

# Fast and small enough: a snapshot is written rarely and read at start.
_COMPRESSION_LEVEL: Final = 1


class UnsupportedVersion(JournalError):
    """A frame or snapshot was written by a build that this one does not know."""


def check_versions(format_version: int, rules_version: int, where: str) -> None:
    """Raise UnsupportedVersion, naming the place, for a format or rules that this process does not support."""
    if format_version not in SUPPORTED_FORMATS:
        raise UnsupportedVersion(
            f"{where}: its format is {format_version}, this build reads {sorted(SUPPORTED_FORMATS)}"
        )
    if not rules.supports(rules_version):
        raise UnsupportedVersion(f"{where}: its rules are {rules_version}, this build knows 1 to {rules.newest()}")


def encode_commands(commands: list[Command]) -> bytes:
    """The commands of a frame, in order."""
    return _ENCODER.encode(commands)


def decode_commands(data: bytes) -> list[Command]:
    """What `encode_commands` was given. Raises msgspec.DecodeError for other bytes."""
    return _COMMANDS.decode(data)


def encode_events(events: list[list[Event]]) -> bytes:
    """The events of a frame: one list for each command."""
    return _ENCODER.encode(events)


def decode_events(data: bytes) -> list[list[Event]]:
    """What `encode_events` was given, but that tuples inside an event come back as lists."""
    return _EVENTS.decode(data)


def next_digest(digest: bytes, events: bytes) -> bytes:
    """The rolling digest after a frame: SHA-256 over the digest before it and the frame's event bytes."""
    return sha256(digest + events).digest()


def encode_snapshot(dumped: list[Any]) -> bytes:
    """A dump of the engine's state, compressed."""
    return zlib.compress(_ENCODER.encode(dumped), _COMPRESSION_LEVEL)


def decode_snapshot(data: bytes) -> list[Any]:
    """What `encode_snapshot` was given, with lists for tuples. Raises zlib.error or msgspec.DecodeError."""
    dumped: list[Any] = _ANY.decode(zlib.decompress(data))
    return dumped

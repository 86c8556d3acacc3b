"""From the journal to a running core: newest snapshot, then the tail, through the code that runs all day.

Every frame's hash and place in the chain is checked by the journal's reader; here its events are made again and their
digest compared, so a core that would answer otherwise than the one that was acknowledged never serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from exchange.trading import codec
from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import Event
from exchange.trading.journal.contract import GENESIS_HASH, Frame, Journal, JournalCorrupt, StoredSnapshot

PAUSE_COMMANDS: Final = 2_000
"""Commands that a replay applies in one go."""


@dataclass(slots=True)
class Recovered:
    """A core at the end of a frame. `snapshot_sequence` is where it began, 0 for the empty state."""

    engine: Engine
    frame_hash: bytes
    digest: bytes
    snapshot_sequence: int
    replayed_commands: int


def replay_frame(engine: Engine, frame: Frame, digest: bytes) -> bytes:
    """Apply a frame's commands and compare what comes out with what was stored; answers the digest after it.

    Raises JournalCorrupt, naming the sequence, when anything differs, and UnsupportedVersion; the core is not to be used
    any more then.
    """
    return replay_frame_events(engine, frame, digest)[0]


def replay_frame_events(engine: Engine, frame: Frame, digest: bytes) -> tuple[bytes, list[list[Event]]]:
    """As `replay_frame`; answers the events too, one list for each command."""
    events = _apply(engine, frame, _commands_of(frame))
    encoded = codec.encode_events(events)
    after = codec.next_digest(digest, encoded)
    if after != frame.digest:
        sequence, difference = _difference(frame, events, encoded)
        raise JournalCorrupt(frame.shard, sequence, difference)
    if engine.state.rules_version != frame.rules_version:
        raise JournalCorrupt(
            frame.shard,
            frame.last_sequence,
            f"the frame says rules {frame.rules_version}, its commands lead to rules {engine.state.rules_version}",
        )
    return after, events


def _commands_of(frame: Frame) -> list[Command]:
    """The commands of a frame, as many as it has sequences."""
    place = f"frame {frame.first_sequence}..{frame.last_sequence}"
    codec.check_versions(frame.format_version, frame.rules_version, f"shard {frame.shard}, {place}")
    try:
        commands = codec.decode_commands(frame.commands)
    except msgspec.DecodeError as error:
        raise JournalCorrupt(
            frame.shard, frame.first_sequence, f"the commands of {place} cannot be read: {error}"
        ) from error
    if len(commands) != frame.last_sequence - frame.first_sequence + 1:
        raise JournalCorrupt(frame.shard, frame.first_sequence, f"{place} holds {len(commands)} commands")
    return commands


def _apply(engine: Engine, frame: Frame, commands: list[Command]) -> list[list[Event]]:
    events: list[list[Event]] = []
    sequence = frame.first_sequence
    for command in commands:
        try:
            events.append(engine.apply(sequence, frame.time_ns, command))
        except Exception as error:
            raise JournalCorrupt(frame.shard, sequence, f"the core cannot apply this command: {error!r}") from error
        sequence += 1
    return events


def _difference(frame: Frame, events: list[list[Event]], encoded: bytes) -> tuple[int, str]:
    """Where a replay left the record, and how."""
    if encoded == frame.events:
        return frame.first_sequence, "the events are the same, but the digest before this frame differs"
    try:
        stored = codec.decode_events(frame.events)
    except msgspec.DecodeError as error:
        return frame.first_sequence, f"the events of the frame cannot be read: {error}"
    again = codec.decode_events(codec.encode_events(events))
    for offset, (one, two) in enumerate(zip(stored, again, strict=False)):
        if one != two:
            sequence = frame.first_sequence + offset
            return sequence, f"replay differs from the record at sequence {sequence}"
    return frame.first_sequence, "replay gives another number of events than the record"


async def recover(
    journal: Journal, *, to_sequence: int | None = None, exactly: bool = False, from_genesis: bool = False
) -> Recovered:
    """The core as of the journal's head, or as of the end of the frame that holds `to_sequence`.

    With `exactly` it stops in the middle of that frame, at `to_sequence` itself; such a core is for looking at only,
    its hash and digest are those of the frame before. Raises JournalCorrupt with the exact place, or UnsupportedVersion;
    a snapshot whose state does not have the hash stored with it is refused alike.
    """
    snapshot = None if from_genesis else await journal.latest_snapshot(to_sequence)
    recovered = Recovered(Engine(), GENESIS_HASH, codec.GENESIS_DIGEST, 0, 0) if snapshot is None else restore(snapshot)
    with _without_collector():
        await _replay(journal, recovered, to_sequence, exactly=exactly)
    return recovered


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """What a replay makes stays: looking for garbage among it would take as long as the replay itself."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


async def _replay(journal: Journal, recovered: Recovered, to_sequence: int | None, *, exactly: bool) -> None:
    pause_at = 0
    async for frame in journal.read(recovered.engine.state.sequence + 1, to_sequence=to_sequence):
        if exactly and to_sequence is not None and frame.last_sequence > to_sequence:
            recovered.replayed_commands += _replay_start(recovered.engine, frame, to_sequence)
            break
        recovered.digest = replay_frame(recovered.engine, frame, recovered.digest)
        recovered.frame_hash = frame.hash
        recovered.replayed_commands += frame.last_sequence - frame.first_sequence + 1
        if to_sequence is not None and frame.last_sequence >= to_sequence:
            break
        if recovered.engine.state.sequence >= pause_at:
            # Whoever shares this event loop goes on meanwhile.
            await asyncio.sleep(0)
            pause_at = recovered.engine.state.sequence + PAUSE_COMMANDS


def _replay_start(engine: Engine, frame: Frame, to_sequence: int) -> int:
    """Apply the commands of a frame up to a sequence; answers how many."""
    count = to_sequence - frame.first_sequence + 1
    return len(_apply(engine, frame, _commands_of(frame)[:count]))


def restore(snapshot: StoredSnapshot) -> Recovered:
    """The core of a stored snapshot. Raises JournalCorrupt when its hash is not the one stored with it."""
    where = f"shard {snapshot.shard}, snapshot at sequence {snapshot.sequence}"
    codec.check_versions(snapshot.format_version, snapshot.rules_version, where)
    try:
        engine = Engine.restore(codec.decode_snapshot(snapshot.state))
    except Exception as error:
        raise JournalCorrupt(
            snapshot.shard, snapshot.sequence, f"the snapshot's state cannot be read: {error!r}"
        ) from error
    found = engine.state_hash()
    if found != snapshot.state_hash or engine.state.sequence != snapshot.sequence:
        raise JournalCorrupt(
            snapshot.shard,
            snapshot.sequence,
            f"the snapshot's state is of sequence {engine.state.sequence} and hashes to {found[:16]}, "
            f"stored is {snapshot.state_hash[:16]}",
        )
    return Recovered(engine, snapshot.frame_hash, snapshot.digest, snapshot.sequence, 0)


def take_snapshot(recovered: Recovered, shard: int) -> StoredSnapshot:
    """A snapshot of the core as it stands, which must be at the end of a frame."""
    engine = recovered.engine
    dumped = engine.snapshot()
    return StoredSnapshot(
        shard=shard,
        sequence=engine.state.sequence,
        time_ns=engine.state.time_ns,
        state=codec.encode_snapshot(dumped),
        state_hash=engine.state_hash(),
        digest=recovered.digest,
        frame_hash=recovered.frame_hash,
        format_version=codec.FORMAT_VERSION,
        rules_version=engine.state.rules_version,
    )

"""From the journal to a core: equal from everywhere, and refused with the exact place where anything is wrong."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest

from exchange.trading import codec, recovery
from exchange.trading.codec import UnsupportedVersion
from exchange.trading.core import commands as cmd
from exchange.trading.core.constants import RULES_VERSION
from exchange.trading.core.engine import Engine
from exchange.trading.journal.contract import Frame, JournalCorrupt, StoredSnapshot
from exchange.trading.journal.frame import GENESIS_HASH
from exchange.trading.journal.memory import MemoryJournal
from tests.unit.trading.histories import flow, journal_of, resealed
from tests.unit.trading.sealed import frames_of
from tests.unit.trading.sequencer_rig import order

pytestmark = pytest.mark.core


def changed(stored: Any, **changes: Any) -> Any:
    return replace(stored, **changes)


async def test_snapshot_and_tail_equal_the_replay_from_the_first_frame():
    frames = frames_of(flow(1))
    journal = journal_of(frames)
    whole = await recovery.recover(journal, from_genesis=True)
    assert whole.replayed_commands == whole.engine.state.sequence == frames[-1].last_sequence
    for frame in random.Random(2).sample(frames, 6):
        at = await recovery.recover(journal, to_sequence=frame.last_sequence, from_genesis=True)
        await journal.save_snapshot(recovery.take_snapshot(at, 0))
        again = await recovery.recover(journal)
        newest = max(journal.store.snapshots)
        assert again.snapshot_sequence == newest
        assert again.replayed_commands == frames[-1].last_sequence - newest
        assert again.engine.state_hash() == whole.engine.state_hash()
        assert (again.digest, again.frame_hash) == (whole.digest, whole.frame_hash)


async def test_recovery_stops_at_the_end_of_the_frame_that_holds_the_sequence():
    frames = frames_of(flow(3))
    journal = journal_of(frames)
    middle = next(frame for frame in frames[20:] if frame.last_sequence > frame.first_sequence + 1)
    recovered = await recovery.recover(journal, to_sequence=middle.first_sequence + 1)
    assert recovered.engine.state.sequence == middle.last_sequence
    assert recovered.frame_hash == middle.hash


async def test_a_snapshot_beyond_the_sequence_asked_for_is_not_used():
    frames = frames_of(flow(3))
    journal = journal_of(frames)
    await journal.save_snapshot(recovery.take_snapshot(await recovery.recover(journal), 0))
    recovered = await recovery.recover(journal, to_sequence=frames[10].last_sequence)
    assert recovered.snapshot_sequence == 0
    assert recovered.engine.state.sequence == frames[10].last_sequence


async def test_an_empty_journal_gives_the_empty_core():
    recovered = await recovery.recover(journal_of([]))
    assert recovered.engine.state_hash() == Engine().state_hash()
    assert (recovered.frame_hash, recovered.digest) == (GENESIS_HASH, codec.GENESIS_DIGEST)


async def snapshot_of(frames: list[Frame]) -> tuple[MemoryJournal, StoredSnapshot]:
    journal = journal_of(frames)
    snapshot = recovery.take_snapshot(await recovery.recover(journal, to_sequence=frames[20].last_sequence), 0)
    return journal, snapshot


@pytest.mark.parametrize(
    "damage",
    [
        lambda snapshot: {"state_hash": "0" * 64},
        lambda snapshot: {"state": snapshot.state[:-8]},
        lambda snapshot: {"state": codec.encode_snapshot([99])},
        lambda snapshot: {"state": codec.encode_snapshot([])},
        lambda snapshot: {"state": b""},
    ],
)
async def test_a_snapshot_that_is_not_what_was_hashed_is_refused(damage):
    journal, snapshot = await snapshot_of(frames_of(flow(4)))
    journal.store.snapshots[snapshot.sequence] = replace(snapshot, **damage(snapshot))
    with pytest.raises(JournalCorrupt, match=f"sequence {snapshot.sequence}: the snapshot"):
        await recovery.recover(journal)


async def test_a_snapshot_of_another_sequence_is_refused():
    """Its hash is right, and it is not the state at that place."""
    frames = frames_of(flow(4))
    journal, snapshot = await snapshot_of(frames)
    later = recovery.take_snapshot(await recovery.recover(journal, to_sequence=frames[30].last_sequence), 0)
    journal.store.snapshots[snapshot.sequence] = replace(snapshot, state=later.state, state_hash=later.state_hash)
    with pytest.raises(JournalCorrupt, match=f"sequence {snapshot.sequence}: "):
        await recovery.recover(journal)


async def test_a_snapshot_with_another_digest_is_found_out_at_the_next_frame():
    frames = frames_of(flow(4))
    journal, snapshot = await snapshot_of(frames)
    journal.store.snapshots[snapshot.sequence] = replace(snapshot, digest=bytes(32))
    with pytest.raises(JournalCorrupt, match=f"sequence {frames[21].first_sequence}: the events are the same"):
        await recovery.recover(journal)


@pytest.mark.parametrize(("name", "unknown"), [("format_version", 2), ("rules_version", RULES_VERSION + 1)])
async def test_snapshots_and_frames_of_unknown_versions_are_refused_by_place(name, unknown):
    frames = frames_of(flow(4))
    journal, snapshot = await snapshot_of(frames)
    journal.store.snapshots[snapshot.sequence] = changed(snapshot, **{name: unknown})
    with pytest.raises(UnsupportedVersion, match=f"snapshot at sequence {snapshot.sequence}"):
        await recovery.recover(journal)
    wrong = resealed(frames, 7, **{name: unknown})
    with pytest.raises(UnsupportedVersion, match=f"frame {frames[7].first_sequence}..{frames[7].last_sequence}"):
        await recovery.recover(journal_of(wrong))


async def test_a_replay_that_gives_other_events_is_refused_with_the_sequence():
    """The record says that an order was accepted at another price: every hash is right, the events are not."""
    frames = frames_of(flow(5))
    ends = list(accumulate(len(codec.decode_commands(frame.commands)) for frame in frames))
    place = next(at for at in range(30, len(frames)) if len(codec.decode_commands(frames[at].commands)) > 2)
    events = codec.decode_events(frames[place].events)
    events[1] = [(1, *event[1:-1], "altered") for event in events[1]]
    encoded = codec.encode_events(events)
    wrong = resealed(frames, place, events=encoded, digest=codec.next_digest(frames[place - 1].digest, encoded))
    with pytest.raises(JournalCorrupt, match="replay differs from the record") as caught:
        await recovery.recover(journal_of(wrong))
    assert caught.value.sequence == ends[place - 1] + 2


async def test_a_replay_with_other_commands_is_refused():
    frames = frames_of(flow(5))
    commands = codec.decode_commands(frames[30].commands)
    commands[0] = order("never sent", lots=12_340)
    wrong = resealed(frames, 30, commands=codec.encode_commands(commands))
    with pytest.raises(JournalCorrupt, match=f"sequence {frames[30].first_sequence}: "):
        await recovery.recover(journal_of(wrong))


@pytest.mark.parametrize(
    "commands",
    [
        b"\xff",
        codec.encode_commands([]),
        codec.encode_commands([(99, "demo", "", 0, "", 0)] * 9),
        codec.encode_commands([()]),
    ],
)
async def test_commands_that_cannot_be_replayed_are_refused_with_the_frame(commands):
    frames = frames_of(flow(5))
    wrong = resealed(frames, 30, commands=commands)
    with pytest.raises(JournalCorrupt) as caught:
        await recovery.recover(journal_of(wrong))
    assert frames[30].first_sequence <= caught.value.sequence <= frames[30].last_sequence


@pytest.mark.parametrize("extra", [[], [cmd.tick(), cmd.tick()]])
async def test_a_frame_with_another_number_of_commands_than_sequences_is_refused(extra):
    frames = frames_of(flow(5))
    commands = [*codec.decode_commands(frames[30].commands), cmd.tick(), *extra]
    wrong = resealed(frames, 30, commands=codec.encode_commands(commands))
    with pytest.raises(JournalCorrupt, match=f"sequence {frames[30].first_sequence}: .*{len(commands)} commands"):
        await recovery.recover(journal_of(wrong))


@pytest.mark.parametrize("field", ["commands", "events", "digest", "hash", "prev_hash"])
async def test_every_altered_byte_of_a_frame_is_refused_with_the_place(field):
    frames = frames_of(flow(6))
    rng = random.Random(field)
    for place in (0, 17, len(frames) - 1):
        data = bytearray(getattr(frames[place], field))
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        damaged = [*frames[:place], changed(frames[place], **{field: bytes(data)}), *frames[place + 1 :]]
        with pytest.raises(JournalCorrupt) as caught:
            await recovery.recover(journal_of(damaged))
        assert caught.value.sequence == frames[place].first_sequence


async def test_a_missing_frame_is_refused_with_the_place():
    frames = frames_of(flow(6))
    with pytest.raises(JournalCorrupt, match="missing") as caught:
        await recovery.recover(journal_of([*frames[:17], *frames[18:]]))
    assert caught.value.sequence == frames[17].first_sequence


async def test_a_frame_that_claims_other_rules_than_its_commands_lead_to_is_refused():
    frames = frames_of(flow(4))
    wrong = resealed(frames, 7, rules_version=RULES_VERSION)
    with pytest.raises(JournalCorrupt, match=f"the frame says rules {RULES_VERSION}, its commands lead to rules 1"):
        await recovery.recover(journal_of(wrong))


async def test_events_that_cannot_be_read_are_refused_with_their_frame():
    frames = frames_of(flow(4))
    torn = b"\xc1"
    wrong = resealed(frames, 7, events=torn, digest=codec.next_digest(frames[6].digest, torn))
    with pytest.raises(JournalCorrupt, match=f"sequence {frames[7].first_sequence}: the events of the frame cannot"):
        await recovery.recover(journal_of(wrong))

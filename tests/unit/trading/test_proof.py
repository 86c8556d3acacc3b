"""A verification finds every damage, at its exact place, and nothing where there is none."""

from __future__ import annotations

import random
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from exchange.trading import codec, recovery
from exchange.trading.core.engine import Engine
from exchange.trading.journal.frame import GENESIS_HASH
from exchange.trading.journal.memory import MemoryJournal
from exchange.trading.past import proof
from exchange.trading.past.answers import PastRefused, Progress, Refusal, Why, from_line, to_line
from exchange.trading.past.proof import Proofs, prove
from tests.unit.trading.histories import flow, journal_of, resealed
from tests.unit.trading.sealed import frames_of
from tests.unit.trading.sequencer_rig import order

pytestmark = pytest.mark.core

FRAMES = frames_of(flow(1))
HEAD = FRAMES[-1].last_sequence
SNAPSHOTS = (12, 24, 36)
"""The frames at whose end `with_snapshots` stores one."""


async def steps(journal: MemoryJournal, first: int = 0, last: int = 0) -> list[Progress]:
    return [progress async for progress in prove(journal, first, last)]


async def result(journal: MemoryJournal, first: int = 0, last: int = 0) -> Progress:
    """What is found; only the last progress may say that it is the last."""
    *before, found = await steps(journal, first, last)
    assert found.done
    assert not any(progress.done for progress in before)
    return found


async def difference(journal: MemoryJournal, first: int = 0, last: int = 0) -> str:
    found = await result(journal, first, last)
    assert not found.valid
    assert (found.frame_hash, found.state_hash) == ("", "")
    return found.difference


async def refusal(journal: MemoryJournal, first: int = 0, last: int = 0) -> Refusal:
    with pytest.raises(PastRefused) as caught:
        await steps(journal, first, last)
    return caught.value.refusal


async def with_snapshots() -> MemoryJournal:
    journal = journal_of(FRAMES)
    for place in SNAPSHOTS:
        recovered = await recovery.recover(journal, to_sequence=FRAMES[place].last_sequence, from_genesis=True)
        await journal.save_snapshot(recovery.take_snapshot(recovered, 0))
    return journal


async def test_a_sound_journal_is_valid_with_all_its_snapshots():
    journal = await with_snapshots()
    whole = await recovery.recover(journal, from_genesis=True)
    assert await result(journal) == Progress(
        sequence=HEAD,
        to_sequence=HEAD,
        frame_count=len(FRAMES),
        command_count=HEAD,
        snapshot_count=len(SNAPSHOTS),
        done=True,
        valid=True,
        frame_hash=FRAMES[-1].hash.hex(),
        state_hash=whole.engine.state_hash(),
    )


async def test_a_stretch_begins_at_the_newest_snapshot_before_it_and_ends_with_a_whole_frame():
    journal = await with_snapshots()
    first, last = FRAMES[30], next(frame for frame in FRAMES[32:] if frame.last_sequence > frame.first_sequence)
    found = await result(journal, first.first_sequence, last.first_sequence)
    there = await recovery.recover(journal, to_sequence=last.first_sequence, from_genesis=True)
    assert found.valid
    assert (found.sequence, found.to_sequence) == (last.last_sequence, last.first_sequence)
    assert found.command_count == last.last_sequence - FRAMES[24].last_sequence
    assert (found.frame_hash, found.state_hash) == (last.hash.hex(), there.engine.state_hash())


async def test_an_empty_journal_is_valid():
    found = await result(journal_of([]))
    assert (found.valid, found.sequence, found.frame_count) == (True, 0, 0)
    assert (found.frame_hash, found.state_hash) == (GENESIS_HASH.hex(), Engine().state_hash())


@pytest.mark.parametrize("field", ["commands", "events", "digest", "hash", "prev_hash"])
async def test_every_altered_byte_is_found_at_its_frame(field, seed):
    rng = random.Random(seed)
    for place in (0, 17, len(FRAMES) - 1):
        journal = await with_snapshots()
        data = bytearray(getattr(FRAMES[place], field))
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        altered: dict[str, Any] = {field: bytes(data)}
        journal.store.frames[place] = replace(FRAMES[place], **altered)
        assert f"sequence {FRAMES[place].first_sequence}: " in await difference(journal)
        if place:
            assert (await result(journal, 1, FRAMES[place].first_sequence - 1)).valid, "what lies before is sound"


async def test_what_was_altered_and_sealed_again_is_found_by_the_replay():
    """The chain is whole, the commands are others."""
    commands = codec.encode_commands([order("forged", lots=12_340)] * len(codec.decode_commands(FRAMES[17].commands)))
    found = await difference(journal_of(resealed(FRAMES, 17, commands=commands)))
    assert f"sequence {FRAMES[17].first_sequence}: replay differs" in found


async def test_events_that_cannot_be_read_are_found_at_their_frame():
    found = await difference(journal_of(resealed(FRAMES, 17, events=b"\xc1", digest=bytes(32))))
    assert f"sequence {FRAMES[17].first_sequence}: the events of the frame" in found


async def test_a_frame_of_an_unknown_version_is_not_valid():
    found = await difference(journal_of(resealed(FRAMES, 17, format_version=99)))
    assert f"frame {FRAMES[17].first_sequence}..{FRAMES[17].last_sequence}: its format is 99" in found


@pytest.mark.parametrize("place", [0, 17])
async def test_a_removed_frame_is_found(place):
    journal = await with_snapshots()
    del journal.store.frames[place]
    first, last = FRAMES[place].first_sequence, FRAMES[place].last_sequence
    assert f"sequences {first}..{last} are missing" in await difference(journal)


async def test_removed_frames_at_the_end_are_found_by_the_snapshot_that_saw_them():
    journal = await with_snapshots()
    del journal.store.frames[SNAPSHOTS[-1] :]
    assert f"the journal ends at {FRAMES[SNAPSHOTS[-1] - 1].last_sequence}" in await difference(journal)


class CutShort(MemoryJournal):
    """Its reads end early without a word, as those of a database do where the last row asked for was removed."""

    async def read(self, from_sequence, *, to_sequence=None):
        async for frame in super().read(from_sequence, to_sequence=to_sequence):
            if to_sequence is not None and frame.last_sequence >= to_sequence:
                return
            yield frame


async def test_a_removed_last_frame_of_a_stretch_is_found():
    journal = CutShort(journal_of(FRAMES).store)
    frame = FRAMES[17]
    missing = f"sequence {frame.first_sequence}: sequences {frame.first_sequence}..{frame.last_sequence} are missing"
    assert missing in await difference(journal, 1, frame.last_sequence)


async def test_an_altered_snapshot_is_found_wherever_the_replay_comes_from():
    sequence = FRAMES[SNAPSHOTS[1]].last_sequence
    journal = await with_snapshots()
    sound = journal.store.snapshots[sequence]
    earlier = journal.store.snapshots[FRAMES[SNAPSHOTS[0]].last_sequence]
    engine = recovery.restore(sound).engine
    engine.state.accounts["demo"].balances[2].available += 1
    damages: list[dict[str, Any]] = [
        {"state_hash": "0" * 64},
        {"state": sound.state[:-8]},
        {"state": earlier.state, "state_hash": earlier.state_hash},
        {"state": codec.encode_snapshot(engine.snapshot()), "state_hash": engine.state_hash()},
        {"digest": bytes(32)},
        {"frame_hash": bytes(32)},
    ]
    for damage in damages:
        journal.store.snapshots[sequence] = replace(sound, **damage)
        found = await result(journal)
        assert not found.valid, damage
        assert f"sequence {sequence}: the snapshot" in found.difference
        assert found.snapshot_count == 1, "the one before is sound"
    journal.store.snapshots[sequence] = replace(sound, state=sound.state[:-8])
    assert f"sequence {sequence}: the snapshot" in await difference(journal, sequence + 1), "where the replay begins"


async def test_a_snapshot_in_the_middle_of_a_frame_is_found():
    journal = await with_snapshots()
    frame = next(frame for frame in FRAMES[13:] if frame.last_sequence > frame.first_sequence)
    sound = journal.store.snapshots[FRAMES[12].last_sequence]
    journal.store.snapshots[frame.first_sequence] = replace(sound, sequence=frame.first_sequence)
    assert f"sequence {frame.first_sequence}: a snapshot is stored in the middle" in await difference(journal)


async def test_the_frame_that_ends_at_a_snapshot_is_verified_when_the_stretch_begins_in_it():
    journal = await with_snapshots()
    place = SNAPSHOTS[1]
    frame = FRAMES[place]
    journal.store.frames[place] = replace(frame, commands=frame.commands[:-1] + bytes([frame.commands[-1] ^ 1]))
    assert f"sequence {frame.first_sequence}: " in await difference(journal, frame.last_sequence)


async def test_stretches_that_are_not_there_are_refused_with_what_is():
    journal = await with_snapshots()
    assert await refusal(journal, HEAD + 1) == Refusal(Why.IN_FUTURE, HEAD)
    assert await refusal(journal, 1, HEAD + 1) == Refusal(Why.IN_FUTURE, HEAD)
    oldest = FRAMES[SNAPSHOTS[0]].last_sequence
    journal.store.keep_frames = len(FRAMES) - SNAPSHOTS[0] - 1
    journal.store.drop_covered()
    assert await refusal(journal, oldest) == Refusal(Why.NOT_RETAINED, oldest + 1)
    assert await refusal(journal, 0, oldest) == Refusal(Why.NOT_RETAINED, oldest + 1)
    found = await result(journal)
    assert (found.valid, found.command_count, found.snapshot_count) == (True, HEAD - oldest, 2)
    await journal.close()
    assert (await refusal(journal)).why is Why.UNAVAILABLE


async def test_it_says_how_far_it_is_before_the_first_frame_and_from_time_to_time(monkeypatch):
    journal = await with_snapshots()
    before, found = await steps(journal)
    assert (before.sequence, before.to_sequence, before.frame_count) == (0, HEAD, 0)
    monkeypatch.setattr(proof, "PROGRESS_S", 0.0)
    told = await steps(journal)
    assert [progress.sequence for progress in told] == [0, *(frame.last_sequence for frame in FRAMES), HEAD]
    assert told[-1] == found
    assert [from_line(to_line(progress)) for progress in told] == told, "as a child would have told it"


async def test_one_runs_at_a_time_and_leaving_one_makes_room():
    proofs = Proofs(await with_snapshots())
    async with aclosing(proofs.run(0, 0)) as first:
        await anext(first)
        with pytest.raises(PastRefused) as caught:
            await anext(proofs.run(0, 0))
        assert caught.value.refusal.why is Why.BUSY
    with pytest.raises(PastRefused):
        await anext(proofs.run(HEAD + 1, 0))
    assert [progress.valid async for progress in proofs.run(0, 0)] == [False, True]

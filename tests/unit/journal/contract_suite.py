"""What every journal and lease promises. A subclass with a `world` fixture runs all of it on one kind."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Protocol

import pytest

from exchange.trading.journal.contract import (
    GENESIS_HASH,
    BelowFloor,
    Fenced,
    Frame,
    Journal,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    Lease,
)
from tests.unit.journal.frames import chain, next_frame, snapshot_at


class World(Protocol):
    """One store with everything that a test does to it behind the journal's back."""

    async def journal(self) -> Journal: ...
    def lease(self) -> Lease: ...
    async def expire_lease(self) -> None: ...
    async def overwrite(self, first_sequence: int, **fields: Any) -> None:
        """Change stored fields of one frame and nothing else."""
        ...

    async def remove(self, first_sequence: int) -> None: ...
    async def archive_below(self, floor_sequence: int) -> None:
        """Do what the archiver will do: drop frames that end below, and say so."""
        ...


async def everything(frames: AsyncIterator[Frame]) -> list[Frame]:
    return [frame async for frame in frames]


async def corruption(journal: Journal, from_sequence: int = 1) -> tuple[list[Frame], JournalCorrupt]:
    """Read until JournalCorrupt; the frames before it, and the error."""
    good: list[Frame] = []
    try:
        async for frame in journal.read(from_sequence):
            good.append(frame)  # noqa: PERF401 - a comprehension would lose them when the error comes
    except JournalCorrupt as error:
        return good, error
    raise AssertionError(f"{len(good)} frames were read and none was refused")


async def filled(world: World, frames: list[Frame]) -> Journal:
    """A journal that holds the frames, appended under epoch 1."""
    journal = await world.journal()
    assert await world.lease().acquire("filler") == 1
    for frame in frames:
        await journal.append(frame)
    return journal


class JournalContract:
    """Appends and reads."""

    async def test_an_empty_journal_has_the_genesis_head_and_nothing_to_read(self, world: World) -> None:
        journal = await world.journal()
        assert await journal.head() == (0, GENESIS_HASH)
        assert await journal.floor() == 1
        assert await everything(journal.read(1)) == []
        assert await journal.latest_snapshot() is None
        assert journal.stalled_since is None
        assert len(journal.incarnation) >= 16

    async def test_frames_are_read_back_as_they_were_appended(self, world: World) -> None:
        frames = chain(5, commands=3)
        journal = await filled(world, frames)
        assert await everything(journal.read(1)) == frames
        assert await journal.head() == (15, frames[-1].hash)
        assert await journal.floor() == 1

    async def test_another_journal_of_the_same_store_reads_the_same(self, world: World) -> None:
        frames = chain(3)
        first = await filled(world, frames)
        second = await world.journal()
        assert second.incarnation == first.incarnation
        assert await second.head() == await first.head()
        assert await everything(second.read(1)) == frames

    @pytest.mark.parametrize(
        ("from_sequence", "to_sequence", "first", "last"),
        [(1, None, 0, 4), (2, None, 0, 4), (3, None, 1, 4), (6, 6, 2, 2), (4, 7, 1, 3), (9, 10, 4, 4), (9, 99, 4, 4)],
    )
    async def test_a_read_begins_and_ends_with_the_frames_that_contain_its_bounds(
        self, world: World, from_sequence: int, to_sequence: int | None, first: int, last: int
    ) -> None:
        frames = chain(5, commands=2)
        journal = await filled(world, frames)
        assert await everything(journal.read(from_sequence, to_sequence=to_sequence)) == frames[first : last + 1]

    async def test_a_read_beyond_the_head_yields_nothing(self, world: World) -> None:
        journal = await filled(world, chain(2))
        assert await everything(journal.read(5)) == []
        assert await everything(journal.read(500)) == []

    async def test_sequences_start_at_one(self, world: World) -> None:
        journal = await filled(world, chain(1))
        with pytest.raises(ValueError, match="start at 1"):
            await everything(journal.read(0))

    async def test_a_frame_that_leaves_a_hole_is_refused_and_not_stored(self, world: World) -> None:
        frames = chain(4)
        journal = await filled(world, frames[:2])
        with pytest.raises(JournalError, match="does not follow the head"):
            await journal.append(frames[3])
        assert await everything(journal.read(1)) == frames[:2]
        await journal.append(frames[2])

    async def test_a_frame_of_another_history_is_refused_and_not_stored(self, world: World) -> None:
        frames = chain(2)
        journal = await filled(world, frames)
        stranger = next_frame(next_frame(next_frame(mark="other"), commands=3))
        assert stranger.first_sequence == frames[-1].last_sequence + 1
        with pytest.raises(JournalError, match="does not follow the head"):
            await journal.append(stranger)
        assert await everything(journal.read(1)) == frames

    async def test_a_frame_appended_twice_is_refused_and_stored_once(self, world: World) -> None:
        frames = chain(2)
        journal = await filled(world, frames)
        with pytest.raises(JournalError, match="does not follow the head"):
            await journal.append(frames[1])
        assert await everything(journal.read(1)) == frames

    async def test_a_frame_of_another_shard_is_refused(self, world: World) -> None:
        journal = await filled(world, [])
        with pytest.raises(JournalError, match="shard 7"):
            await journal.append(replace(next_frame(), shard=7))

    async def test_a_reader_may_leave_early(self, world: World) -> None:
        journal = await filled(world, chain(5))
        reading = journal.read(1)
        assert (await anext(reading)).first_sequence == 1
        await reading.aclose()  # type: ignore[attr-defined] # both are generators
        assert len(await everything(journal.read(1))) == 5

    async def test_an_append_goes_on_when_its_caller_is_cancelled(self, world: World) -> None:
        frames = chain(2)
        journal = await filled(world, [])
        task = asyncio.create_task(journal.append(frames[0]))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await journal.append(frames[1])
        assert await everything(journal.read(1)) == frames

    async def test_a_closed_journal_refuses_appends_as_unavailable(self, world: World) -> None:
        journal = await filled(world, chain(1))
        await journal.close()
        with pytest.raises(JournalUnavailable):
            await journal.append(chain(2)[1])
        with pytest.raises(JournalUnavailable):
            await journal.head()


class FenceContract:
    """Epochs keep deposed leaders out; the lease gives epochs."""

    async def test_an_append_without_any_lease_is_fenced(self, world: World) -> None:
        journal = await world.journal()
        with pytest.raises(Fenced):
            await journal.append(next_frame(epoch=1))
        assert await journal.head() == (0, GENESIS_HASH)

    @pytest.mark.parametrize("epoch", [1, 3])
    async def test_an_append_under_another_epoch_is_fenced_and_stores_nothing(self, world: World, epoch: int) -> None:
        frames = chain(1)
        journal = await filled(world, frames)
        assert await world.lease().acquire("filler") == 2
        with pytest.raises(Fenced, match=f"epoch {epoch} is no longer ours, it is 2"):
            await journal.append(next_frame(frames[0], epoch=epoch))
        assert await journal.head() == (2, frames[0].hash)

    async def test_a_deposed_leader_is_fenced_whatever_its_successor_appended(self, world: World) -> None:
        old = await filled(world, [first := next_frame()])
        new = await world.journal()
        assert await world.lease().acquire("filler") == 2
        await new.append(theirs := next_frame(first, epoch=2, mark="new", commands=3))
        with pytest.raises(Fenced):
            await old.append(next_frame(first, epoch=1, mark="old"))
        assert await everything(old.read(1)) == [first, theirs]

    async def test_a_leader_deposed_and_elected_again_continues_the_others_frames(self, world: World) -> None:
        mine = await filled(world, [first := next_frame()])
        other = await world.journal()
        lease = world.lease()
        assert await lease.acquire("filler") == 2
        await other.append(second := next_frame(first, epoch=2))
        assert await lease.acquire("filler") == 3
        await mine.append(third := next_frame(second, epoch=3))
        assert await everything(mine.read(1)) == [first, second, third]

    async def test_a_valid_lease_keeps_others_out_until_it_expires(self, world: World) -> None:
        one, other = world.lease(), world.lease()
        assert await one.acquire("one") == 1
        assert await other.acquire("other") is None
        assert other.held_until == 0.0
        await world.expire_lease()
        assert await other.acquire("other") == 2
        assert await one.renew() is False
        assert one.held_until == 0.0
        assert await other.renew() is True

    async def test_the_same_holder_takes_over_at_once_with_a_new_epoch(self, world: World) -> None:
        before, after = world.lease(), world.lease()
        assert await before.acquire("one") == 1
        assert await after.acquire("one") == 2
        assert await before.renew() is False
        assert await after.renew() is True

    async def test_a_released_lease_is_free_at_once(self, world: World) -> None:
        one, other = world.lease(), world.lease()
        assert await one.acquire("one") == 1
        await one.release()
        assert one.held_until == 0.0
        assert await one.renew() is False
        assert await other.acquire("other") == 2
        await one.release()
        assert await other.renew() is True

    async def test_an_expired_lease_that_nobody_took_can_be_renewed(self, world: World) -> None:
        one, other = world.lease(), world.lease()
        assert await one.acquire("one") == 1
        await world.expire_lease()
        assert await one.renew() is True
        assert await other.acquire("other") is None

    async def test_held_until_lies_at_most_one_duration_ahead(self, world: World) -> None:
        lease = world.lease()
        assert lease.held_until == 0.0
        await lease.acquire("one")
        assert 0.0 < lease.held_until - time.monotonic() <= 2.0
        assert await lease.renew() is True
        assert 0.0 < lease.held_until - time.monotonic() <= 2.0

    async def test_a_lease_never_acquired_cannot_be_renewed(self, world: World) -> None:
        assert await world.lease().renew() is False
        await world.lease().release()


ALTERATIONS: list[dict[str, Any]] = [
    {"epoch": 9},
    {"time_ns": 1},
    {"commands": b"other commands"},
    {"commands": b""},
    {"events": b"other events"},
    {"events": b""},
    {"digest": bytes(32)},
    {"prev_hash": bytes(32)},
    {"hash": bytes(32)},
    {"format_version": 2},
    {"rules_version": 2},
]


class DamageContract:
    """Altered, torn and removed frames are refused, at the exact place."""

    @pytest.mark.parametrize("fields", ALTERATIONS, ids="-".join)
    async def test_an_altered_field_is_refused_at_its_frame(self, world: World, fields: dict[str, Any]) -> None:
        frames = chain(4)
        journal = await filled(world, frames)
        await world.overwrite(5, **fields)
        good, error = await corruption(journal)
        assert (error.shard, error.sequence) == (0, 5)
        assert "shard 0, sequence 5" in str(error)
        assert good == frames[:2]

    async def test_one_altered_bit_is_refused_at_its_frame(self, world: World) -> None:
        frames = chain(4)
        journal = await filled(world, frames)
        events = bytearray(frames[2].events)
        events[-1] ^= 1
        await world.overwrite(5, events=bytes(events))
        good, error = await corruption(journal)
        assert (good, error.sequence) == (frames[:2], 5)
        assert "hashes to" in error.difference

    async def test_a_torn_frame_is_refused_at_its_place(self, world: World) -> None:
        frames = chain(3)
        journal = await filled(world, frames)
        await world.overwrite(5, events=frames[2].events[:-5])
        good, error = await corruption(journal)
        assert (good, error.sequence) == (frames[:2], 5)

    async def test_bytes_moved_from_commands_to_events_are_noticed(self, world: World) -> None:
        frames = chain(2)
        journal = await filled(world, frames)
        commands, events = frames[1].commands, frames[1].events
        await world.overwrite(3, commands=commands[:-1], events=commands[-1:] + events)
        assert (await corruption(journal))[1].sequence == 3

    async def test_an_altered_last_sequence_is_refused_at_its_frame(self, world: World) -> None:
        journal = await filled(world, chain(3))
        await world.overwrite(3, last_sequence=9)
        assert (await corruption(journal))[1].sequence == 3

    async def test_a_forged_frame_with_its_own_good_hash_breaks_the_chain_after_it(self, world: World) -> None:
        frames = chain(4)
        journal = await filled(world, frames)
        forged = next_frame(frames[0], commands=2, mark="forged")
        await world.overwrite(3, commands=forged.commands, events=forged.events, digest=forged.digest, hash=forged.hash)
        good, error = await corruption(journal)
        assert error.sequence == 5
        assert "chain breaks" in error.difference
        assert good == [frames[0], replace(forged, time_ns=frames[1].time_ns)]

    @pytest.mark.parametrize("from_sequence", [1, 2, 3, 4, 5, 6])
    async def test_a_removed_frame_is_named_wherever_the_read_begins(self, world: World, from_sequence: int) -> None:
        frames = chain(4)
        journal = await filled(world, frames)
        await world.remove(3)
        good, error = await corruption(journal, from_sequence)
        assert error.sequence == 3
        assert "sequences 3..4 are missing" in str(error)
        assert good == (frames[:1] if from_sequence <= 2 else [])

    @pytest.mark.parametrize("from_sequence", [1, 2, 3])
    async def test_removed_first_frames_are_not_taken_for_archived_ones(self, world: World, from_sequence: int) -> None:
        journal = await filled(world, chain(3))
        await world.remove(1)
        _good, error = await corruption(journal, from_sequence)
        assert error.sequence == 1
        assert "sequences 1..2 are missing" in str(error)

    async def test_removed_last_frames_show_once_a_snapshot_knows_them(self, world: World) -> None:
        frames = chain(3)
        journal = await filled(world, frames)
        await journal.save_snapshot(snapshot_at(frames[2]))
        await world.remove(5)
        with pytest.raises(JournalCorrupt, match=r"sequence 5: the journal ends at 4 .* snapshot was taken at 6"):
            await journal.head()

    async def test_the_head_is_what_is_stored_not_what_was_seen(self, world: World) -> None:
        frames = chain(3)
        journal = await filled(world, frames)
        assert await journal.head() == (6, frames[2].hash)
        await world.remove(5)
        assert await journal.head() == (4, frames[1].hash)

    async def test_frames_in_another_order_are_refused(self, world: World) -> None:
        frames = chain(3)
        journal = await filled(world, frames)
        for place, other in ((3, frames[2]), (5, frames[1])):
            await world.overwrite(
                place, commands=other.commands, events=other.events, digest=other.digest, hash=other.hash
            )
        assert (await corruption(journal))[1].sequence == 3

    async def test_a_read_from_the_middle_checks_the_link_to_the_frame_before(self, world: World) -> None:
        frames = chain(3)
        journal = await filled(world, frames)
        await world.overwrite(3, hash=bytes(32))
        _good, error = await corruption(journal, 5)
        assert error.sequence == 5
        assert "chain breaks" in error.difference


class SnapshotContract:
    """Snapshots and the floor of retention."""

    async def test_the_newest_snapshot_at_or_before_a_sequence_is_found(self, world: World) -> None:
        frames = chain(4)
        journal = await filled(world, frames)
        early, late = snapshot_at(frames[0], state=b"early"), snapshot_at(frames[2], state=b"late")
        await journal.save_snapshot(early)
        await journal.save_snapshot(late)
        assert await journal.latest_snapshot() == late
        assert await journal.latest_snapshot(6) == late
        assert await journal.latest_snapshot(5) == early
        assert await journal.latest_snapshot(1) is None

    async def test_snapshots_are_listed_the_oldest_first(self, world: World) -> None:
        frames = chain(6)
        journal = await filled(world, frames)
        assert await journal.snapshot_sequences() == []
        for place in (3, 0, 5):
            await journal.save_snapshot(snapshot_at(frames[place]))
        assert await journal.snapshot_sequences() == [2, 8, 12]

    async def test_the_same_snapshot_may_be_saved_again(self, world: World) -> None:
        frames = chain(1)
        journal = await filled(world, frames)
        await journal.save_snapshot(snapshot_at(frames[0]))
        await journal.save_snapshot(snapshot_at(frames[0]))
        assert await journal.latest_snapshot() == snapshot_at(frames[0])

    async def test_another_state_for_the_same_sequence_is_refused(self, world: World) -> None:
        frames = chain(1)
        journal = await filled(world, frames)
        await journal.save_snapshot(snapshot_at(frames[0], state_hash="aa" * 32))
        with pytest.raises(JournalCorrupt, match="shard 0, sequence 2: the stored snapshot has the state aaaa"):
            await journal.save_snapshot(snapshot_at(frames[0], state_hash="bb" * 32))

    async def test_a_snapshot_inside_a_frame_is_refused(self, world: World) -> None:
        frames = chain(2)
        journal = await filled(world, frames)
        with pytest.raises(JournalError, match="no frame ends at 3"):
            await journal.save_snapshot(replace(snapshot_at(frames[1]), sequence=3))
        assert await journal.latest_snapshot() is None

    async def test_a_snapshot_of_another_history_is_refused(self, world: World) -> None:
        frames = chain(2)
        journal = await filled(world, frames)
        with pytest.raises(JournalCorrupt, match="sequence 4: the snapshot was taken after frame 0000"):
            await journal.save_snapshot(replace(snapshot_at(frames[1]), frame_hash=bytes(32)))

    async def test_a_snapshot_whose_frame_was_altered_is_refused(self, world: World) -> None:
        frames = chain(2)
        journal = await filled(world, frames)
        await journal.save_snapshot(snapshot_at(frames[1]))
        await world.overwrite(3, hash=bytes(32))
        with pytest.raises(JournalCorrupt, match="sequence 4: the snapshot was taken after frame"):
            await journal.latest_snapshot()

    async def test_archived_frames_raise_the_floor_and_the_rest_still_verifies(self, world: World) -> None:
        frames = chain(5)
        journal = await filled(world, frames)
        await journal.save_snapshot(snapshot_at(frames[1]))
        await world.archive_below(5)
        assert await journal.floor() == 5
        assert await everything(journal.read(5)) == frames[2:]
        assert await everything(journal.read(8)) == frames[3:]
        assert await journal.latest_snapshot() == snapshot_at(frames[1])
        with pytest.raises(BelowFloor) as caught:
            await everything(journal.read(4))
        assert caught.value.floor == 5

    async def test_a_wrong_frame_at_the_floor_is_refused(self, world: World) -> None:
        frames = chain(4)
        journal = await filled(world, frames)
        await journal.save_snapshot(snapshot_at(frames[3]))
        await world.archive_below(5)
        await world.remove(5)
        assert (await corruption(journal, 5))[1].sequence == 5

    async def test_a_journal_archived_to_its_end_keeps_its_head(self, world: World) -> None:
        frames = chain(3)
        journal = await filled(world, frames)
        await journal.save_snapshot(snapshot_at(frames[2]))
        assert await journal.head() == (6, frames[2].hash)
        await world.archive_below(7)
        assert await journal.head() == (6, frames[2].hash)
        assert await everything(journal.read(7)) == []
        assert await journal.latest_snapshot() == snapshot_at(frames[2])
        await journal.append(after := next_frame(frames[2]))
        assert await everything(journal.read(7)) == [after]


class WholeContract(JournalContract, FenceContract, DamageContract, SnapshotContract):
    """All of it."""

"""The journal in memory keeps the whole contract, and its own bound."""

from dataclasses import replace
from typing import Any

import pytest

from exchange.trading.journal.contract import BelowFloor
from exchange.trading.journal.memory import MemoryJournal, MemoryLease, MemoryStore
from tests.unit.journal.contract_suite import WholeContract, everything, filled
from tests.unit.journal.frames import chain, snapshot_at


class MemoryWorld:
    """A store, and a hand on its frames."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    async def journal(self) -> MemoryJournal:
        return MemoryJournal(self.store)

    def lease(self) -> MemoryLease:
        return MemoryLease(self.store)

    async def expire_lease(self) -> None:
        self.store.expires_at = 0.0

    async def overwrite(self, first_sequence: int, **fields: Any) -> None:
        index = self.store.index_of(first_sequence)
        self.store.frames[index] = replace(self.store.frames[index], **fields)

    async def remove(self, first_sequence: int) -> None:
        del self.store.frames[self.store.index_of(first_sequence)]

    async def archive_below(self, floor_sequence: int) -> None:
        self.store.keep_frames = sum(frame.first_sequence >= floor_sequence for frame in self.store.frames)
        self.store.drop_covered()
        self.store.keep_frames = None


class TestMemoryJournal(WholeContract):
    @pytest.fixture
    def world(self) -> MemoryWorld:
        return MemoryWorld()


async def test_a_bounded_store_drops_only_what_a_snapshot_covers() -> None:
    world = MemoryWorld()
    world.store.keep_frames = 2
    frames = chain(6)
    journal = await filled(world, frames[:5])
    assert len(world.store.frames) == 5
    await journal.save_snapshot(snapshot_at(frames[1]))
    assert await journal.floor() == 5
    await journal.save_snapshot(snapshot_at(frames[4]))
    assert [frame.first_sequence for frame in world.store.frames] == [7, 9]
    await journal.append(frames[5])
    assert await everything(journal.read(9)) == frames[4:]


async def test_a_reader_overtaken_by_the_bound_is_told_so() -> None:
    world = MemoryWorld()
    frames = chain(5)
    journal = await filled(world, frames)
    reading = journal.read(1)
    assert await anext(reading) == frames[0]
    await journal.save_snapshot(snapshot_at(frames[4]))
    await world.archive_below(7)
    with pytest.raises(BelowFloor):
        await anext(reading)


async def test_a_lease_runs_on_the_clock_it_is_given() -> None:
    store, now = MemoryStore(), [100.0]
    one = MemoryLease(store, ttl_seconds=2.0, now=lambda: now[0])
    other = MemoryLease(store, ttl_seconds=2.0, now=lambda: now[0])
    assert await one.acquire("one") == 1
    assert one.held_until == 102.0
    now[0] = 101.9
    assert await other.acquire("other") is None
    now[0] = 102.0
    assert await other.acquire("other") == 2

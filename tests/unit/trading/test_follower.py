"""A follower's core between the journal and its link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from exchange.runtime.clock import ManualClock
from exchange.trading import recovery
from exchange.trading.journal.contract import Diverged, Frame
from exchange.trading.journal.memory import MemoryJournal, MemoryStore
from exchange.trading.replication.follower import Follower
from exchange.trading.replication.uplink import Uplink
from tests.unit.trading.histories import resealed
from tests.unit.trading.sequencer_rig import START_NS, Rig, turns


class SlowJournal(MemoryJournal):
    """A memory journal; `meanwhile` runs before a read answers."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def read(self, from_sequence: int, *, to_sequence: int | None = None) -> AsyncIterator[Frame]:
        found = [frame async for frame in super().read(from_sequence, to_sequence=to_sequence)]
        if self.meanwhile is not None:
            await self.meanwhile()
        for frame in found:
            yield frame


async def follower_of(store: MemoryStore) -> tuple[Follower, SlowJournal]:
    """A follower that stands at the head of the store's journal."""
    journal = SlowJournal(store)
    recovered = await recovery.recover(journal)
    uplink = Uplink(ManualClock(START_NS), attended=lambda: ())
    return Follower(recovered, journal, uplink, on_frame=lambda _: None), journal


async def test_a_core_that_goes_on_while_its_place_is_looked_up_stands_where_it_stood() -> None:
    rig = await Rig().start()
    await rig.place("1")
    follower, journal = await follower_of(rig.store)

    async def goes_on() -> None:
        await rig.place("2")
        follower.take([rig.store.frames[-1]])

    journal.meanwhile = goes_on
    await follower.check_place()

    assert follower.committed_sequence == rig.sequencer.committed_sequence


async def test_pushed_frames_are_applied_while_the_journal_does_not_answer() -> None:
    rig = await Rig().start()
    await rig.place("1")
    follower, journal = await follower_of(rig.store)
    answers = asyncio.Event()
    journal.meanwhile = answers.wait
    reading = asyncio.create_task(follower.catch_up())
    await turns()
    for client_order_id in ("2", "3"):
        await rig.place(client_order_id)
        follower.take([rig.store.frames[-1]])
        assert follower.committed_sequence == rig.sequencer.committed_sequence
    answers.set()
    await reading

    assert follower.engine.state_hash() == rig.engine.state_hash()


async def test_a_core_of_another_history_has_no_place() -> None:
    rig = await Rig().start()
    await rig.place("1")
    follower, _ = await follower_of(rig.store)
    rig.store.frames[:] = resealed(rig.store.frames, len(rig.store.frames) - 1, time_ns=START_NS + 1)

    with pytest.raises(Diverged, match="the journal does not hold frame"):
        await follower.check_place()

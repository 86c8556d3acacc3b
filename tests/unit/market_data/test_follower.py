"""The follower: every frame once and in order, from wherever it is connected, and from a snapshot where it must."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from exchange.market_data import events as ev
from exchange.market_data import follower as follower_module
from exchange.market_data.books import Books
from exchange.market_data.follower import Follower, Inconsistent, SourceError, SourceLost
from exchange.runtime.clock import SystemClock
from tests.unit.market_data.engine_history import EngineHistory, assert_equal_books

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator


class FakeSource:
    """Frames that a test writes; `faults` are raised one after the other, once what is there was given."""

    def __init__(self, snapshot: ev.Snapshot) -> None:
        self.frames: list[ev.Batch] = []
        self.snapshots = [snapshot]
        self.faults: list[Exception] = []
        self.asked: list[tuple[int, str]] = []
        self.head_sequence = snapshot.sequence
        self.more = asyncio.Event()

    def push(self, *batches: ev.Batch) -> None:
        self.frames += batches
        self.head_sequence = self.frames[-1].last_sequence
        self.more.set()

    def fail(self, fault: Exception) -> None:
        self.faults.append(fault)
        self.more.set()

    async def snapshot(self) -> ev.Snapshot:
        return self.snapshots.pop(0) if len(self.snapshots) > 1 else self.snapshots[0]

    async def batches(self, sequence: int, token: str) -> AsyncGenerator[list[ev.Batch], None]:
        self.asked.append((sequence, token))
        while True:
            found = [batch for batch in self.frames if batch.first_sequence > sequence]
            for batch in found:
                sequence = batch.last_sequence
                yield [batch]
            if self.faults:
                raise self.faults.pop(0)
            self.more.clear()
            await self.more.wait()


class Rig:
    def __init__(self) -> None:
        self.history = EngineHistory()
        self.source = FakeSource(self.history.snapshot())
        self.follower = Follower(self.source, SystemClock())
        self.books = Books()
        self.heard: list[Any] = []
        self.follower.subscribe(self.books)
        self.follower.subscribe(self)

    def begin(self, snapshot: ev.Snapshot) -> None:
        self.heard.append(("begin", snapshot.sequence))

    def take(self, batch: ev.Batch) -> None:
        self.heard.append((batch.first_sequence, batch.last_sequence))

    def trade(self, frames: int) -> list[ev.Batch]:
        made = []
        for step in range(frames):
            self.history.wish((10, step, step % 2, 4_000 + step % 3, 5, 1))
            self.history.wish((6, 0, 0, 0, 0, 1))
            made.append(self.history.batch())
        return made

    async def reach(self) -> None:
        assert await self.follower.reached(self.history.sequence, 10)
        assert_equal_books(self.history, self.books)


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(follower_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(follower_module, "LONGEST_PAUSE_S", 0.001)
    made = Rig()
    task = asyncio.create_task(made.follower.run())
    yield made
    task.cancel()
    await asyncio.wait([task])


async def test_it_begins_with_a_snapshot_and_goes_on(rig: Rig) -> None:
    begun = rig.history.sequence
    rig.source.push(*rig.trade(5))
    await rig.reach()

    assert rig.heard == [("begin", begun), *((begun + 2 * step + 1, begun + 2 * step + 2) for step in range(5))]
    assert rig.books.verified == 5
    assert rig.follower.history == ("first", 0)
    assert rig.follower.head_sequence == rig.history.sequence
    assert rig.follower.lag_s < 10


async def test_a_broken_stream_is_continued_after_its_last_frame_at_every_point(rig: Rig) -> None:
    for _ in range(6):
        rig.source.push(*rig.trade(1))
        rig.source.fail(SourceError("cut"))
        await rig.reach()
    rig.source.push(*rig.trade(1))
    await rig.reach()

    assert rig.follower.restarts == 1
    assert [sequence for sequence, _ in rig.source.asked] == sorted({sequence for sequence, _ in rig.source.asked})
    assert all(token for _, token in rig.source.asked)
    assert len(rig.heard) == 8


@pytest.mark.parametrize("fault", [SourceLost("HISTORY_CHANGED"), Inconsistent("differs")])
async def test_what_cannot_be_continued_begins_with_a_snapshot(rig: Rig, fault: Exception) -> None:
    rig.source.push(*rig.trade(2))
    await rig.reach()
    missed = rig.trade(3)
    rig.source.snapshots = [rig.history.snapshot()]
    rig.source.fail(fault)
    await rig.reach()

    assert missed
    assert rig.follower.restarts == 2
    assert rig.heard[-1] == ("begin", rig.history.sequence)


async def test_a_gap_is_never_applied(rig: Rig) -> None:
    # Frames that say nothing of markets: only their numbers tell.
    first, lost, last = (msgspec.structs.replace(batch, events=[]) for batch in rig.trade(3))
    rig.source.snapshots = [rig.history.snapshot()]
    rig.source.push(first, last)
    await rig.reach()

    assert (last.first_sequence, last.last_sequence) not in rig.heard
    assert (lost.first_sequence, lost.last_sequence) not in rig.heard
    assert rig.follower.restarts == 2


async def test_a_snapshot_that_lies_behind_is_not_taken(rig: Rig) -> None:
    old = rig.history.snapshot()
    rig.source.push(*rig.trade(2))
    await rig.reach()
    wrong = rig.history.sequence
    rig.trade(1)
    rig.source.snapshots = [old, old, rig.history.snapshot()]
    rig.source.fail(Inconsistent("differs"))
    await rig.reach()

    assert rig.follower.restarts == 2
    assert rig.heard[-1] == ("begin", rig.history.sequence)
    assert rig.history.sequence > wrong


async def test_who_waits_for_a_sequence_that_does_not_come_is_told(rig: Rig) -> None:
    await rig.reach()

    assert not await rig.follower.reached(rig.history.sequence + 1, 0.01)
    assert rig.follower._waiting == []

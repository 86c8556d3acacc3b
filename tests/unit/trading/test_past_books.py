"""Books of the past: at every sequence what a replay to it gives, few at a time, and refused with a reason."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from exchange.runtime.feeds.views import MAX_DEPTH, BookView
from exchange.trading import codec, recovery
from exchange.trading.book_view import view_of
from exchange.trading.core import commands as cmd
from exchange.trading.core.commands import Command
from exchange.trading.core.constants import CANCEL_ONLY, HALTED, OPEN
from exchange.trading.core.engine import Engine
from exchange.trading.journal.contract import Frame
from exchange.trading.journal.memory import MemoryJournal
from exchange.trading.past import books
from exchange.trading.past.answers import PastRefused, Refusal, Why, from_line, to_line
from exchange.trading.past.books import KEPT_BOOKS, MAX_BUILDS, PastBooks, book_at
from tests.unit.trading.histories import flow, journal_of
from tests.unit.trading.sealed import frames_of
from tests.unit.trading.sequencer_rig import turns

pytestmark = pytest.mark.core


def moody_flow(seed: int) -> list[Command]:
    """A market at work whose mode changes now and then."""
    rng = random.Random(seed)
    commands = flow(seed, 160)
    modes = [OPEN, HALTED, OPEN, CANCEL_ONLY]
    for number, place in enumerate(sorted(rng.sample(range(80, len(commands)), 8), reverse=True)):
        mode = modes[number % len(modes)]
        commands.insert(place, cmd.set_market_mode("ops", 0, mode, request_id=f"mode{place}"))
    return commands


def reference(frames: list[Frame]) -> dict[int, BookView | None]:
    """BTCUSD after every sequence, by applying one command after the other; None before the market exists."""
    engine, views = Engine(), {}
    for frame in frames:
        for sequence, command in enumerate(codec.decode_commands(frame.commands), start=frame.first_sequence):
            engine.apply(sequence, frame.time_ns, command)
            index = engine.state.market_index.get("BTCUSD")
            views[sequence] = None if index is None else view_of(engine.state.markets[index], sequence, MAX_DEPTH)
    return views


async def snapshot(journal: MemoryJournal, sequence: int) -> int:
    """Store one at the end of the frame that holds the sequence; answers where."""
    recovered = await recovery.recover(journal, to_sequence=sequence, from_genesis=True)
    await journal.save_snapshot(recovery.take_snapshot(recovered, 0))
    return recovered.engine.state.sequence


async def refusal(journal: MemoryJournal, sequence: int, symbol: str = "BTCUSD") -> Refusal:
    with pytest.raises(PastRefused) as caught:
        await book_at(journal, symbol, sequence)
    return caught.value.refusal


@pytest.mark.parametrize("history", range(4))
async def test_the_book_at_every_sequence_is_that_of_a_replay_to_it(history, seed):
    frames = frames_of(moody_flow(seed + history), seed=history)
    expected = reference(frames)
    journal = journal_of(frames)
    for sequence in random.Random(seed).sample(sorted(expected), history):
        await snapshot(journal, sequence)
    modes = set()
    for sequence, view in expected.items():
        if view is None:
            assert (await refusal(journal, sequence)).why is Why.UNKNOWN_SYMBOL
        else:
            found = await book_at(journal, "BTCUSD", sequence)
            assert found == view
            assert from_line(to_line(found)) == found, "as a child would have told it"
            modes.add(found.mode)
    assert modes == {OPEN, CANCEL_ONLY, HALTED}
    assert any(view.bids.level_count or view.asks.level_count for view in expected.values() if view)


async def test_sequences_that_are_not_there_are_refused_with_what_is():
    frames = frames_of(flow(1))
    journal = journal_of(frames)
    head = frames[-1].last_sequence
    assert await refusal(journal, head + 1) == Refusal(Why.IN_FUTURE, head)
    assert await refusal(journal, 2**63) == Refusal(Why.IN_FUTURE, head)
    assert (await refusal(journal, head, "NONE")).why is Why.UNKNOWN_SYMBOL


async def test_below_the_oldest_snapshot_that_has_its_tail_nothing_is_retained():
    frames = frames_of(flow(1))
    expected = reference(frames)
    journal = journal_of(frames)
    island = await snapshot(journal, frames[10].last_sequence)
    oldest = await snapshot(journal, frames[20].last_sequence)
    journal.store.keep_frames = len(frames) - 21
    journal.store.drop_covered()
    assert await journal.floor() == oldest + 1
    for sequence in (1, island, oldest - 1):
        assert await refusal(journal, sequence) == Refusal(Why.NOT_RETAINED, oldest)
    for sequence in (oldest, oldest + 1, frames[-1].last_sequence):
        assert await book_at(journal, "BTCUSD", sequence) == expected[sequence]


async def test_a_snapshot_alone_is_retained_when_all_frames_are_archived():
    frames = frames_of(flow(1))
    journal = journal_of(frames)
    head = await snapshot(journal, frames[-1].last_sequence)
    journal.store.keep_frames = 0
    journal.store.drop_covered()
    assert await book_at(journal, "BTCUSD", head) == reference(frames)[head]
    assert await refusal(journal, head - 1) == Refusal(Why.NOT_RETAINED, head)


async def test_damage_before_the_sequence_is_refused_and_damage_behind_it_does_no_harm():
    frames = frames_of(flow(1))
    expected = reference(frames)
    journal = journal_of(frames)
    damaged = frames[20]
    journal.store.frames[20] = replace(damaged, events=damaged.events[:-1] + bytes([damaged.events[-1] ^ 1]))
    before = damaged.first_sequence - 1
    assert await book_at(journal, "BTCUSD", before) == expected[before]
    found = await refusal(journal, damaged.last_sequence + 1)
    assert found.why is Why.DAMAGED
    assert f"sequence {damaged.first_sequence}: " in found.text


class CutShort(MemoryJournal):
    """Its reads end early without a word, as those of a database do where the row in question was removed."""

    async def read(self, from_sequence, *, to_sequence=None):
        async for frame in super().read(from_sequence, to_sequence=to_sequence):
            if to_sequence is not None and frame.last_sequence >= to_sequence:
                return
            yield frame


async def test_a_book_whose_frame_was_removed_is_not_the_one_before():
    frames = frames_of(flow(1))
    journal = CutShort(journal_of(frames).store)
    found = await refusal(journal, frames[20].last_sequence)
    assert found.why is Why.DAMAGED
    assert f"sequence {frames[20].first_sequence}: " in found.text


async def test_a_journal_that_is_away_is_refused_as_such():
    journal = journal_of(frames_of(flow(1)))
    await journal.close()
    assert (await refusal(journal, 20)).why is Why.UNAVAILABLE


class Gate:
    """Stands in for the replay: each build waits until it is let through."""

    def __init__(self, monkeypatch):
        self.started: list[int] = []
        self.open = asyncio.Event()
        self.original = book_at
        monkeypatch.setattr(books, "book_at", self._book_at)

    async def _book_at(self, journal, symbol, sequence):
        self.started.append(sequence)
        await self.open.wait()
        return await self.original(journal, symbol, sequence)


async def test_few_books_are_built_at_a_time_and_more_are_refused(monkeypatch):
    gate = Gate(monkeypatch)
    past = PastBooks(journal_of(frames_of(flow(1))))
    asking = [asyncio.create_task(past.book("BTCUSD", 20 + number)) for number in range(MAX_BUILDS)]
    same = asyncio.create_task(past.book("BTCUSD", 20))
    await turns()
    with pytest.raises(PastRefused) as caught:
        await past.book("BTCUSD", 90)
    assert caught.value.refusal.why is Why.BUSY
    gate.open.set()
    found = await asyncio.gather(*asking, same)
    assert found[0] is found[-1], "who asks for a book that is being built waits for it"
    assert gate.started == [20, 21]
    assert (await past.book("BTCUSD", 90)).sequence == 90


async def test_a_build_goes_on_when_its_caller_leaves_and_is_found_by_the_next(monkeypatch):
    gate = Gate(monkeypatch)
    past = PastBooks(journal_of(frames_of(flow(1))))
    leaving = asyncio.create_task(past.book("BTCUSD", 20))
    await turns()
    assert gate.started == [20]
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.open.set()
    assert (await past.book("BTCUSD", 20)).sequence == 20
    assert gate.started == [20]


async def test_a_build_that_takes_too_long_is_given_up(monkeypatch):
    Gate(monkeypatch)
    monkeypatch.setattr(books, "MAX_BUILD_S", 0.01)
    past = PastBooks(journal_of(frames_of(flow(1))))
    with pytest.raises(PastRefused) as caught:
        await past.book("BTCUSD", 20)
    assert caught.value.refusal.why is Why.BUSY


async def test_the_last_books_are_kept_and_no_more_than_a_few():
    journal = journal_of(frames_of(flow(1)))
    past = PastBooks(journal)
    first = await past.book("BTCUSD", 20)
    for sequence in range(21, 20 + KEPT_BOOKS):
        await past.book("BTCUSD", sequence)
    assert await past.book("BTCUSD", 20) is first
    await past.book("BTCUSD", 100)
    await journal.close()
    assert await past.book("BTCUSD", 20) is first, "it was asked for later than others"
    with pytest.raises(PastRefused):
        await past.book("BTCUSD", 21)


async def test_a_refusal_is_not_kept():
    journal = journal_of(frames_of(flow(1)))
    whole = journal.store.frames[20]
    past = PastBooks(journal)
    journal.store.frames[20] = replace(whole, hash=bytes(32))
    with pytest.raises(PastRefused):
        await past.book("BTCUSD", whole.last_sequence)
    journal.store.frames[20] = whole
    assert (await past.book("BTCUSD", whole.last_sequence)).sequence == whole.last_sequence

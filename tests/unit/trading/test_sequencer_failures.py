"""What the sequencer promises when the journal or the core fails: no wrong answer, nobody left waiting."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from exchange.trading.core.events import R_SEQUENCE
from exchange.trading.journal.contract import Fenced, Frame, JournalUnavailable
from exchange.trading.seat import Stalled, Stopped
from exchange.trading.sequencer import Committed, SequencerLimits
from tests.integration.journal.waiting import until
from tests.unit.trading.sequencer_rig import FaultyEngine, Rig, order, turns

pytestmark = pytest.mark.core

BROKEN = AssertionError("the book is crossed")
SHORT = SequencerLimits(stall_refuse_s=1.0, stall_fail_s=0.02)


def faulty(error: Exception = BROKEN) -> Callable[[Any], Any]:
    """The engine breaks at commands of the account `maker`."""
    return lambda engine: FaultyEngine(engine, "maker", error)


async def faulty_rig(error: Exception = BROKEN) -> Rig:
    rig = await Rig().start()
    rig.sequencer.stop()
    return await rig.start(faulty(error))


@pytest.mark.parametrize("error", [Fenced("epoch 1 is no longer ours"), JournalUnavailable("closed"), OSError("?")])
async def test_a_failed_append_stops_the_leader_and_publishes_nothing(error):
    rig = await Rig().start()
    rig.journal.holding = True
    committing = rig.place("a")
    await until(rig.appending)
    applied = rig.place("b")
    await turns()
    queued = rig.place("c")
    reader = asyncio.ensure_future(rig.sequencer.reached(rig.engine.state.sequence))
    await turns(1)
    rig.journal.fail(error)
    for waiting in (committing, applied, queued, reader):
        with pytest.raises(Stopped):
            await waiting
    assert rig.sequencer.failure.exception() is error
    assert rig.published == []
    assert len(rig.journal.begun) == 1
    with pytest.raises(Stopped):
        rig.place("d")
    with pytest.raises(Stopped):
        await rig.sequencer.reached(rig.engine.state.sequence)
    assert rig.sequencer.queue_depth == 0
    await turns()
    assert rig.noise == []


async def test_an_unknown_outcome_that_landed_is_answered_once_by_the_next_leader():
    rig = await Rig().start()
    rig.journal.holding = True
    future = rig.place("a")
    await until(rig.appending)
    sequence = rig.journal.begun[0].first_sequence
    await rig.journal.land_and_fail(JournalUnavailable("the connection broke"))
    with pytest.raises(Stopped):
        await future
    await rig.start()
    assert (await rig.place("a"))[0][R_SEQUENCE] == sequence
    assert rig.journal.begun == []
    orders = rig.engine.state.accounts["demo"].orders
    assert len(orders) == 1


async def test_what_was_applied_but_not_durable_is_gone_after_the_next_recovery():
    rig = await Rig().start()
    rig.journal.holding = True
    rig.place("a")
    await until(rig.appending)
    rig.journal.fail(JournalUnavailable("nothing landed"))
    await until(rig.sequencer.failure.done)
    assert rig.sequencer.failure.exception() is not None
    await rig.start()
    assert rig.engine.state.accounts["demo"].placed == {}


async def stalled_rig() -> Rig:
    """One order being committed, one applied behind it, and a journal that does not answer."""
    rig = await Rig(SHORT).start()
    rig.journal.holding = True
    rig.waiting = [rig.place("a")]
    await until(rig.appending)
    rig.waiting.append(rig.place("b"))
    await turns()
    rig.journal.stalled_at = rig.clock.monotonic()
    return rig


async def test_a_stall_is_accepted_for_a_while_then_refused():
    rig = await stalled_rig()
    rig.clock.advance(0.9)
    rig.place("still taken")
    rig.clock.advance(0.2)
    with pytest.raises(Stalled):
        rig.place("refused")
    assert rig.engine.state.accounts["demo"].placed.keys() <= {"a", "b"}


async def test_a_stall_fails_those_who_wait_and_resumes_with_nothing_doubled():
    rig = await stalled_rig()
    first, second = rig.waiting
    barrier = rig.sequencer.barrier()
    assert barrier is not None
    rig.clock.advance(3.0)
    for waiting in (first, second, barrier):
        with pytest.raises(Stalled):
            await waiting
    assert rig.sequencer.queue_depth == 0
    assert rig.published == []
    with pytest.raises(Stalled):
        rig.place("a")
    rig.journal.stalled_at = None
    rig.journal.holding = False
    rig.journal.commit()
    results = [(await rig.place(name))[0] for name in ("a", "b", "c")]
    first_sequence = rig.journal.begun[0].first_sequence
    assert [result[R_SEQUENCE] for result in results] == [first_sequence + offset for offset in range(3)]
    await until(lambda: len(rig.events) == 3)
    assert not rig.sequencer.failure.done()
    assert (await rig.recovered()).engine.state_hash() == rig.engine.state_hash()


async def test_readers_during_a_stall_are_told_so_again_and_again():
    rig = await stalled_rig()
    rig.clock.advance(3.0)
    for _ in range(3):
        barrier = rig.sequencer.barrier()
        assert barrier is not None
        with pytest.raises(Stalled):
            await asyncio.wait_for(barrier, 5.0)


async def test_drain_gives_up_on_a_journal_that_does_not_answer():
    rig = await stalled_rig()
    rig.clock.advance(3.0)
    await until(lambda: rig.sequencer.queue_depth == 0)
    with pytest.raises(Stalled):
        await asyncio.wait_for(rig.sequencer.drain(), 5.0)


@pytest.mark.parametrize("error", [BROKEN, IndexError("list index out of range")])
async def test_a_broken_invariant_publishes_nothing_of_its_frame(error):
    rig = await faulty_rig(error)
    before = rig.sequencer.committed_sequence
    good, bad = rig.place("good"), rig.place("bad", account="maker")
    behind = rig.place("behind")
    for future in (good, bad, behind):
        with pytest.raises(Stopped):
            await asyncio.wait_for(future, 5.0)
    assert rig.sequencer.failure.exception() is error
    await turns()
    assert rig.journal.begun == []
    assert rig.published == []
    assert rig.store.head()[0] == before
    assert rig.sequencer.queue_depth == 0


async def test_a_broken_invariant_behind_a_commit_does_not_let_its_frame_out_later():
    rig = await faulty_rig()
    rig.journal.holding = True
    committing = rig.place("committing")
    await until(rig.appending)
    futures = [committing, rig.place("good"), rig.place("bad", account="maker")]
    for future in futures:
        with pytest.raises(Stopped):
            await asyncio.wait_for(future, 5.0)
    rig.journal.commit()
    await turns()
    assert len(rig.journal.begun) == 1
    assert rig.published == []


async def test_a_broken_invariant_in_apply_now_stops_the_leader():
    rig = await faulty_rig()
    bad = rig.place("bad", account="maker")
    rig.sequencer.apply_now()
    with pytest.raises(Stopped):
        await asyncio.wait_for(bad, 5.0)
    assert rig.sequencer.failure.exception() is BROKEN
    await turns()
    assert rig.journal.begun == []


async def test_a_broken_invariant_while_a_frame_is_paced_stops_the_leader():
    rig = await faulty_rig()
    for number in range(400):
        rig.place(f"{number}")
    await turns()
    rig.clock.advance(0.101)
    await rig.place("now it is dense")
    await until(lambda: rig.sequencer.queue_depth == 0)
    frames = len(rig.journal.begun)
    futures = [rig.place("good")]
    await turns()
    futures.append(rig.place("bad", account="maker"))
    for future in futures:
        with pytest.raises(Stopped):
            await asyncio.wait_for(future, 5.0)
    assert rig.sequencer.failure.exception() is BROKEN
    await asyncio.sleep(0.01)
    assert len(rig.journal.begun) == frames


async def test_a_reader_of_events_that_fails_stops_the_leader():
    rig = await Rig().start()
    error = KeyError("a sink")

    def fail(_committed: Committed, _frame: Frame) -> None:
        raise error

    rig.sequencer._on_commit = fail
    rig.place("a")
    await until(rig.sequencer.failure.done)
    assert rig.sequencer.failure.exception() is error


async def test_stop_fails_what_waits_and_leaves_the_append_alone():
    rig = await Rig().start()
    rig.journal.holding = True
    future = rig.place("a")
    await until(rig.appending)
    rig.place("never appended")
    await turns()
    rig.sequencer.stop()
    rig.sequencer.stop()
    with pytest.raises(Stopped):
        await future
    rig.journal.commit()
    await until(lambda: rig.store.head()[0] == rig.journal.begun[0].last_sequence)
    await turns()
    assert len(rig.journal.begun) == 1
    assert rig.published == []
    await rig.sequencer.failure
    assert rig.noise == []


async def test_a_deposed_leader_appends_nothing_after_a_successor():
    rig = await Rig().start()
    old, old_journal = rig.sequencer, rig.journal
    await rig.start()
    await rig.place("new")
    lost = old.submit([order("old")])
    with pytest.raises(Stopped):
        await lost
    assert isinstance(old.failure.exception(), Fenced)
    assert len(old_journal.begun) == 1
    recovered = await rig.recovered()
    assert recovered.engine.state.accounts["demo"].placed.keys() == {"new"}

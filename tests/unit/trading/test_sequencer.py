"""What the sequencer promises while all is well: order, durability before answers, bounds."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest
import pytest_asyncio

from exchange.trading.core.events import R_ORDER_ID, R_REASON, R_SEQUENCE
from exchange.trading.core.reasons import DUPLICATE_ID
from exchange.trading.seat import Overloaded
from exchange.trading.sequencer import SequencerLimits
from tests.integration.journal.waiting import until
from tests.unit.trading.sequencer_rig import Rig, order, turns

pytestmark = pytest.mark.core


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    made = await Rig().start()
    yield made
    made.sequencer.stop()
    await turns()
    assert made.noise == []


async def test_nothing_leaves_before_the_commit(rig):
    rig.journal.holding = True
    future = rig.place("a")
    barrier = asyncio.ensure_future(rig.sequencer.reached(rig.engine.state.sequence + 1))
    await until(rig.appending)
    await turns()
    assert not future.done()
    assert not barrier.done()
    assert rig.published == []
    rig.journal.commit()
    result = (await future)[0]
    await barrier
    assert result[R_REASON] == 0
    assert [frame.last_sequence for frame in rig.published] == [result[R_SEQUENCE]]


async def test_results_and_events_come_in_the_order_of_submission(rig):
    rng = random.Random(1)
    futures = []
    finished = []
    for batch in range(60):
        commands = [order(f"{batch}-{number}") for number in range(rng.randint(1, 5))]
        future = rig.sequencer.submit(commands)
        future.add_done_callback(lambda _, batch=batch: finished.append(batch))
        futures.append(future)
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    results = [result for future in futures for result in await future]
    sequences = [result[R_SEQUENCE] for result in results]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    await until(lambda: len(finished) == 60)
    assert finished == list(range(60))
    await until(lambda: rig.published[-1].last_sequence == sequences[-1])
    spans = [(frame.first_sequence, frame.last_sequence) for frame in rig.published]
    assert all(one[1] + 1 == two[0] for one, two in pairwise(spans))
    assert [event[1] for event in rig.events] == [result[R_ORDER_ID] for result in results]
    assert (await rig.recovered()).engine.state_hash() == rig.engine.state_hash()


async def test_the_next_frame_is_applied_while_one_commits(rig):
    rig.journal.holding = True
    before = rig.engine.state.sequence
    first = rig.place("a")
    await until(lambda: len(rig.journal.begun) == 1)
    later = [rig.place("b"), rig.place("c")]
    await until(lambda: rig.engine.state.sequence == before + 3)
    await turns()
    assert len(rig.journal.begun) == 1
    assert rig.sequencer.committed_sequence == before
    rig.journal.commit()
    await first
    await until(lambda: len(rig.journal.begun) == 2)
    one, two = rig.journal.begun
    assert (two.first_sequence, two.last_sequence) == (before + 2, before + 3)
    assert two.prev_hash == one.hash
    assert not any(future.done() for future in later)
    rig.journal.commit()
    await asyncio.gather(*later)


async def test_a_repeat_of_an_uncommitted_command_waits_for_its_commit(rig):
    rig.journal.holding = True
    first = rig.place("a")
    await until(rig.appending)
    repeat = rig.place("a")
    other_body = rig.place("a", lots=7)
    await turns()
    assert not first.done()
    assert not repeat.done()
    assert not other_body.done()
    rig.journal.commit()
    results = [(await future)[0] for future in (first, repeat, other_body)]
    assert results[0] == results[1]
    assert results[2][R_REASON] == DUPLICATE_ID
    assert len(rig.journal.begun) == 1
    assert rig.sequencer.queue_depth == 0


async def test_a_repeat_within_one_submission_applies_once(rig):
    results = await rig.sequencer.submit([order("a"), order("a")])
    assert results[0] == results[1]
    assert rig.journal.begun[0].first_sequence == rig.journal.begun[0].last_sequence


async def test_a_repeat_of_a_durable_command_is_answered_without_a_frame(rig):
    first = await rig.place("a")
    rig.journal.holding = True
    assert await rig.place("a") == first
    assert len(rig.journal.begun) == 1


async def test_a_barrier_waits_for_what_the_core_has_applied(rig):
    assert rig.sequencer.barrier() is None
    rig.journal.holding = True
    rig.place("a")
    await until(rig.appending)
    barrier = rig.sequencer.barrier()
    assert barrier is not None
    await turns()
    assert not barrier.done()
    rig.journal.commit()
    await barrier
    assert rig.sequencer.barrier() is None


async def test_reached_waits_for_each_sequence_by_itself(rig):
    head = rig.sequencer.committed_sequence
    await rig.sequencer.reached(head)
    waits = [asyncio.ensure_future(rig.sequencer.reached(head + ahead)) for ahead in (2, 1)]
    await rig.place("a")
    await until(waits[1].done)
    assert not waits[0].done()
    await rig.place("b")
    await until(waits[0].done)


async def test_readers_of_a_future_sequence_who_give_up_leave_nothing_behind(rig):
    for _ in range(500):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(rig.sequencer.reached(1_000_000_000), 0)
        wait = asyncio.ensure_future(rig.sequencer.reached(1_000_000_000))
        await asyncio.sleep(0)
        wait.cancel()
    await turns()
    assert len(rig.sequencer._sequence_waiters) < 50


async def test_the_queue_is_bounded_and_frees_itself():
    rig = await Rig(SequencerLimits(max_queued_commands=30)).start()
    rig.journal.holding = True
    futures = [rig.sequencer.submit([order(f"{batch}-{number}") for number in range(10)]) for batch in range(3)]
    with pytest.raises(Overloaded):
        rig.place("too many")
    assert rig.sequencer.queue_depth == 30
    await until(rig.appending)
    with pytest.raises(Overloaded):
        rig.place("too many")
    rig.journal.holding = False
    rig.journal.commit()
    await asyncio.gather(*futures)
    assert rig.sequencer.queue_depth == 0
    await rig.place("room again")


async def test_frames_are_bounded_and_lose_nothing():
    rig = await Rig(SequencerLimits(max_frame_commands=4)).start()
    results = await asyncio.gather(*(rig.place(f"{number}") for number in range(50)))
    assert max(frame.last_sequence - frame.first_sequence + 1 for frame in rig.journal.begun) <= 4
    sequences = [result[0][R_SEQUENCE] for result in results]
    assert sequences == list(range(sequences[0], sequences[0] + 50))


async def test_apply_now_lets_the_core_be_asked_and_answers_no_sooner(rig):
    rig.journal.holding = True
    future = rig.place("a")
    rig.sequencer.apply_now()
    assert rig.engine.state.accounts["demo"].placed["a"][R_REASON] == 0
    assert not future.done()
    await until(rig.appending)
    assert not future.done()
    rig.journal.commit()
    await future


async def test_a_caller_who_leaves_does_not_undo_the_command(rig):
    rig.journal.holding = True
    waiting, gone = rig.place("a"), rig.place("b")
    gone.cancel()
    await until(rig.appending)
    rig.journal.commit()
    await waiting
    assert rig.sequencer.queue_depth == 0
    assert "b" in (await rig.recovered()).engine.state.accounts["demo"].placed


def note(served: list[str], name: str) -> Callable[[object], None]:
    return lambda _: served.append(name)


async def test_callers_are_served_in_turn_however_much_one_sends():
    """A caller with one command waits behind what came before it, not behind what a flood sends after it."""
    rig = await Rig(SequencerLimits(max_frame_commands=100)).start()
    served: list[str] = []
    for number in range(300):
        rig.place(f"flood-{number}").add_done_callback(note(served, f"flood-{number}"))
        if number % 100 == 50:
            rig.place(f"lone-{number}", account="maker").add_done_callback(note(served, f"lone-{number}"))
    await until(lambda: len(served) == 303)
    assert [served.index(f"lone-{number}") for number in (50, 150, 250)] == [51, 152, 253]


async def test_a_lone_order_is_never_paced(rig):
    for number in range(20):
        rig.clock.advance(0.2)
        future = rig.place(f"{number}")
        await turns()
        assert future.done()


async def test_dense_arrivals_share_paced_frames(rig, monkeypatch):
    # Longer than a busy machine takes for a few turns of the loop.
    monkeypatch.setattr("exchange.trading.sequencer.FRAME_INTERVAL_S", 0.3)
    for number in range(400):
        rig.place(f"{number}")
    await turns()
    rig.clock.advance(0.101)
    rig.place("now it is dense")
    await until(lambda: rig.sequencer.queue_depth == 0)
    frames = len(rig.journal.begun)
    early = rig.place("early")
    await turns()
    late = rig.place("late")
    await turns()
    assert len(rig.journal.begun) == frames
    await asyncio.gather(early, late)
    assert len(rig.journal.begun) == frames + 1


async def test_drain_returns_when_all_is_durable(rig):
    rig.journal.holding = True
    rig.place("a")
    drained = asyncio.ensure_future(rig.sequencer.drain())
    await until(rig.appending)
    rig.place("b")
    rig.journal.commit()
    await until(lambda: len(rig.journal.begun) == 2)
    assert not drained.done()
    rig.journal.commit()
    await drained
    assert rig.sequencer.committed_sequence == rig.engine.state.sequence

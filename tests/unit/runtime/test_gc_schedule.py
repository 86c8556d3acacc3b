"""When the oldest generation is collected."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from exchange.runtime.clock import ManualClock
from exchange.runtime.gc_schedule import GcSchedule
from exchange.runtime.metrics import render


class Cycle:
    def __init__(self) -> None:
        self.me = self


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.quiet = True
        self.registry = CollectorRegistry()
        self.schedule = GcSchedule(
            is_quiet=lambda: self.quiet,
            registry=self.registry,
            interval_seconds=10,
            max_wait_seconds=100,
            clock=self.clock,
        )

    def pauses(self, generation: int) -> float:
        return self.registry.get_sample_value("gc_pause_seconds_count", {"generation": str(generation)}) or 0.0


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.schedule.stop()


def test_start_freezes_and_stop_gives_everything_back(bench):
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    bench.schedule.start()
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[:2] == thresholds[:2]
    assert gc.get_threshold()[2] > 1_000_000_000
    callbacks = len(gc.callbacks)
    bench.schedule.start()
    assert len(gc.callbacks) == callbacks
    bench.schedule.stop()
    assert gc.get_threshold() == thresholds
    assert gc.get_freeze_count() == frozen == 0
    bench.schedule.stop()


def test_garbage_waits_for_a_quiet_moment(bench):
    bench.schedule.start()
    cycle = Cycle()
    gone = weakref.ref(cycle)
    gc.collect(1)
    del cycle
    bench.clock.advance(9.9)
    assert not bench.schedule.tick()
    bench.quiet = False
    bench.clock.advance(0.2)
    assert not bench.schedule.tick()
    assert gone() is not None
    bench.quiet = True
    assert bench.schedule.tick()
    assert gone() is None
    assert not bench.schedule.tick()


def test_without_quiet_it_is_forced_in_the_end_and_said(bench):
    bench.schedule.start()
    bench.quiet = False
    bench.clock.advance(109)
    assert not bench.schedule.tick()
    bench.clock.advance(1.1)
    with structlog.testing.capture_logs() as lines:
        assert bench.schedule.tick()
    assert lines[0]["log_level"] == "warning"


def test_before_the_start_nothing_is_collected(bench):
    bench.clock.advance(1_000)
    assert not bench.schedule.tick()


def test_pauses_are_counted_by_generation(bench):
    bench.schedule.start()
    before = bench.pauses(2)
    assert before == 1
    gc.collect(0)
    gc.collect(2)
    assert bench.pauses(0) >= 1
    assert bench.pauses(2) == before + 1
    assert bench.schedule.pauses.longest_seconds > 0
    text = render(bench.registry).decode()
    assert 'gc_pause_seconds_bucket{generation="2",le="+Inf"} 2.0' in text


async def test_the_task_ticks_until_it_is_cancelled(bench):
    bench.schedule.start()
    bench.clock.advance(11)
    asked = asyncio.Event()

    def is_quiet() -> bool:
        asked.set()
        return True

    bench.schedule._is_quiet = is_quiet
    task: asyncio.Task[Any] = asyncio.create_task(bench.schedule.run(poll_seconds=0.001))
    async with asyncio.timeout(5):
        await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_what_many_objects_would_make_long_is_frozen_unseen(bench):
    bench.schedule.start()
    before, frozen = bench.pauses(2), gc.get_freeze_count()
    kept = [[number] for number in range(100_000)]
    bench.clock.advance(11)
    assert bench.schedule.tick()
    assert bench.pauses(2) == before
    assert gc.get_freeze_count() > frozen + len(kept) // 2
    bench.clock.advance(11)
    assert bench.schedule.tick()
    assert bench.pauses(2) == before + 1

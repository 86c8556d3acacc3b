"""Clocks."""

import pytest

from exchange.runtime.clock import Clock, ManualClock, SystemClock


def test_the_systems_clock_goes_on():
    clock: Clock = SystemClock()
    assert clock.time_ns() > 1_700_000_000_000_000_000
    assert clock.monotonic() <= clock.monotonic()


def test_a_manual_clock_stands_until_it_is_moved():
    clock: Clock = ManualClock(time_ns=1_000)
    assert isinstance(clock, ManualClock)
    assert (clock.time_ns(), clock.monotonic()) == (1_000, 0.0)
    clock.advance(1.5)
    assert (clock.time_ns(), clock.monotonic()) == (1_500_001_000, 1.5)


def test_the_wall_clock_may_step_back_but_monotonic_time_never_does():
    clock = ManualClock()
    clock.advance(5)
    clock.set_time_ns(7)
    assert (clock.time_ns(), clock.monotonic()) == (7, 5.0)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-0.1)

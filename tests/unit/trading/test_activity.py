"""Who placed, took back and traded how much: a window that slides in steps, and says how far back it reaches."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.runtime.clock import ManualClock
from exchange.trading.core import commands as cmd
from exchange.trading.limits import activity as module
from exchange.trading.limits.activity import Activity
from exchange.trading.sequencer import Committed
from tests.unit.core.desk import Desk

SECOND = 1_000_000_000


class Watched:
    """A desk whose frames an activity sees as they become durable."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.activity = Activity(self.clock, **options)
        self.desk = Desk()

    def say(self, text: str, **more: Any) -> None:
        self.desk.time = self.clock.time_ns()
        self.desk.say(text, **more)
        self._publish()

    def send(self, command: cmd.Command) -> None:
        self.desk.time = self.clock.time_ns()
        self.desk.send(command)
        self._publish()

    def _publish(self) -> None:
        sequence = self.desk.engine.state.sequence
        self.activity.frame(Committed(sequence, sequence, self.clock.time_ns(), b"", [self.desk.events]))

    def busy(self, window_s: int = 300, more_than: int = 0) -> dict[str, tuple[int, int, int]]:
        found = self.activity.busy(window_s, more_than)
        return {row.account: (row.placed, row.cancelled, row.filled) for row in found}


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_orders_cancels_and_executions_are_counted_by_account(watched: Watched) -> None:
    watched.say("ann buy 5 @ 100 as x")
    watched.say("ann buy 5 @ 99 as y")
    watched.say("bob sell 7 @ 99")
    watched.say("ann reduce y by 3")
    watched.say("bob sell 1 @ 120 as z")
    watched.say("bob cancel z")
    assert watched.busy() == {"ann": (2, 1, 2), "bob": (2, 1, 2)}


def test_what_an_account_did_not_take_back_itself_is_no_cancel(watched: Watched) -> None:
    watched.say("ann buy 5 @ 100 ioc")
    watched.say("ann buy 5 @ 100 as x")
    watched.send(cmd.mass_cancel("operator", "ann"))
    assert watched.busy() == {"ann": (2, 0, 0)}


def test_a_refused_order_was_not_placed(watched: Watched) -> None:
    watched.say("ann buy 5 @ 0")
    assert watched.busy() == {}


def test_an_account_that_trades_with_itself_took_part_once(watched: Watched) -> None:
    watched.say("ann buy 5 @ 100")
    watched.say("ann sell 5 @ 100")
    assert watched.busy() == {"ann": (2, 0, 1)}


def test_stop_orders_that_wake_and_orders_that_expire_are_not_placed_again(watched: Watched) -> None:
    watched.say("ann buy 1 stop 105")
    watched.say(f"cy sell 2 @ 105 gtd={watched.clock.time_ns() + SECOND}")
    watched.say("dee buy 1 @ 105")
    watched.clock.advance(2)
    watched.send(cmd.tick())
    assert watched.busy() == {"ann": (1, 0, 1), "cy": (1, 0, 2), "dee": (1, 0, 1)}


def test_only_those_above_the_threshold_are_told_the_busiest_first(watched: Watched) -> None:
    for account, orders in (("bob", 3), ("ann", 3), ("cy", 5), ("dee", 1)):
        for _ in range(orders):
            watched.say(f"{account} buy 1 @ 50")
    assert list(watched.busy(more_than=1)) == ["cy", "ann", "bob"]
    assert list(watched.busy(more_than=3)) == ["cy"]
    assert watched.busy(more_than=5) == {}


def test_the_window_slides(watched: Watched) -> None:
    watched.say("ann buy 1 @ 50")
    watched.clock.advance(295)
    watched.say("ann buy 1 @ 50")
    assert watched.busy(300) == {"ann": (2, 0, 0)}
    assert watched.busy(10) == {"ann": (1, 0, 0)}
    watched.clock.advance(20)
    assert watched.busy(300) == {"ann": (1, 0, 0)}
    watched.clock.advance(400)
    assert watched.busy(300) == {}
    assert watched.busy(3_600) == {"ann": (2, 0, 0)}


def test_it_keeps_an_hour_and_no_more(watched: Watched) -> None:
    for _ in range(800):
        watched.say("ann buy 1 @ 50")
        watched.clock.advance(module.STEP_S)
    assert len(watched.activity._steps) == module.MAX_WINDOW_S // module.STEP_S + 1
    placed = watched.busy(module.MAX_WINDOW_S)["ann"][0]
    assert placed == module.MAX_WINDOW_S // module.STEP_S


def test_it_says_how_far_back_it_has_seen(watched: Watched) -> None:
    assert watched.activity.seen_ns(300) == 0
    watched.clock.advance(70)
    assert watched.activity.seen_ns(300) == 70 * SECOND
    watched.clock.advance(500)
    assert watched.activity.seen_ns(300) == 300 * SECOND
    watched.say("ann buy 1 @ 50")
    watched.activity.reset()
    assert watched.activity.seen_ns(300) == 0
    assert watched.busy() == {}


def test_rows_are_bounded_the_oldest_step_goes_and_it_says_so() -> None:
    watched = Watched(most_rows=4)
    for step in range(4):
        for account in ("ann", "bob"):
            watched.say(f"{account} buy 1 @ 50")
        if step < 3:
            watched.clock.advance(module.STEP_S)
    assert watched.busy(300) == {"ann": (2, 0, 0), "bob": (2, 0, 0)}
    # The start of the newest step but one, which is the oldest that is left.
    assert watched.activity.seen_ns(300) == watched.clock.time_ns() % (10 * SECOND) + 10 * SECOND
    assert sum(step.rows for step in watched.activity._steps) == 4


def test_a_step_alone_may_be_larger_than_all_may_be() -> None:
    watched = Watched(most_rows=1)
    for account in ("ann", "bob", "cy"):
        watched.say(f"{account} buy 1 @ 50")
    assert set(watched.busy()) == {"ann", "bob", "cy"}

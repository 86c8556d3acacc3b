"""Time is the larger of the last time and the clock; what is due runs before the command."""

import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core.events import R_TIME
from tests.unit.core.desk import Desk, lines, reason_of

pytestmark = pytest.mark.core


def test_a_clock_that_goes_backwards_does_not_turn_time_back() -> None:
    desk = Desk()
    desk.time = 1_000
    assert desk.say("ann buy 1 @ 100 as x")[R_TIME] == 1_000
    desk.time = 400
    assert desk.say("ann buy 1 @ 100 as y")[R_TIME] == 1_000
    assert desk.order("y").created_ns == 1_000
    desk.time = 1_001
    assert desk.say("ann cancel x")[R_TIME] == 1_001


def test_an_order_expires_at_its_time_and_not_before() -> None:
    desk = Desk()
    desk.time = 100
    desk.say("ann buy 5 @ 100 gtd=200 as x")
    desk.time = 199
    desk.send(cmd.tick())
    assert desk.told() == ""
    assert desk.engine.due_ns() == 200
    desk.time = 200
    desk.send(cmd.tick())
    assert desk.told() == "cancelled ann buy 5 expired"
    assert desk.engine.due_ns() == -1


def test_due_orders_expire_before_the_command_that_brings_the_time() -> None:
    desk = Desk()
    desk.say("ann buy 5 @ 100 gtd=200")
    desk.say("cy buy 5 @ 99")
    desk.time = 200
    desk.say("bob sell 5 @ 99")
    assert lines(desk.told()) == lines("""
        cancelled ann buy 5 expired
        accepted bob sell @ 99 rests 0
        trade 5 @ 99 cy -> bob
    """)


def test_orders_expire_by_time_then_age() -> None:
    desk = Desk()
    for text in ("buy 1 @ 100 gtd=300", "buy 2 @ 100 gtd=200", "buy 3 @ 100 gtd=300", "buy 4 @ 100 gtd=100"):
        desk.say(f"ann {text}")
    desk.time = 300
    desk.send(cmd.tick())
    assert [line.split()[3] for line in desk.told().splitlines()] == ["4", "2", "1", "3"]


def test_a_clock_that_jumps_back_expires_nothing_early_and_nothing_twice() -> None:
    desk = Desk()
    desk.time = 150
    desk.say("ann buy 1 @ 100 gtd=200")
    desk.time = 50
    assert reason_of(desk.say("ann buy 1 @ 100 gtd=150")) == "EXPIRE_TIME_PASSED"
    desk.send(cmd.tick())
    assert desk.told() == ""


def test_an_order_whose_time_has_passed_is_refused() -> None:
    desk = Desk()
    desk.time = 100
    assert reason_of(desk.say("ann buy 1 @ 100 gtd=99")) == "EXPIRE_TIME_PASSED"
    assert reason_of(desk.say("ann buy 1 @ 100 gtd=100")) == "EXPIRE_TIME_PASSED"
    assert reason_of(desk.say("ann buy 1 @ 100 gtd=101")) == "DONE"


def test_an_order_that_was_partly_filled_expires_with_what_is_left() -> None:
    desk = Desk()
    desk.say("ann buy 5 @ 100 gtd=200 as x")
    desk.say("bob sell 2 @ 100")
    desk.time = 200
    desk.send(cmd.tick())
    assert desk.told() == "cancelled ann buy 3 expired"
    assert desk.order("x").lots_filled == 2


def test_a_tick_is_due_for_open_orders_only() -> None:
    desk = Desk()
    desk.say("ann buy 5 @ 100 gtd=200 as x")
    desk.say("ann buy 5 @ 100 gtd=300 as y")
    desk.say("ann cancel x")
    assert desk.engine.due_ns() == 300
    desk.say("ann cancel y")
    assert desk.engine.due_ns() == -1


def test_a_replaced_order_keeps_its_expiry() -> None:
    desk = Desk()
    desk.say("ann buy 5 @ 100 gtd=200 as x")
    desk.say("ann replace x 7 @ 101")
    desk.time = 200
    desk.send(cmd.tick())
    assert desk.told() == "cancelled ann buy 7 expired"


def test_a_tick_belongs_to_nobody() -> None:
    desk = Desk()
    accounts = list(desk.engine.state.accounts)
    desk.send(cmd.tick())
    desk.send(cmd.hash_book(0))
    assert list(desk.engine.state.accounts) == accounts


def test_commands_come_in_sequence() -> None:
    desk = Desk()
    sequence = desk.engine.state.sequence
    for wrong in (sequence, sequence + 2):
        with pytest.raises(AssertionError, match="in sequence"):
            desk.engine.apply(wrong, 0, cmd.tick())


def test_a_command_of_an_unknown_kind_stops_the_process() -> None:
    desk = Desk()
    with pytest.raises(AssertionError, match="unknown command kind"):
        desk.engine.apply(desk.engine.state.sequence + 1, 0, (99, "ann", "", 0, "", 0))

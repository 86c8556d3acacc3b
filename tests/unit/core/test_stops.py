"""Stop orders: when they wake, in which order, what they hold, and what bounds a cascade."""

import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import E_KIND, ORDER_TRIGGERED, R_ORDER_ID
from tests.unit.core.desk import BASE, QUOTE, Desk, lines, reason_of

pytestmark = pytest.mark.core


def test_a_stop_order_sleeps_off_the_book_with_its_funds_held() -> None:
    desk = Desk()
    desk.say("ann buy 5 stop 110 as x")
    assert desk.told() == "accepted ann buy @ 121 rests 0"
    assert desk.book() == ""
    assert desk.sleeping() == ["x"]
    assert desk.balance("ann", QUOTE)[1] == 5 * 121, "110 and a tenth of protection"


def test_a_stop_order_that_the_account_cannot_pay_is_refused_at_once() -> None:
    desk = Desk(rich=604)
    assert reason_of(desk.say("ann buy 5 stop 110")) == "INSUFFICIENT_FUNDS"
    assert reason_of(desk.say("ann sell 605 stop 90")) == "INSUFFICIENT_FUNDS"


@pytest.mark.parametrize(
    ("order", "last", "wakes"),
    [
        ("ann buy 1 stop 110", 109, False),
        ("ann buy 1 stop 110", 110, True),
        ("ann buy 1 stop 110", 111, True),
        ("ann sell 1 stop 90", 91, False),
        ("ann sell 1 stop 90", 90, True),
        ("ann sell 1 stop 90", 89, True),
    ],
)
def test_a_stop_order_wakes_when_the_last_trade_reaches_it(order: str, last: int, wakes) -> None:
    desk = Desk()
    desk.last_trade(100)
    desk.say(order + " as x")
    desk.last_trade(last)
    assert (desk.sleeping() == []) is wakes
    assert desk.order("x").triggered is wakes


@pytest.mark.parametrize(
    "order", ["ann buy 1 stop 100", "ann buy 1 stop 99", "ann sell 1 stop 100", "ann sell 1 stop 101"]
)
def test_a_stop_price_that_is_reached_already_is_refused(order: str) -> None:
    desk = Desk()
    desk.last_trade(100)
    assert reason_of(desk.say(order)) == "STOP_ALREADY_REACHED"


def test_before_the_first_trade_any_stop_price_may_wait() -> None:
    desk = Desk()
    desk.say("ann buy 1 stop 1 as x")
    assert desk.sleeping() == ["x"]


def test_woken_stop_orders_act_as_market_orders_and_stop_limits_as_limit_orders() -> None:
    desk = Desk()
    desk.given("""
        ask 105  bob:2
        ask 103  bob:1
    """)
    desk.say("ann buy 3 stop 101 as market")
    desk.say("ann buy 3 @ 104 stop 101 as limited")
    desk.given("ask 101  cy:1")
    desk.say("dee buy 1 @ 101")
    assert lines(desk.told()) == lines("""
        accepted dee buy @ 101 rests 0
        trade 1 @ 101 cy -> dee
        triggered ann buy @ 111 rests 0
        trade 1 @ 103 bob -> ann
        trade 2 @ 105 bob -> ann
        triggered ann buy @ 104 rests 3
    """)
    assert desk.book() == "bid 104  ann:3"


def test_stop_orders_wake_by_trigger_price_then_age_buys_before_sells() -> None:
    desk = Desk()
    desk.last_trade(100)
    for text in ("buy 1 @ 50 stop 103 as late", "buy 1 @ 50 stop 102 as first", "buy 1 @ 50 stop 103 as last"):
        desk.say(f"ann {text}")
    for text in ("sell 1 @ 150 stop 97 as s3", "sell 1 @ 150 stop 98 as s1", "sell 1 @ 150 stop 98 as s2"):
        desk.say(f"ann {text}")
    assert desk.sleeping() == ["first", "late", "last", "s1", "s2", "s3"]
    desk.last_trade(105)
    assert [event[1] for event in desk.events if event[E_KIND] == ORDER_TRIGGERED] == [
        desk.labels[name] for name in ("first", "late", "last")
    ]


def test_the_last_trade_of_a_command_decides_not_the_ones_before_it() -> None:
    desk = Desk()
    desk.last_trade(100)
    desk.given("""
        ask 105  bob:1
        ask 102  bob:1
    """)
    desk.say("ann sell 1 stop 98 as low")
    desk.say("ann buy 1 @ 50 stop 103 as high")
    desk.say("dee buy 2 @ 105")
    assert lines(desk.told()).splitlines()[-1] == "triggered ann buy @ 50 rests 1"
    assert desk.sleeping() == ["low"]


def test_a_woken_order_may_wake_the_next() -> None:
    desk = Desk()
    desk.last_trade(100)
    desk.given("""
        bid 97   bob:1
        bid 98   bob:1
        bid 99   bob:1
    """)
    desk.say("ann sell 1 stop 99")
    desk.say("ann sell 1 stop 98")
    desk.say("cy sell 1 @ 99")
    assert lines(desk.told()) == lines("""
        accepted cy sell @ 99 rests 0
        trade 1 @ 99 bob -> cy
        triggered ann sell @ 90 rests 0
        trade 1 @ 98 bob -> ann
        triggered ann sell @ 89 rests 0
        trade 1 @ 97 bob -> ann
    """)


def cascade(desk: Desk, count: int) -> None:
    """So many stop orders that wake at 101 and rest far below."""
    desk.last_trade(100)
    for _ in range(count):
        desk.say("ann buy 1 @ 50 stop 101")
    desk.last_trade(101)


def test_a_cascade_is_bounded_per_command_and_goes_on_with_the_next_tick() -> None:
    desk = Desk()
    extra = 10
    cascade(desk, 2 * c.MAX_TRIGGERS_PER_COMMAND + extra)
    assert triggered(desk) == c.MAX_TRIGGERS_PER_COMMAND
    assert desk.engine.due_ns() == 0, "a tick is due now"
    desk.send(cmd.tick())
    assert triggered(desk) == c.MAX_TRIGGERS_PER_COMMAND
    desk.say("bob buy 1 @ 40")
    assert triggered(desk) == extra, "any command carries on"
    assert desk.engine.due_ns() == -1


def triggered(desk: Desk) -> int:
    return sum(event[E_KIND] == ORDER_TRIGGERED for event in desk.events)


def test_a_woken_order_stays_due_when_the_price_turns() -> None:
    desk = Desk()
    cascade(desk, c.MAX_TRIGGERS_PER_COMMAND + 1)
    desk.say("cy sell 1 @ 50 ioc")  # trades at 50, far from the trigger; the last one wakes behind it
    assert triggered(desk) == 1


def test_woken_orders_wait_while_their_market_is_not_open() -> None:
    desk = Desk()
    cascade(desk, c.MAX_TRIGGERS_PER_COMMAND + 2)
    for mode in (c.HALTED, c.CANCEL_ONLY):
        desk.send(cmd.set_market_mode("operator", 0, mode))
        assert triggered(desk) == 0
        assert desk.engine.due_ns() == -1, "no tick would help"
    desk.send(cmd.set_market_mode("operator", 0, c.OPEN))
    assert triggered(desk) == 2


@pytest.mark.parametrize("switch", [c.SWITCH_MAINTENANCE, c.SWITCH_CIRCUIT_BREAKER])
def test_woken_orders_wait_while_a_switch_stops_trading(switch: int) -> None:
    desk = Desk()
    cascade(desk, c.MAX_TRIGGERS_PER_COMMAND + 2)
    desk.send(cmd.set_switch("operator", switch, on=True))
    assert triggered(desk) == 0
    assert desk.engine.due_ns() == -1
    desk.send(cmd.set_switch("operator", switch, on=False))
    assert triggered(desk) == 2


def test_a_closed_market_holds_up_no_stop_orders_of_another() -> None:
    desk = Desk()
    desk.send(cmd.create_market("operator", ("OTHER", BASE, QUOTE, 1, 0, 1, 1, 0, 0, 0, 0, 0, 100_000, 1, 0)))
    cascade(desk, c.MAX_TRIGGERS_PER_COMMAND + 3)
    desk.send(cmd.set_market_mode("operator", 0, c.HALTED))
    for order in (
        cmd.place("ann", 1, c.BUY, c.STOP_LIMIT, 1, 5, tif=c.GTC, stop=10),
        cmd.place("bob", 1, c.SELL, c.LIMIT, 1, 10, tif=c.GTC),
        cmd.place("cy", 1, c.BUY, c.LIMIT, 1, 10, tif=c.GTC),
    ):
        desk.send(order)
    assert triggered(desk) == 1
    desk.send(cmd.set_market_mode("operator", 0, c.OPEN))
    assert triggered(desk) == 3


def waiting_desk() -> tuple[Desk, int]:
    """A desk with a woken order that waits in a halted market, and its id."""
    desk = Desk()
    cascade(desk, c.MAX_TRIGGERS_PER_COMMAND + 1)
    desk.send(cmd.set_market_mode("operator", 0, c.CANCEL_ONLY))
    return desk, desk.engine.state.triggered[0].order_id


def test_a_woken_order_that_waits_can_be_cancelled_and_is_forgotten_with_the_others() -> None:
    desk, order_id = waiting_desk()
    desk.send(cmd.cancel("ann", order_id=order_id))
    assert lines(desk.told()) == "cancelled ann buy 1 requested"
    assert list(desk.engine.state.triggered) == []
    desk.send(cmd.set_retention("operator", 10, 10**18, 1))
    desk.send(cmd.cancel_all("ann"))
    restored = Engine.restore(desk.engine.snapshot())
    assert restored.state_hash() == desk.engine.state_hash()


def test_a_woken_order_that_waits_goes_on_after_a_restart() -> None:
    desk, order_id = waiting_desk()
    desk.engine = Engine.restore(desk.engine.snapshot())
    desk.send(cmd.reduce("ann", 1, order_id=order_id))
    assert list(desk.engine.state.triggered) == []
    desk.send(cmd.set_market_mode("operator", 0, c.OPEN))
    assert triggered(desk) == 0


def test_a_sleeping_order_can_be_reduced_cancelled_and_expires() -> None:
    desk = Desk()
    desk.time = 100
    desk.say("ann buy 5 stop 110 as x")
    desk.say("ann reduce x by 2")
    assert desk.balance("ann", QUOTE)[1] == 3 * 121
    desk.say("ann cancel x")
    assert (desk.sleeping(), desk.balance("ann", QUOTE)[1]) == ([], 0)
    desk.say("ann buy 5 @ 120 stop 110 gtd=200 as y")
    desk.time = 200
    desk.send(cmd.tick())
    assert desk.told() == "cancelled ann buy 5 expired"
    assert (desk.sleeping(), desk.balance("ann", QUOTE)[1]) == ([], 0)


def test_self_trade_prevention_of_a_stop_order_holds_when_it_wakes() -> None:
    desk = Desk()
    desk.last_trade(100)
    desk.say("ann sell 1 @ 104")
    assert desk.say("ann buy 1 stop 101 stp=oldest as x")[R_ORDER_ID] > 0
    desk.last_trade(101)
    assert lines(desk.told()).splitlines()[-2:] == ["cancelled ann sell 1 self-trade", "cancelled ann buy 1 remainder"]

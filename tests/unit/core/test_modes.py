"""What halt, cancel-only, maintenance, circuit breaker and ACCEPT_NEW_ORDERS each stop: one table."""

import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from tests.unit.core.desk import Desk, reason_of

pytestmark = pytest.mark.core

STOPS = {
    # state:          place,                 replace,              cancel, reduce, cancel all,
    "open": ("DONE", "DONE", "DONE", "DONE", 1),
    "cancel-only": ("MARKET_CANCEL_ONLY", "MARKET_CANCEL_ONLY", "DONE", "DONE", 1),
    "halted": ("MARKET_HALTED", "MARKET_HALTED", "MARKET_HALTED", "MARKET_HALTED", 0),
    "no new orders": ("NEW_ORDERS_DISABLED", "DONE", "DONE", "DONE", 1),
    "maintenance": ("MAINTENANCE", "MAINTENANCE", "DONE", "DONE", 1),
    "circuit breaker": ("CIRCUIT_BREAKER", "CIRCUIT_BREAKER", "DONE", "DONE", 1),
}

COMMANDS = {
    "open": cmd.set_market_mode("operator", 0, c.OPEN),
    "cancel-only": cmd.set_market_mode("operator", 0, c.CANCEL_ONLY),
    "halted": cmd.set_market_mode("operator", 0, c.HALTED),
    "no new orders": cmd.set_switch("operator", c.SWITCH_ACCEPT_NEW_ORDERS, on=False),
    "maintenance": cmd.set_switch("operator", c.SWITCH_MAINTENANCE, on=True),
    "circuit breaker": cmd.set_switch("operator", c.SWITCH_CIRCUIT_BREAKER, on=True),
}


@pytest.fixture(params=STOPS)
def state(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def desk(state: str) -> Desk:
    desk = Desk()
    desk.say("ann buy 5 @ 100 as x")
    assert reason_of(desk.send(COMMANDS[state])) == "DONE"
    return desk


def test_who_may_place(desk: Desk, state: str) -> None:
    assert reason_of(desk.say("ann buy 5 @ 100")) == STOPS[state][0]
    assert reason_of(desk.say("ann sell 5 stop 90")) == STOPS[state][0]


def test_who_may_replace(desk: Desk, state: str) -> None:
    assert reason_of(desk.say("ann replace x 5 @ 101")) == STOPS[state][1]


def test_who_may_cancel(desk: Desk, state: str) -> None:
    assert reason_of(desk.say("ann cancel x")) == STOPS[state][2]


def test_who_may_reduce(desk: Desk, state: str) -> None:
    assert reason_of(desk.say("ann reduce x by 1")) == STOPS[state][3]


def test_who_may_cancel_all(desk: Desk, state: str) -> None:
    assert desk.send(cmd.cancel_all("ann"))[11] == STOPS[state][4]


def test_operators_cancel_in_any_state(desk: Desk) -> None:
    assert desk.send(cmd.mass_cancel("operator", "ann"))[11] == 1
    assert desk.told().startswith("cancelled ann buy 5 operator")


def test_money_comes_in_in_any_state(desk: Desk) -> None:
    assert reason_of(desk.credit("ann", 0, 1)) == "DONE"


def test_orders_expire_in_any_state(state: str) -> None:
    desk = Desk()
    desk.say("ann buy 5 @ 100 gtd=50")
    desk.send(COMMANDS[state])
    desk.time = 50
    desk.send(cmd.tick())
    assert desk.told() == "cancelled ann buy 5 expired"


def test_a_filled_order_is_closed_even_where_the_market_is_halted() -> None:
    desk = Desk()
    desk.say("ann buy 5 @ 100 as x")
    desk.say("bob sell 5 @ 100")
    desk.send(COMMANDS["halted"])
    assert reason_of(desk.say("ann cancel x")) == "ORDER_CLOSED"


def test_each_state_ends() -> None:
    desk = Desk()
    for command in COMMANDS.values():
        desk.send(command)
    for command in (
        cmd.set_market_mode("operator", 0, c.OPEN),
        cmd.set_switch("operator", c.SWITCH_ACCEPT_NEW_ORDERS, on=True),
        cmd.set_switch("operator", c.SWITCH_MAINTENANCE, on=False),
        cmd.set_switch("operator", c.SWITCH_CIRCUIT_BREAKER, on=False),
    ):
        assert reason_of(desk.say("ann buy 5 @ 100")) != "DONE"
        desk.send(command)
    assert reason_of(desk.say("ann buy 5 @ 100")) == "DONE"


def test_an_unknown_mode_switch_or_market_is_refused() -> None:
    desk = Desk()
    assert reason_of(desk.send(cmd.set_market_mode("operator", 0, 9))) == "INVALID_DEFINITION"
    assert reason_of(desk.send(cmd.set_market_mode("operator", 7, c.OPEN))) == "UNKNOWN_SYMBOL"
    assert reason_of(desk.send(cmd.set_switch("operator", 9, on=True))) == "INVALID_DEFINITION"


def test_cancel_all_keeps_to_its_market_and_account() -> None:
    desk = Desk()
    desk.say("ann buy 1 @ 100")
    desk.say("bob buy 1 @ 100")
    assert desk.send(cmd.cancel_all("ann", 1))[11] == 0
    assert desk.send(cmd.cancel_all("ann", 0))[11] == 1
    assert desk.book() == "bid 100  bob:1"


def test_mass_cancel_takes_everybody_in_order_of_accounts() -> None:
    desk = Desk()
    for text in ("bob buy 1 @ 100", "ann buy 1 @ 100", "ann buy 2 stop 200", "bob sell 1 @ 300"):
        desk.say(text)
    assert desk.send(cmd.mass_cancel("operator", "", 0))[11] == 4
    assert desk.told().splitlines()[:4] == [
        "cancelled ann buy 1 operator",
        "cancelled ann buy 2 operator",
        "cancelled bob buy 1 operator",
        "cancelled bob sell 1 operator",
    ]
    assert desk.send(cmd.mass_cancel("operator", "nobody"))[11] == 0

"""docs/SWITCHES.md: the engine stops what its table says, no more and no less."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core import events as ev
from tests.unit.core.desk import Desk, reason_of
from tests.unit.docs.tables import document, table

pytestmark = pytest.mark.core

HEAD, *ROWS = table(document("docs/SWITCHES.md"), "switches")
SAYS = {row[0]: dict(zip(HEAD[1:], row[1:], strict=True)) for row in ROWS}
REASON = "reason of what stops"
GOES_ON, STOPS, LEAVES, WAITS = "goes on", "stops", "leaves them", "waits"

SWITCHES = {
    "cancel-only": cmd.set_market_mode("operator", 0, c.CANCEL_ONLY),
    "halted": cmd.set_market_mode("operator", 0, c.HALTED),
    "ACCEPT_NEW_ORDERS=false": cmd.set_switch("operator", c.SWITCH_ACCEPT_NEW_ORDERS, on=False),
    "maintenance": cmd.set_switch("operator", c.SWITCH_MAINTENANCE, on=True),
    "circuit breaker": cmd.set_switch("operator", c.SWITCH_CIRCUIT_BREAKER, on=True),
}


def outcome(desk: Desk, command: cmd.Command, switch: str) -> str:
    """Whether a command goes on or stops; where it stops, for the reason that the table names and without a trace."""
    before = desk.book()
    reason = reason_of(desk.send(command))
    if reason == "DONE":
        return GOES_ON
    assert reason == SAYS[REASON][switch]
    assert desk.book() == before
    return STOPS


def place(desk: Desk, switch: str) -> str:
    found = {
        outcome(desk, desk.command(text), switch)
        for text in ("ann buy 5 @ 90", "ann buy 5 @ 90 ioc", "ann sell 5 stop 80", "ann sell 5 @ 80 stop 80")
    }
    assert len(found) == 1
    return found.pop()


def replace(desk: Desk, switch: str) -> str:
    return outcome(desk, desk.command("ann replace x 4 @ 99"), switch)


def reduce(desk: Desk, switch: str) -> str:
    return outcome(desk, desk.command("ann reduce x by 1"), switch)


def cancel(desk: Desk, switch: str) -> str:
    return outcome(desk, desk.command("ann cancel x"), switch)


def cancel_all(desk: Desk, switch: str) -> str:
    result = desk.send(cmd.cancel_all("ann"))
    assert reason_of(result) == "DONE"
    assert (result[ev.R_COUNT] == 0) == (desk.book() != "")
    return LEAVES if result[ev.R_COUNT] == 0 else GOES_ON


def mass_cancel(desk: Desk, switch: str) -> str:
    found = outcome(desk, cmd.mass_cancel("operator", "ann"), switch)
    assert (desk.book() == "") == (found == GOES_ON)
    return found


def expiry(desk: Desk, switch: str) -> str:
    desk.time = 60
    desk.send(cmd.tick())
    return GOES_ON if "cancelled ann buy 2 expired" in desk.told() else STOPS


def session_lost(desk: Desk, switch: str) -> str:
    result = desk.send(cmd.expire_session("ann", "s"))
    assert reason_of(result) == "DONE"
    return GOES_ON if "cancelled ann buy 3 disconnected" in desk.told() else STOPS


def triggers(desk: Desk, switch: str) -> str:
    """More stop orders than one command may wake were triggered before the switch: whether the others still go."""
    desk.send(cmd.tick())
    left = len(desk.engine.state.triggered)
    assert left in {0, WAITING}
    if left == 0:
        return GOES_ON
    # What waits goes as soon as the switch is turned back.
    for back in (
        cmd.set_market_mode("operator", 0, c.OPEN),
        cmd.set_switch("operator", c.SWITCH_ACCEPT_NEW_ORDERS, on=True),
        cmd.set_switch("operator", c.SWITCH_MAINTENANCE, on=False),
        cmd.set_switch("operator", c.SWITCH_CIRCUIT_BREAKER, on=False),
    ):
        desk.send(back)
    assert len(desk.engine.state.triggered) == 0
    return WAITS


def money(desk: Desk, switch: str) -> str:
    found = {
        outcome(desk, command, switch)
        for command in (
            cmd.credit("ann", 1, 10, request_id="in"),
            cmd.hold("ann", 1, 10, request_id="out"),
            cmd.settle_hold("ann", "out", request_id="gone"),
            cmd.hold("ann", 1, 10, request_id="back"),
            cmd.release_hold("ann", "back", request_id="released"),
            cmd.transfer("ann", "bob", 1, 10, request_id="over"),
        )
    }
    assert len(found) == 1
    return found.pop()


def reads(desk: Desk, switch: str) -> str:
    """Reads are no commands: nothing in the engine can refuse them."""
    assert desk.order("x").lots_open == 5
    assert "ann:5" in desk.book()
    return GOES_ON


ACTIONS: dict[str, Callable[[Desk, str], str]] = {
    "place an order, stop orders too": place,
    "replace an order": replace,
    "reduce an order": reduce,
    "cancel an order": cancel,
    "cancel all of the account": cancel_all,
    "mass cancel by an operator": mass_cancel,
    "expiry of a GTD order": expiry,
    "cancel on disconnect, dead-man timer": session_lost,
    "matching of triggered stop orders": triggers,
    "deposits, withdrawals, transfers": money,
    "reads and streams": reads,
}
WAITING = 7


def a_desk() -> Desk:
    """Ann has an order x that rests, one that expires at 50, and one of a session that cancels on disconnect."""
    desk = Desk()
    desk.say("ann buy 5 @ 100 as x")
    desk.say("ann buy 2 @ 95 gtd=50")
    desk.send(cmd.open_session("ann", "s", cancel_on_disconnect=True, grace_ms=0, dead_man_ms=0))
    desk.say("ann buy 3 @ 94", session="s", number=1)
    return desk


def a_desk_with_triggered_stops() -> Desk:
    desk = Desk()
    for _ in range(c.MAX_TRIGGERS_PER_COMMAND + WAITING):
        desk.say("bob sell 1 stop 100")
    desk.say("ann buy 5 @ 101 as x")
    desk.say("ann buy 200 @ 90")
    desk.say("cy sell 5 @ 101")
    desk.say("ann buy 1 @ 100 as y")
    desk.say("cy sell 1 @ 100")
    assert len(desk.engine.state.triggered) == WAITING
    return desk


def test_the_table_has_a_row_for_each_action_and_a_column_for_each_switch() -> None:
    assert set(HEAD[1:]) == set(SWITCHES)
    assert set(SAYS) == {*ACTIONS, REASON}


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("action", ACTIONS)
def test_the_table_is_true(action: str, switch: str) -> None:
    desk = a_desk_with_triggered_stops() if ACTIONS[action] is triggers else a_desk()
    assert reason_of(desk.send(SWITCHES[switch])) == "DONE"
    assert ACTIONS[action](desk, switch) == SAYS[action][switch]


@pytest.mark.parametrize("action", ACTIONS)
def test_in_an_open_market_all_goes_on(action: str) -> None:
    desk = a_desk_with_triggered_stops() if ACTIONS[action] is triggers else a_desk()
    assert ACTIONS[action](desk, "halted") == GOES_ON


def test_a_new_order_hears_of_them_in_the_order_of_the_document() -> None:
    desk = a_desk()
    for switch, command in SWITCHES.items():
        if switch != "cancel-only":
            desk.send(command)
    for command, reason in (
        (cmd.set_switch("operator", c.SWITCH_MAINTENANCE, on=False), "MAINTENANCE"),
        (cmd.set_switch("operator", c.SWITCH_CIRCUIT_BREAKER, on=False), "CIRCUIT_BREAKER"),
        (cmd.set_switch("operator", c.SWITCH_ACCEPT_NEW_ORDERS, on=True), "NEW_ORDERS_DISABLED"),
        (cmd.set_market_mode("operator", 0, c.OPEN), "MARKET_HALTED"),
    ):
        assert reason_of(desk.say("ann buy 1 @ 90")) == reason
        assert reason_of(desk.say("ann replace x 4 @ 99")) == "MARKET_HALTED"
        desk.send(command)
    assert reason_of(desk.say("ann buy 1 @ 90")) == "DONE"

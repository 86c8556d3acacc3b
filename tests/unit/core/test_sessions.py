"""Sessions are journaled state: numbers apply once, and the end of a session takes its orders with it."""

import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import R_COUNT
from tests.unit.core.desk import Desk, reason_of

pytestmark = pytest.mark.core


def opened(name: str = "s", *, cancel: bool = False, dead_man_ms: int = 0) -> cmd.Command:
    return cmd.open_session("ann", name, cancel_on_disconnect=cancel, grace_ms=5_000, dead_man_ms=dead_man_ms)


def numbered(number: int, lots: int = 1, session: str = "s", name: str = "") -> cmd.Command:
    return cmd.place(
        "ann", 0, c.BUY, c.LIMIT, lots, 100, tif=c.GTC, session=session, number=number, client_order_id=name
    )


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.send(opened())
    return desk


def test_a_number_applies_once_and_its_repeat_gets_the_first_result(desk: Desk) -> None:
    first = desk.send(numbered(1))
    desk.send(numbered(2))
    assert desk.send(numbered(1)) is first
    assert desk.book() == "bid 100  ann:1 ann:1"


def test_a_number_with_another_body_is_refused(desk: Desk) -> None:
    desk.send(numbered(1))
    assert reason_of(desk.send(numbered(1, lots=2))) == "DUPLICATE_ID"


def test_numbers_may_skip_those_of_commands_that_never_reached_the_engine(desk: Desk) -> None:
    desk.send(numbered(1))
    desk.send(numbered(4))
    assert reason_of(desk.send(numbered(3))) == "COMMAND_NUMBER_OUT_OF_WINDOW"
    assert desk.send(opened())[R_COUNT] == 4


def test_a_client_order_id_counts_across_sessions(desk: Desk) -> None:
    first = desk.send(numbered(1, name="a"))
    desk.send(opened("t"))
    assert desk.send(numbered(1, session="t", name="a")) is first
    assert desk.book() == "bid 100  ann:1"


def test_rejections_are_remembered_by_number_too(desk: Desk) -> None:
    first = desk.send(numbered(1, lots=0))
    assert reason_of(first) == "QUANTITY_TOO_SMALL"
    assert desk.send(numbered(1, lots=0)) is first


def test_a_session_remembers_so_many_results_and_no_more(desk: Desk) -> None:
    engine, sequence = desk.engine, desk.engine.state.sequence
    for number in range(1, c.SESSION_RESULT_WINDOW + 11):
        engine.apply(sequence + number, 0, numbered(number, lots=0))
    assert reason_of(desk.send(numbered(10, lots=0))) == "COMMAND_NUMBER_OUT_OF_WINDOW"
    assert reason_of(desk.send(numbered(11, lots=0))) == "QUANTITY_TOO_SMALL"
    assert reason_of(desk.send(numbered(11, lots=1))) == "DUPLICATE_ID"


def test_an_unknown_session_is_refused(desk: Desk) -> None:
    assert reason_of(desk.send(numbered(1, session="other"))) == "SESSION_NOT_FOUND"
    bob = cmd.place("bob", 0, c.BUY, c.LIMIT, 1, 100, tif=c.GTC, session="s", number=1)
    assert reason_of(desk.send(bob)) == "SESSION_NOT_FOUND", "another account's session"
    nobody = cmd.place("nobody", 0, c.BUY, c.LIMIT, 1, 100, tif=c.GTC, session="s", number=1)
    assert reason_of(desk.send(nobody)) == "SESSION_NOT_FOUND"
    assert reason_of(desk.send(cmd.close_session("ann", "other"))) == "SESSION_NOT_FOUND"


def test_attaching_again_keeps_numbers_and_results_and_takes_new_settings(desk: Desk) -> None:
    first = desk.send(numbered(1))
    assert desk.send(opened(cancel=True))[R_COUNT] == 1
    assert desk.send(numbered(1)) is first
    assert desk.engine.state.accounts["ann"].sessions["s"].cancel_on_disconnect


@pytest.mark.parametrize(
    ("cancel", "dead_man_ms", "end", "gone"),
    [
        (False, 0, cmd.close_session, False),
        (False, 0, cmd.expire_session, False),
        (True, 0, cmd.close_session, True),
        (True, 0, cmd.expire_session, True),
        (False, 1_000, cmd.close_session, False),
        (False, 1_000, cmd.expire_session, True),
    ],
)
def test_the_end_of_a_session_cancels_its_orders_where_that_was_agreed(cancel, dead_man_ms, end, gone) -> None:
    desk = Desk()
    desk.send(opened(cancel=cancel, dead_man_ms=dead_man_ms))
    desk.send(numbered(1))
    desk.say("ann buy 2 @ 100")
    stop = cmd.place("ann", 0, c.BUY, c.STOP, 1, 0, tif=c.IOC, stop=200, session="s", number=2)
    desk.send(stop)
    assert desk.send(end("ann", "s"))[R_COUNT] == (2 if gone else 0)
    assert desk.book() == ("bid 100  ann:2" if gone else "bid 100  ann:1 ann:2"), "an order outside the session stays"
    assert reason_of(desk.send(numbered(3))) == "SESSION_NOT_FOUND"


def test_an_account_has_16_sessions_and_no_more() -> None:
    desk = Desk()
    for number in range(c.MAX_SESSIONS_PER_ACCOUNT):
        assert reason_of(desk.send(opened(f"s{number}"))) == "DONE"
    assert reason_of(desk.send(opened("one more"))) == "TOO_MANY_SESSIONS"
    assert reason_of(desk.send(opened("s3"))) == "DONE", "attaching is not opening"
    desk.send(cmd.close_session("ann", "s3"))
    assert reason_of(desk.send(opened("one more"))) == "DONE"


def test_sessions_survive_a_restart(desk: Desk) -> None:
    first = desk.send(numbered(1, name="a"))
    desk.send(cmd.cancel("ann", client_order_id="a", session="s", number=2))
    desk.engine = Engine.restore(desk.engine.snapshot())
    assert desk.send(numbered(1, name="a")) == first
    assert desk.send(opened())[R_COUNT] == 2

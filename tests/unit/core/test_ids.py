"""Every mutation applies once: ids, their retention, and what is said of requests that are too old."""

import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core.events import R_ORDER_ID
from tests.unit.core.desk import QUOTE, Desk, reason_of

pytestmark = pytest.mark.core

DAY = 86_400_000_000_000


def placed(name: str, lots: int = 5, price: int = 100, request_time_ns: int = 0) -> cmd.Command:
    return cmd.place(
        "ann", 0, c.BUY, c.LIMIT, lots, price, tif=c.GTC, client_order_id=name, request_time_ns=request_time_ns
    )


def test_a_repeated_order_gets_the_first_result_and_places_nothing() -> None:
    desk = Desk()
    first = desk.send(placed("a"))
    desk.say("bob sell 2 @ 100")
    assert desk.send(placed("a")) is first
    assert desk.events == []
    assert desk.book() == "bid 100  ann:3"


def test_the_same_id_with_another_body_is_refused() -> None:
    desk = Desk()
    desk.send(placed("a"))
    assert reason_of(desk.send(placed("a", lots=6))) == "DUPLICATE_ID"
    assert reason_of(desk.send(placed("a", price=99))) == "DUPLICATE_ID"
    assert desk.book() == "bid 100  ann:5"


def test_when_and_in_which_session_a_request_comes_makes_it_no_other_request() -> None:
    desk = Desk()
    first = desk.send(placed("a"))
    assert desk.send(placed("a", request_time_ns=12)) is first


def test_a_rejection_is_repeated_even_when_its_cause_is_gone() -> None:
    desk = Desk(rich=0)
    first = desk.send(placed("a"))
    assert reason_of(first) == "INSUFFICIENT_FUNDS"
    desk.credit("ann", QUOTE, 10_000)
    assert desk.send(placed("a")) is first
    assert reason_of(desk.send(placed("b"))) == "DONE"


def test_ids_are_each_accounts_own() -> None:
    desk = Desk()
    desk.send(placed("a"))
    other = cmd.place("bob", 0, c.BUY, c.LIMIT, 1, 100, tif=c.GTC, client_order_id="a")
    assert reason_of(desk.send(other)) == "DONE"


def test_orders_and_other_requests_have_ids_of_their_own() -> None:
    desk = Desk()
    order_id = desk.send(placed("a"))[R_ORDER_ID]
    assert reason_of(desk.send(cmd.cancel("ann", order_id=order_id, request_id="a"))) == "DONE"


@pytest.mark.parametrize(
    "make",
    [
        lambda order_id: cmd.cancel("ann", order_id=order_id, request_id="r"),
        lambda order_id: cmd.reduce("ann", 2, order_id=order_id, request_id="r"),
        lambda order_id: cmd.replace("ann", 2, 90, order_id=order_id, request_id="r"),
        lambda _: cmd.cancel_all("ann", request_id="r"),
        lambda _: cmd.credit("ann", QUOTE, 50, request_id="r"),
        lambda _: cmd.hold("ann", QUOTE, 50, request_id="r"),
        lambda _: cmd.transfer("ann", "bob", QUOTE, 50, request_id="r"),
        lambda _: cmd.create_asset("ann", "NEW", 2, request_id="r"),
        lambda _: cmd.set_switch("ann", c.SWITCH_MAINTENANCE, on=True, request_id="r"),
    ],
)
def test_every_kind_of_request_applies_once(make) -> None:
    desk = Desk()
    command = make(desk.send(placed("a"))[R_ORDER_ID])
    first = desk.send(command)
    before = desk.engine.state_hash()
    assert desk.send(command) is first
    assert reason_of(first) == "DONE"
    assert desk.engine.state_hash() == before
    assert reason_of(desk.send(cmd.credit("ann", QUOTE, 51, request_id="r"))) == "DUPLICATE_ID"


def test_an_order_is_named_by_its_client_order_id() -> None:
    desk = Desk()
    desk.send(placed("a"))
    desk.send(cmd.reduce("ann", 1, client_order_id="a"))
    assert desk.book() == "bid 100  ann:4"
    desk.send(cmd.replace("ann", 2, 99, client_order_id="a"))
    assert desk.book() == "bid 99  ann:2"
    assert reason_of(desk.send(cmd.cancel("ann", client_order_id="b"))) == "ORDER_NOT_FOUND"
    assert desk.told() == "refused ORDER_NOT_FOUND"
    assert reason_of(desk.send(cmd.cancel("bob", client_order_id="a"))) == "ORDER_NOT_FOUND"
    desk.send(cmd.cancel("ann", client_order_id="a"))
    assert desk.book() == ""
    assert reason_of(desk.send(cmd.cancel("ann", client_order_id="a"))) == "ORDER_CLOSED"


# --- retention ---


def known(desk: Desk, account: str = "ann") -> list[str]:
    return [*desk.engine.state.accounts[account].placed, *desk.engine.state.accounts[account].requests]


def test_ids_beyond_the_count_are_forgotten_oldest_first() -> None:
    desk = Desk(rich=0)
    desk.send(cmd.set_retention("operator", 3, DAY, 100))
    for number in range(10):
        desk.time += 1
        desk.send(placed(f"refused-{number}"))
    assert known(desk) == ["refused-7", "refused-8", "refused-9"]


def test_ids_beyond_the_age_are_forgotten() -> None:
    desk = Desk(rich=0)
    desk.send(cmd.set_retention("operator", 1_000, 100, 100))
    for number in range(4):
        desk.time += 50
        desk.send(placed(f"refused-{number}"))
    assert known(desk) == ["refused-1", "refused-2", "refused-3"]


def test_the_id_of_an_open_order_is_kept_however_old() -> None:
    desk = Desk()
    first = desk.send(placed("open"))
    desk.send(cmd.set_retention("operator", 2, 100, 100))
    for number in range(20):
        desk.time += 60
        desk.send(cmd.cancel("ann", order_id=1, request_id=f"r{number}"))
    assert "open" in known(desk)
    assert len(known(desk)) <= 4
    assert desk.send(placed("open")) is first


def test_one_command_pays_for_forgetting_two_ids_and_no_more() -> None:
    desk = Desk(rich=0)
    for number in range(100):
        desk.send(placed(f"refused-{number}"))
    desk.send(cmd.set_retention("operator", 1, DAY, 100))
    assert len(known(desk)) == 100
    desk.send(placed("next"))
    assert len(known(desk)) == 99
    for number in range(100):
        desk.send(placed(f"later-{number}"))
    assert known(desk) == ["later-99"]


def test_a_request_made_before_the_youngest_forgotten_id_is_refused() -> None:
    desk = Desk(rich=0)
    desk.send(cmd.set_retention("operator", 2, DAY, 100))
    for number in range(4):
        desk.time = 100 + number
        desk.send(cmd.cancel("ann", order_id=1, request_id=f"r{number}"))
    assert known(desk) == ["r2", "r3"]
    assert reason_of(desk.send(placed("a", request_time_ns=101))) == "REQUEST_TOO_OLD"
    assert desk.events == []
    assert reason_of(desk.send(placed("a", request_time_ns=102))) == "INSUFFICIENT_FUNDS"
    repeat = cmd.cancel("ann", order_id=1, request_id="r3", request_time_ns=1)
    assert reason_of(desk.send(repeat)) == "ORDER_NOT_FOUND", "a repeat is a repeat however old"


def test_a_request_older_than_ids_are_kept_is_refused() -> None:
    desk = Desk()
    desk.time = 2 * DAY
    desk.send(cmd.tick())
    assert reason_of(desk.send(placed("a", request_time_ns=DAY))) == "REQUEST_TOO_OLD"
    assert reason_of(desk.send(placed("a", request_time_ns=DAY + 1))) == "DONE"


def test_a_retention_of_nothing_is_refused() -> None:
    desk = Desk()
    for wrong in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        assert reason_of(desk.send(cmd.set_retention("operator", *wrong))) == "INVALID_DEFINITION"


# --- bounded memory ---


def test_finished_orders_are_kept_up_to_their_number_oldest_gone_first() -> None:
    desk = Desk()
    desk.send(cmd.set_retention("operator", 1_000, DAY, 3))
    orders = [desk.send(placed(f"o{number}"))[R_ORDER_ID] for number in range(5)]
    desk.send(cmd.cancel_all("ann"))
    assert [order.order_id for order in desk.engine.state.finished] == orders[2:]
    assert list(desk.engine.state.orders) == orders[2:]
    desk.send(cmd.set_retention("operator", 1_000, DAY, 1))
    assert list(desk.engine.state.orders) == orders[4:], "at once"


def test_memory_stays_bounded_under_any_number_of_commands() -> None:
    desk = Desk()
    desk.send(cmd.set_retention("operator", 50, DAY, 20))
    state, session = desk.engine.state, "s"
    desk.send(cmd.open_session("ann", session, cancel_on_disconnect=False, grace_ms=0, dead_man_ms=0))
    apply, sequence = desk.engine.apply, desk.engine.state.sequence
    for number in range(10_000):
        sequence += 2
        order = cmd.place(
            "ann", 0, c.BUY, c.LIMIT, 1, 100, tif=c.GTD, expire_ns=10**15, client_order_id=f"o{number}",
            session=session, number=2 * number + 1,
        )  # fmt: skip
        apply(sequence - 1, number, order)
        apply(sequence, number, cmd.cancel("ann", order_id=sequence - 1, session=session, number=2 * number + 2))
    desk.check()
    account = state.accounts["ann"]
    assert len(state.orders) == len(state.finished) == len(account.finished) == 20
    assert len(state.remembered) == len(account.placed) + len(account.requests) == 50
    assert len(account.sessions[session].results) == c.SESSION_RESULT_WINDOW
    assert len(state.timers) <= 1_030, "timers of orders that have ended"
    assert not account.orders
    assert not desk.market.bids.levels
    assert desk.engine.due_ns() == -1

"""Orders of API keys since rules 3: how many may be open, which a mass cancel takes, and what a repeat by another key is."""

from __future__ import annotations

import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core import events as ev
from exchange.trading.core.engine import Engine
from tests.unit.core.desk import Desk, reason_of

pytestmark = pytest.mark.core


def desk_under(rules: int) -> Desk:
    desk = Desk()
    for version in range(2, rules + 1):
        assert reason_of(desk.send(cmd.activate_rules("operator", version))) == "DONE"
    return desk


@pytest.fixture
def desk() -> Desk:
    return desk_under(3)


def counted(desk: Desk, account: str = "ann") -> dict[str, int]:
    return desk.engine.state.accounts[account].open_by_key


def test_a_place_without_a_key_is_the_command_that_it_was_before() -> None:
    plain = cmd.place("ann", 0, c.BUY, c.LIMIT, 1, 100, tif=c.GTC)
    assert plain == (1, "ann", "", 0, "", 0, 0, 1, 1, 1, 0, 0, 1, 100, 0, 0)
    keyed = cmd.place("ann", 0, c.BUY, c.LIMIT, 1, 100, tif=c.GTC, key="ak_1", key_max_open=2, account_max_open=3)
    assert keyed == (*plain, "ak_1", 2, 3)
    assert cmd.place("ann", 0, c.BUY, c.LIMIT, 1, 100, tif=c.GTC, account_max_open=3) == (*plain, "", 0, 3)
    assert cmd.mass_cancel("ops", "ann") == (6, "ops", "", 0, "", 0, "ann", -1)
    assert cmd.mass_cancel("ops", "ann", key="ak_1") == (6, "ops", "", 0, "", 0, "ann", -1, "ak_1")


@pytest.mark.parametrize(
    "order",
    ["buy 1 @ 100", "buy 1 @ 100 gtd=900", "buy 1 @ 100 ioc", "buy 1 stop 200", "buy 1 @ 100 post-only"],
)
def test_a_key_has_as_many_open_orders_as_it_may_and_no_more(desk: Desk, order: str) -> None:
    limit = {"key": "ak_1", "key_max_open": 2}
    desk.say("ann buy 1 @ 90 as x", **limit)
    desk.say("ann buy 1 @ 100 stop 120 as y", **limit)
    assert reason_of(desk.say(f"ann {order}", **limit)) == "TOO_MANY_OPEN_ORDERS"
    assert desk.told() == "rejected TOO_MANY_OPEN_ORDERS"
    assert reason_of(desk.say("ann buy 1 @ 90", key="ak_2", key_max_open=2)) == "DONE", "another key has its own"
    assert reason_of(desk.say("bob buy 1 @ 90", **limit)) == "DONE", "of another account it is another key"
    assert reason_of(desk.say("ann buy 1 @ 90")) == "DONE", "a person has no key"
    desk.say("ann cancel x")
    assert reason_of(desk.say(f"ann {order}", **limit)) == "DONE"


def test_a_key_without_a_limit_is_counted_and_not_limited(desk: Desk) -> None:
    for _ in range(5):
        assert reason_of(desk.say("ann buy 1 @ 100", key="ak_1")) == "DONE"
    assert counted(desk) == {"ak_1": 5}


@pytest.mark.parametrize(
    ("ends", "left"),
    [
        ("ann cancel x", {"ak_1": 1}),
        ("ann reduce x by 5", {"ak_1": 1}),
        ("ann reduce x by 2", {"ak_1": 2}),
        ("ann replace x 3 @ 99", {"ak_1": 2}),
        ("bob sell 5 @ 100", {"ak_1": 1}),
        ("bob sell 2 @ 100", {"ak_1": 2}),
        ("bob sell 6 @ 90", {}),
    ],
)
def test_a_key_counts_its_orders_while_they_are_open(desk: Desk, ends: str, left: dict[str, int]) -> None:
    desk.say("ann buy 5 @ 100 as x", key="ak_1")
    desk.say("ann buy 1 @ 90", key="ak_1")
    desk.say(ends)
    assert counted(desk) == left


def test_an_order_that_ends_at_once_leaves_no_count_behind(desk: Desk) -> None:
    desk.say("bob sell 1 @ 100")
    desk.say("ann buy 1 @ 100", key="ak_1")
    desk.say("ann buy 1 @ 100 ioc", key="ak_1")
    desk.say("ann buy 3 @ 1 gtd=50", key="ak_1")
    desk.time = 60
    desk.send(cmd.tick())
    assert counted(desk) == {}


@pytest.mark.parametrize(
    ("own", "tier", "open_orders"),
    [(-1, 2, 2), (-1, 0, 4), (3, 2, 3), (0, 2, 5), (1, 3, 1)],
    ids=["the tier's", "neither: the engine's", "an operator's above", "an operator's: none", "an operator's below"],
)
def test_the_limit_of_a_tier_holds_where_no_operator_has_set_one(
    desk: Desk, own: int, tier: int, open_orders: int
) -> None:
    desk.engine.state.default_max_open_orders = 4
    if own >= 0:
        desk.send(cmd.set_account_limits("operator", "ann", own))
    results = [reason_of(desk.say("ann buy 1 @ 100", account_max_open=tier)) for _ in range(5)]
    assert results.count("DONE") == open_orders
    assert set(results[open_orders:]) <= {"TOO_MANY_OPEN_ORDERS"}


def test_a_tier_may_allow_more_than_the_engine_does_by_itself(desk: Desk) -> None:
    desk.engine.state.default_max_open_orders = 1
    for _ in range(3):
        assert reason_of(desk.say("ann buy 1 @ 100", key="ak_1", account_max_open=3)) == "DONE"
    assert reason_of(desk.say("ann buy 1 @ 100")) == "TOO_MANY_OPEN_ORDERS", "without a tier the engine's own holds"


def test_a_mass_cancel_of_a_key_takes_the_orders_of_that_key_alone(desk: Desk) -> None:
    desk.say("ann buy 1 @ 100", key="ak_1")
    desk.say("ann buy 2 @ 99 stop 150", key="ak_1")
    desk.say("ann buy 3 @ 100", key="ak_2")
    desk.say("ann buy 4 @ 100")
    desk.say("bob buy 5 @ 100", key="ak_1")
    result = desk.send(cmd.mass_cancel("operator", "ann", key="ak_1", request_id="revocation-7"))
    assert result[ev.R_COUNT] == 2
    assert desk.told() == "cancelled ann buy 1 operator\ncancelled ann buy 2 operator\nevent 17"
    assert desk.book() == "bid 100  ann:3 ann:4 bob:5"
    assert desk.send(cmd.mass_cancel("operator", "ann", key="ak_1", request_id="revocation-7")) == result
    assert desk.send(cmd.mass_cancel("operator", "ann", key="ak_3"))[ev.R_COUNT] == 0


@pytest.mark.parametrize("rules", [1, 2])
def test_what_commands_say_of_keys_counts_for_nothing_under_older_rules(rules: int) -> None:
    """As for the builds of those rules, which read no further."""
    desk = desk_under(rules)
    for _ in range(3):
        assert reason_of(desk.say("ann buy 1 @ 100", key="ak_1", key_max_open=1, account_max_open=1)) == "DONE"
    desk.say("ann buy 1 @ 100")
    assert desk.send(cmd.mass_cancel("operator", "ann", key="ak_1"))[ev.R_COUNT] == 4


def test_a_repeat_by_another_key_gets_the_first_result(desk: Desk) -> None:
    first = desk.say("ann buy 1 @ 100", client_order_id="x", key="ak_old", key_max_open=5)
    for rotated in ({"key": "ak_new", "key_max_open": 9}, {"account_max_open": 7}, {}):
        assert desk.say("ann buy 1 @ 100", client_order_id="x", **rotated) == first
        assert desk.events == []
    assert reason_of(desk.say("ann buy 2 @ 100", client_order_id="x", key="ak_old")) == "DUPLICATE_ID"


def test_a_repeated_number_of_a_session_is_the_same_by_another_key_too(desk: Desk) -> None:
    desk.send(cmd.open_session("ann", "s", cancel_on_disconnect=False, grace_ms=0, dead_man_ms=0))
    first = desk.say("ann buy 1 @ 100", session="s", number=1, key="ak_old")
    assert desk.say("ann buy 1 @ 100", session="s", number=1, key="ak_new") == first
    assert reason_of(desk.say("ann buy 2 @ 100", session="s", number=1, key="ak_old")) == "DUPLICATE_ID"


def test_a_mass_cancel_of_another_key_is_another_request(desk: Desk) -> None:
    desk.send(cmd.mass_cancel("operator", "ann", key="ak_1", request_id="r"))
    assert reason_of(desk.send(cmd.mass_cancel("operator", "ann", key="ak_2", request_id="r"))) == "DUPLICATE_ID"


def test_a_snapshot_brings_keys_and_their_counts_back(desk: Desk) -> None:
    desk.say("ann buy 1 @ 100 as x", key="ak_1", key_max_open=2, account_max_open=9)
    desk.say("ann buy 1 stop 200", key="ak_1", key_max_open=2)
    desk.say("ann buy 1 @ 100 as gone", key="ak_1")
    desk.say("ann cancel gone")
    before = desk.engine.state_hash()
    desk.engine = Engine.restore(desk.engine.snapshot())
    assert desk.engine.state_hash() == before
    assert counted(desk) == {"ak_1": 2}
    assert desk.order("x").command[cmd.P_KEY :] == ("ak_1", 2, 9)
    assert reason_of(desk.say("ann buy 1 @ 100", key="ak_1", key_max_open=2)) == "TOO_MANY_OPEN_ORDERS"

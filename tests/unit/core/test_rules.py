"""What each version of the rules says: the ladder before, what is said, the ladder after under the rules before and since.

Rules 2: a REPLACE that keeps the price and does not raise the open quantity keeps the order's place. Rules 3 change nothing
of this; what they say stands in `test_keys.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core import events as ev
from exchange.trading.core.engine import Engine
from exchange.trading.core.registry import D_BAND_PPM
from exchange.trading.feeds.balances import BalanceCopy
from exchange.trading.feeds.book_mirror import BookMirror
from tests.unit.core.desk import BASE, QUOTE, Desk, lines, reason_of

pytestmark = pytest.mark.core

RULES = tuple(range(1, c.RULES_VERSION + 1))


@dataclass
class Case:
    claim: str
    says: str
    rules_1: str
    rules_2: str


QUEUE = "cy buy 1 @ 100 / ann buy 5 @ 100 as x / dee buy 2 @ 100"

CASES = [
    Case("fewer lots", "ann replace x 3 @ 100", "bid 100 cy:1 dee:2 ann:3", "bid 100 cy:1 ann:3 dee:2"),
    Case("the same", "ann replace x 5 @ 100", "bid 100 cy:1 dee:2 ann:5", "bid 100 cy:1 ann:5 dee:2"),
    Case("more lots", "ann replace x 6 @ 100", "bid 100 cy:1 dee:2 ann:6", "bid 100 cy:1 dee:2 ann:6"),
    Case(
        "a better price",
        "ann replace x 3 @ 101",
        "bid 101 ann:3 / bid 100 cy:1 dee:2",
        "bid 101 ann:3 / bid 100 cy:1 dee:2",
    ),
    Case(
        "a worse price",
        "ann replace x 3 @ 99",
        "bid 100 cy:1 dee:2 / bid 99 ann:3",
        "bid 100 cy:1 dee:2 / bid 99 ann:3",
    ),
]


def desk_under(rules: int, **definition: int) -> Desk:
    desk = Desk(**definition)
    for version in range(1, rules + 1):
        assert reason_of(desk.send(cmd.activate_rules("operator", version))) == "DONE"
    return desk


def say(desk: Desk, text: str) -> None:
    for line in text.split(" / "):
        desk.say(line)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.claim)
def test_where_a_replaced_order_stands_afterwards(case: Case, rules: int) -> None:
    desk = desk_under(rules)
    say(desk, QUEUE)
    desk.say(case.says)
    wanted = case.rules_1 if rules == 1 else case.rules_2
    assert lines(desk.book()) == lines(wanted.replace(" / ", "\n"))
    lots, price = case.says.split()[3], case.says.split()[5]
    assert desk.told() == f"replaced ann buy @ {price} rests {lots}"


@pytest.mark.parametrize("side", ["buy", "sell"])
@pytest.mark.parametrize(("rules", "first"), [(1, "dee"), (2, "ann")])
def test_the_next_trade_is_with_whom_the_rules_say(rules: int, first: str, side: str) -> None:
    desk = desk_under(rules)
    say(desk, f"ann {side} 5 @ 100 as x / dee {side} 2 @ 100 / ann replace x 1 @ 100")
    desk.say(f"bob {'sell' if side == 'buy' else 'buy'} 1 @ 100")
    assert desk.told().splitlines()[1] == f"trade 1 @ 100 {first} -> bob"


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize(("side", "asset"), [("buy", QUOTE), ("sell", BASE)])
def test_a_smaller_replacement_gives_back_what_it_no_longer_needs(rules: int, side: str, asset: int) -> None:
    """Money is the same under both rules, fees of a part that was filled before included."""
    desk = desk_under(rules, maker_ppm=333, taker_ppm=7_777)
    say(desk, f"ann {side} 50 @ 1000 as x / bob {'sell' if side == 'buy' else 'buy'} 20 @ 1000")
    before = desk.balance("ann", asset)
    desk.say("ann replace x 7 @ 1000", expected_filled=20)
    event = desk.events[0]
    assert event[ev.OP_HELD_CHANGE] < 0
    after = desk.balance("ann", asset)
    assert (after[0] - before[0], after[1] - before[1]) == (-event[ev.OP_HELD_CHANGE], event[ev.OP_HELD_CHANGE])
    desk.say("ann cancel x")
    assert desk.balance("ann", asset)[1] == 0
    assert (desk.order("x").lots_filled, desk.order("x").fee_paid) == (20, 7)


def test_an_order_that_keeps_its_place_keeps_its_standing_too() -> None:
    desk = desk_under(2)
    say(desk, "ann buy 5 @ 100 as x / bob sell 2 @ 100")
    desk.time = 77
    result = desk.say("ann replace x 1 @ 100")
    order = desk.order("x")
    assert (order.status, order.lots_filled, order.updated_ns) == (c.PARTIAL, 2, 77)
    assert order.updated_sequence == desk.engine.state.sequence
    assert (result[ev.R_OPEN], result[ev.R_FILLED], result[ev.R_STATUS]) == (1, 2, c.PARTIAL)


@pytest.mark.parametrize("rules", RULES)
def test_refusals_of_a_replacement_are_the_same_under_all_rules(rules: int) -> None:
    """Even those that a REDUCE would not meet."""
    desk = desk_under(rules, min_lots=2, min_notional=300)
    say(desk, "ann buy 5 @ 100 as x / ann sell 5 stop 90 as asleep")
    assert reason_of(desk.say("ann replace x 1 @ 100")) == "QUANTITY_TOO_SMALL"
    assert reason_of(desk.say("ann replace x 2 @ 100")) == "NOTIONAL_TOO_SMALL"
    assert reason_of(desk.say("ann replace x 4 @ 100", expected_filled=1)) == "FILLED_QUANTITY_CHANGED"
    assert reason_of(desk.say("ann replace asleep 5 @ 90")) == "ORDER_ASLEEP"
    say(desk, "cy sell 2 @ 200 / dee buy 2 @ 200")
    desk.send(cmd.update_market("operator", 0, {D_BAND_PPM: 100_000}))
    assert reason_of(desk.say("ann replace x 4 @ 100")) == "PRICE_OUT_OF_BAND"


def test_a_stop_limit_order_that_woke_and_rests_keeps_its_place() -> None:
    desk = desk_under(2)
    say(desk, "ann buy 5 @ 100 stop 105 as x")
    desk.last_trade(105)
    say(desk, "dee buy 2 @ 100 / ann replace x 3 @ 100")
    assert desk.book() == "bid 100  ann:3 dee:2"


def test_new_rules_hold_for_orders_that_rested_before_and_in_a_snapshot() -> None:
    desk = desk_under(1)
    say(desk, QUEUE)
    desk.send(cmd.activate_rules("operator", 2))
    desk.engine = Engine.restore(desk.engine.snapshot())
    assert desk.engine.state.rules_version == 2
    desk.say("ann replace x 4 @ 100")
    assert desk.book() == "bid 100  cy:1 ann:4 dee:2"


@pytest.mark.parametrize("rules", RULES)
def test_feeds_follow_a_replacement_under_all_rules(rules: int) -> None:
    desk = desk_under(rules)
    say(desk, "ann buy 5 @ 100 as x")
    mirror = BookMirror(desk.market, desk.engine.state.sequence)
    balances = BalanceCopy(desk.engine.state, "ann")
    for text in ("ann replace x 3 @ 100", "dee buy 2 @ 100", "ann replace x 3 @ 100", "ann replace x 9 @ 100"):
        desk.say(text)
        for event in desk.events:
            mirror.apply(event)
        balances.apply(desk.events, desk.engine.state.markets)
        fresh = BookMirror(desk.market, desk.engine.state.sequence)
        assert (mirror.bids.levels, mirror.bids.keys) == (fresh.bids.levels, fresh.bids.keys)
        held = balances.balances[QUOTE]
        assert (held.available, held.held) == desk.balance("ann", QUOTE)

"""What a trader may expect of the book: the ladder before, what is said, the ladder after, what is told."""

from dataclasses import dataclass

import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from tests.unit.core.desk import Desk, lines

pytestmark = pytest.mark.core


@dataclass
class Case:
    claim: str
    before: str
    says: str
    after: str
    told: str


BOOK = """
    ask 103  cy:4
    ask 102  bob:3 cy:2
    bid 100  bob:5 cy:1
    bid 99   bob:2
"""
UNCHANGED = BOOK

CASES = [
    Case(
        "the best price trades first, then the next",
        BOOK,
        "ann buy 6 @ 103",
        """
        ask 103  cy:3
        bid 100  bob:5 cy:1
        bid 99   bob:2
        """,
        """
        accepted ann buy @ 103 rests 0
        trade 3 @ 102 bob -> ann
        trade 2 @ 102 cy -> ann
        trade 1 @ 103 cy -> ann
        """,
    ),
    Case(
        "at one price the first come trades first",
        BOOK,
        "ann sell 6 @ 100",
        """
        ask 103  cy:4
        ask 102  bob:3 cy:2
        bid 99   bob:2
        """,
        """
        accepted ann sell @ 100 rests 0
        trade 5 @ 100 bob -> ann
        trade 1 @ 100 cy -> ann
        """,
    ),
    Case(
        "a partly filled order keeps its place",
        BOOK,
        "ann sell 2 @ 100",
        """
        ask 103  cy:4
        ask 102  bob:3 cy:2
        bid 100  bob:3 cy:1
        bid 99   bob:2
        """,
        """
        accepted ann sell @ 100 rests 0
        trade 2 @ 100 bob -> ann
        """,
    ),
    Case(
        "an order that meets nobody rests behind those who came before",
        BOOK,
        "ann buy 7 @ 100",
        """
        ask 103  cy:4
        ask 102  bob:3 cy:2
        bid 100  bob:5 cy:1 ann:7
        bid 99   bob:2
        """,
        "accepted ann buy @ 100 rests 7",
    ),
    Case(
        "what a limit order does not fill rests at its price",
        BOOK,
        "ann buy 9 @ 102",
        """
        ask 103  cy:4
        bid 102  ann:4
        bid 100  bob:5 cy:1
        bid 99   bob:2
        """,
        """
        accepted ann buy @ 102 rests 4
        trade 3 @ 102 bob -> ann
        trade 2 @ 102 cy -> ann
        """,
    ),
    Case(
        "what an IOC order does not fill is cancelled",
        BOOK,
        "ann buy 9 @ 102 ioc",
        """
        ask 103  cy:4
        bid 100  bob:5 cy:1
        bid 99   bob:2
        """,
        """
        accepted ann buy @ 102 rests 0
        trade 3 @ 102 bob -> ann
        trade 2 @ 102 cy -> ann
        cancelled ann buy 4 remainder
        """,
    ),
    Case(
        "an IOC order with no liquidity is cancelled",
        BOOK,
        "ann buy 9 @ 101 ioc",
        UNCHANGED,
        """
        accepted ann buy @ 101 rests 0
        cancelled ann buy 9 remainder
        """,
    ),
    Case(
        "a FOK order that can be filled whole is",
        BOOK,
        "ann buy 9 @ 103 fok",
        """
        bid 100  bob:5 cy:1
        bid 99   bob:2
        """,
        """
        accepted ann buy @ 103 rests 0
        trade 3 @ 102 bob -> ann
        trade 2 @ 102 cy -> ann
        trade 4 @ 103 cy -> ann
        """,
    ),
    Case(
        "a FOK order that lacks one lot is refused and changes nothing",
        BOOK,
        "ann buy 10 @ 103 fok",
        UNCHANGED,
        "rejected FOK_NOT_FILLABLE",
    ),
    Case(
        "a FOK order whose price stops short is refused",
        BOOK,
        "ann buy 6 @ 102 fok",
        UNCHANGED,
        "rejected FOK_NOT_FILLABLE",
    ),
    Case(
        "a post-only order that would trade is refused",
        BOOK,
        "ann buy 1 @ 102 post-only",
        UNCHANGED,
        "rejected POST_ONLY_WOULD_CROSS",
    ),
    Case(
        "a post-only order one tick away rests",
        BOOK,
        "ann buy 1 @ 101 post-only",
        """
        ask 103  cy:4
        ask 102  bob:3 cy:2
        bid 101  ann:1
        bid 100  bob:5 cy:1
        bid 99   bob:2
        """,
        "accepted ann buy @ 101 rests 1",
    ),
    Case(
        "a market order trades through prices and never rests",
        BOOK,
        "ann sell 20 market",
        """
        ask 103  cy:4
        ask 102  bob:3 cy:2
        """,
        """
        accepted ann sell @ 90 rests 0
        trade 5 @ 100 bob -> ann
        trade 1 @ 100 cy -> ann
        trade 2 @ 99 bob -> ann
        cancelled ann sell 12 remainder
        """,
    ),
    Case(
        "a market order stops at the protection price that it names",
        BOOK,
        "ann buy 9 market @ 102",
        """
        ask 103  cy:4
        bid 100  bob:5 cy:1
        bid 99   bob:2
        """,
        """
        accepted ann buy @ 102 rests 0
        trade 3 @ 102 bob -> ann
        trade 2 @ 102 cy -> ann
        cancelled ann buy 4 remainder
        """,
    ),
    Case(
        "a market order without a price is protected by a tenth from the best price",
        """
        ask 113  bob:1
        ask 112  bob:1
        ask 102  bob:1
        """,
        "ann buy 3 market",
        "ask 113  bob:1",
        """
        accepted ann buy @ 112 rests 0
        trade 1 @ 102 bob -> ann
        trade 1 @ 112 bob -> ann
        cancelled ann buy 1 remainder
        """,
    ),
    Case(
        "a market order into an empty side is refused",
        "bid 100  bob:5",
        "ann buy 1 market",
        "bid 100  bob:5",
        "rejected NO_LIQUIDITY",
    ),
    Case(
        "a market order into an empty side is refused even with a protection price",
        "bid 100  bob:5",
        "ann buy 1 market @ 120",
        "bid 100  bob:5",
        "rejected NO_LIQUIDITY",
    ),
    Case(
        "a market FOK order is refused beyond its protection",
        BOOK,
        "ann buy 6 market @ 102 fok",
        UNCHANGED,
        "rejected FOK_NOT_FILLABLE",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.claim)
def test_an_order_meets_the_book(case: Case) -> None:
    desk = Desk()
    desk.given(case.before)
    desk.say(case.says)
    assert lines(desk.told()) == lines(case.told)
    assert lines(desk.book()) == lines(case.after)


QUEUE = """
    ask 102  bob:3
    bid 100  cy:1
"""

CHANGES = [
    Case(
        "a reduced order keeps its place",
        "ann buy 5 @ 100 as x / dee buy 2 @ 100",
        "ann reduce x by 3",
        """
        ask 102  bob:3
        bid 100  cy:1 ann:2 dee:2
        """,
        "reduced ann buy @ 100 to 2",
    ),
    Case(
        "an order reduced to nothing is cancelled",
        "ann buy 5 @ 100 as x / dee buy 2 @ 100",
        "ann reduce x by 5",
        """
        ask 102  bob:3
        bid 100  cy:1 dee:2
        """,
        "cancelled ann buy 5 reduced",
    ),
    Case(
        "more cannot be taken off than is open",
        "ann buy 5 @ 100 as x",
        "ann reduce x by 6",
        """
        ask 102  bob:3
        bid 100  cy:1 ann:5
        """,
        "refused REDUCE_EXCEEDS_OPEN",
    ),
    Case(
        "taking nothing off is refused",
        "ann buy 5 @ 100 as x",
        "ann reduce x by 0",
        """
        ask 102  bob:3
        bid 100  cy:1 ann:5
        """,
        "refused QUANTITY_TOO_SMALL",
    ),
    Case(
        "a replaced order moves to its new price and size",
        "ann buy 5 @ 100 as x",
        "ann replace x 8 @ 101",
        """
        ask 102  bob:3
        bid 101  ann:8
        bid 100  cy:1
        """,
        "replaced ann buy @ 101 rests 8",
    ),
    Case(
        "a replaced order that crosses trades as the taker and rests",
        "ann buy 5 @ 100 as x",
        "ann replace x 8 @ 102",
        """
        bid 102  ann:5
        bid 100  cy:1
        """,
        """
        replaced ann buy @ 102 rests 5
        trade 3 @ 102 bob -> ann
        """,
    ),
    Case(
        "a replaced post-only order may not cross, and stays as it was",
        "ann buy 5 @ 100 post-only as x / dee buy 2 @ 100",
        "ann replace x 8 @ 102",
        """
        ask 102  bob:3
        bid 100  cy:1 ann:5 dee:2
        """,
        "refused POST_ONLY_WOULD_CROSS",
    ),
    Case(
        "a replacement that the account cannot pay leaves all as it was",
        "ann buy 5 @ 100 as x / dee buy 2 @ 100",
        "ann replace x 900000000 @ 101",
        """
        ask 102  bob:3
        bid 100  cy:1 ann:5 dee:2
        """,
        "refused INSUFFICIENT_FUNDS",
    ),
    Case(
        "a cancelled order leaves those before and behind it in place",
        "ann buy 5 @ 100 as x / dee buy 2 @ 100",
        "ann cancel x",
        """
        ask 102  bob:3
        bid 100  cy:1 dee:2
        """,
        "cancelled ann buy 5 requested",
    ),
    Case(
        "an order of another account is not found",
        "ann buy 5 @ 100 as x",
        "bob cancel x",
        """
        ask 102  bob:3
        bid 100  cy:1 ann:5
        """,
        "refused ORDER_NOT_FOUND",
    ),
    Case(
        "a stop order that sleeps cannot be replaced",
        "ann buy 5 stop 105 as x",
        "ann replace x 5 @ 100",
        QUEUE,
        "refused ORDER_ASLEEP",
    ),
]


@pytest.mark.parametrize("rules", [1, 2])
@pytest.mark.parametrize("case", CHANGES, ids=lambda case: case.claim)
def test_an_order_is_changed(case: Case, rules: int) -> None:
    desk = Desk()
    desk.send(cmd.activate_rules("operator", rules))
    desk.given(QUEUE)
    for order in case.before.split(" / "):
        desk.say(order)
    before = desk.engine.state.accounts["ann"].balances[1].held
    desk.say(case.says)
    assert lines(desk.told()) == lines(case.told)
    assert lines(desk.book()) == lines(case.after)
    if case.told.startswith("refused"):
        assert desk.balance("ann", 1)[1] == before


def test_an_order_is_not_found_once_it_is_closed_and_forgotten() -> None:
    desk = Desk()
    desk.say("ann buy 5 @ 100 as x")
    desk.say("ann cancel x")
    assert desk.say("ann cancel x")[2] == 42, "closed"
    desk.engine.state.max_finished_orders = 1
    desk.say("ann buy 5 @ 100 as y")
    desk.say("ann cancel y")
    assert desk.say("ann cancel x")[2] == 41, "not found"


def test_a_replacement_that_expects_another_fill_is_refused() -> None:
    desk = Desk()
    desk.say("ann buy 5 @ 100 as x")
    desk.say("bob sell 2 @ 100")
    desk.say("ann replace x 5 @ 100", expected_filled=0)
    assert desk.told() == "refused FILLED_QUANTITY_CHANGED"
    desk.say("ann replace x 5 @ 100", expected_filled=2)
    assert desk.told() == "replaced ann buy @ 100 rests 5"
    assert (desk.order("x").lots_filled, desk.order("x").status) == (2, c.PARTIAL)


OWN = """
    ask 102  bob:1 ann:2 cy:3
    ask 101  bob:1
"""

SELF_TRADES = [
    Case(
        "none: an account may trade with itself",
        OWN,
        "ann buy 5 @ 102 stp=none",
        "ask 102  cy:2",
        """
        accepted ann buy @ 102 rests 0
        trade 1 @ 101 bob -> ann
        trade 1 @ 102 bob -> ann
        trade 2 @ 102 ann -> ann
        trade 1 @ 102 cy -> ann
        """,
    ),
    Case(
        "newest: the incoming order ends before its own resting one",
        OWN,
        "ann buy 5 @ 102 stp=newest",
        "ask 102  ann:2 cy:3",
        """
        accepted ann buy @ 102 rests 0
        trade 1 @ 101 bob -> ann
        trade 1 @ 102 bob -> ann
        cancelled ann buy 3 self-trade
        """,
    ),
    Case(
        "oldest: the own resting order goes, the incoming one trades on",
        OWN,
        "ann buy 5 @ 102 stp=oldest",
        "",
        """
        accepted ann buy @ 102 rests 0
        trade 1 @ 101 bob -> ann
        trade 1 @ 102 bob -> ann
        cancelled ann sell 2 self-trade
        trade 3 @ 102 cy -> ann
        """,
    ),
    Case(
        "both: the own resting order and the incoming one go",
        OWN,
        "ann buy 5 @ 102 stp=both",
        "ask 102  cy:3",
        """
        accepted ann buy @ 102 rests 0
        trade 1 @ 101 bob -> ann
        trade 1 @ 102 bob -> ann
        cancelled ann sell 2 self-trade
        cancelled ann buy 3 self-trade
        """,
    ),
    Case(
        "newest: own orders in the way make a FOK order unfillable",
        OWN,
        "ann buy 5 @ 102 fok stp=newest",
        OWN,
        "rejected FOK_NOT_FILLABLE",
    ),
    Case(
        "newest: a FOK order that is filled before its own order trades",
        OWN,
        "ann buy 2 @ 102 fok stp=newest",
        "ask 102  ann:2 cy:3",
        """
        accepted ann buy @ 102 rests 0
        trade 1 @ 101 bob -> ann
        trade 1 @ 102 bob -> ann
        """,
    ),
    Case(
        "oldest: a FOK order counts on the others only",
        OWN,
        "ann buy 6 @ 102 fok stp=oldest",
        OWN,
        "rejected FOK_NOT_FILLABLE",
    ),
    Case(
        "oldest: a FOK order that the others fill removes its own in the way",
        OWN,
        "ann buy 5 @ 102 fok stp=oldest",
        "",
        """
        accepted ann buy @ 102 rests 0
        trade 1 @ 101 bob -> ann
        trade 1 @ 102 bob -> ann
        cancelled ann sell 2 self-trade
        trade 3 @ 102 cy -> ann
        """,
    ),
    Case(
        "both: own orders in the way make a FOK order unfillable",
        OWN,
        "ann buy 3 @ 102 fok stp=both",
        OWN,
        "rejected FOK_NOT_FILLABLE",
    ),
]


@pytest.mark.parametrize("case", SELF_TRADES, ids=lambda case: case.claim)
def test_an_account_meets_its_own_orders(case: Case) -> None:
    desk = Desk()
    desk.given(case.before)
    desk.say(case.says)
    assert lines(desk.told()) == lines(case.told)
    assert lines(desk.book()) == lines(case.after)


def test_the_market_decides_about_self_trades_where_the_order_does_not() -> None:
    desk = Desk(stp=c.STP_CANCEL_OLDEST)
    desk.say("ann sell 1 @ 100")
    desk.say("ann buy 1 @ 100")
    assert lines(desk.told()) == lines("""
        accepted ann buy @ 100 rests 1
        cancelled ann sell 1 self-trade
    """)


def test_a_last_own_order_removed_with_its_level_leaves_the_next_level_to_trade() -> None:
    desk = Desk()
    desk.given("""
        ask 102  bob:3
        ask 101  ann:1
    """)
    desk.say("ann buy 2 @ 102 stp=oldest")
    assert lines(desk.book()) == lines("ask 102  bob:1")

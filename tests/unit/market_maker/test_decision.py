"""Why a market is quoted or not, and that what is quoted can be paid for."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.market_maker.decision import View, decide
from exchange.market_maker.funds import afford, held
from exchange.market_maker.orders import OwnOrder
from exchange.market_maker.position import Fill, Position
from exchange.market_maker.quoting import BUY, SELL, Outside, quotes
from exchange.market_maker.rules import default_settings
from tests.unit.market_maker.quoting_cases import Case, cases, rules, settings

VIEW = View(
    rules=rules(),
    settings=settings(),
    position=Position("BTCUSD"),
    orders=(OwnOrder("1", "BTCUSD", BUY, 4_000_000, 10), OwnOrder("2", "BTCUSD", SELL, 6_000_000, 10)),
    reference=Decimal(50_000),
    movement=Fraction(0),
    outside=Outside(),
    base=Decimal(100),
    quote=Decimal(1_000_000),
)


def test_a_market_with_all_that_is_needed_is_quoted() -> None:
    found = decide(VIEW)
    assert found.state == "QUOTING"
    assert len(found.changes.places) == 10
    assert len(found.changes.cancels) == 2


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({"settings": settings(enabled=False)}, "DISABLED"),
        ({"reference": None}, "STALE_REFERENCE"),
        ({"rules": rules(is_open=False)}, "MARKET_CLOSED"),
        ({"refused": True}, "MARKET_CLOSED"),
        ({"position": Position("BTCUSD", stopped=True)}, "LOSS_LIMIT"),
        ({"base": Decimal(-1), "quote": Decimal(-100)}, "NO_FUNDS"),
        ({"rules": rules(low_ticks=1, high_ticks=100)}, "NO_ROOM"),
        ({"settings": settings(max_inventory=Decimal(0))}, "NO_ROOM"),
    ],
)
def test_quotes_are_pulled_for_each_reason(changed: dict[str, object], state: str) -> None:
    found = decide(replace(VIEW, **changed))  # type: ignore[arg-type]
    assert found.state == state
    assert not found.changes.places
    assert not found.changes.kept
    assert found.changes.cancels == VIEW.orders


def test_a_side_without_funds_is_not_quoted() -> None:
    poor = replace(VIEW, orders=())
    assert {side for side, _ in decide(replace(poor, base=Decimal(0))).changes.places} == {BUY}
    assert {side for side, _ in decide(replace(poor, quote=Decimal(0))).changes.places} == {SELL}


def test_all_levels_of_a_side_share_the_money() -> None:
    wished = quotes(rules(), settings(), Decimal(50_000), Fraction(0), Decimal(0), Outside())
    paid = afford(wished, rules(), Decimal("0.5"), Decimal(25_000))
    assert [level.lots for level in paid.asks] == [20_000, 20_000, 10_000]
    assert [level.lots for level in paid.bids][:2] == [20_000, 20_000]
    assert len(paid.bids) == 3
    assert paid.bids[2].lots < 20_000


@given(cases(), st.decimals(0, 10_000, places=5), st.decimals(0, 10_000_000, places=2))
def test_what_is_quoted_is_paid_for(case: Case, base: Decimal, quote: Decimal) -> None:
    wished = quotes(case.rules, case.settings, case.reference, case.movement, case.inventory, case.outside)
    paid = afford(wished, case.rules, base, quote)
    assert sum((held(case.rules, BUY, level.ticks, level.lots) for level in paid.bids), Decimal(0)) <= quote
    assert sum((held(case.rules, SELL, level.ticks, level.lots) for level in paid.asks), Decimal(0)) <= base
    for side, whole in ((paid.bids, wished.bids), (paid.asks, wished.asks)):
        by_price = {level.ticks: level.lots for level in whole}
        assert all(level.lots <= by_price[level.ticks] for level in side)
        assert all(case.rules.allows(level.ticks, level.lots) for level in side)


@given(cases(), st.decimals(0, 1_000, places=5), st.decimals(0, 1_000_000, places=2))
def test_deciding_twice_changes_nothing_more(case: Case, base: Decimal, quote: Decimal) -> None:
    view = View(
        case.rules, case.settings, Position("BTCUSD", inventory=case.inventory), (), case.reference, case.movement,
        case.outside, base, quote,
    )  # fmt: skip
    first = decide(view)
    placed = tuple(
        OwnOrder(str(number), "BTCUSD", side, level.ticks, level.lots)
        for number, (side, level) in enumerate(first.changes.places)
    )
    again = decide(replace(view, orders=placed, base=first.base_left, quote=first.quote_left))
    assert not again.changes.cancels
    assert not again.changes.places
    assert (again.base_left, again.quote_left) == (first.base_left, first.quote_left)


# --- position, profit, loss ---

MONDAY, TUESDAY = date(2026, 11, 30), date(2026, 12, 1)


def test_profit_is_of_the_day_at_the_reference() -> None:
    position = Position("BTCUSD").marked(MONDAY, Decimal(50_000), settings())
    position = position.filled(Fill("BTCUSD", BUY, Decimal(1), Decimal(49_900), Decimal(50)))
    assert position.profit_today(Decimal(50_000)) == 50
    position = position.filled(Fill("BTCUSD", SELL, Decimal(1), Decimal(50_100), Decimal(50)))
    assert (position.inventory, position.profit_today(Decimal(1))) == (Decimal(0), Decimal(100))
    assert position.marked(TUESDAY, Decimal(50_000), settings()).profit_today(Decimal(50_000)) == 0


def test_the_loss_limit_stops_until_an_operator_allows_more() -> None:
    limits = settings(max_daily_loss=Decimal(100))
    position = Position("BTCUSD").marked(MONDAY, Decimal(50_000), limits)
    position = position.filled(Fill("BTCUSD", BUY, Decimal(1), Decimal(50_000), Decimal(0)))
    assert not position.marked(MONDAY, Decimal("49900.01"), limits).stopped
    position = position.marked(MONDAY, Decimal(49_900), limits)
    assert position.stopped
    assert position.marked(MONDAY, Decimal(60_000), limits).stopped, "a better price is no permission"
    assert position.marked(TUESDAY, Decimal(49_900), limits).stopped, "nor is another day"
    allowed = position.marked(MONDAY, Decimal(49_900), replace(limits, allowance=1))
    assert not allowed.stopped
    assert allowed.profit_today(Decimal(49_900)) == -100, "the day's result stays what it is"
    assert allowed.marked(MONDAY, Decimal(49_800), replace(limits, allowance=1)).stopped


def test_defaults_suit_the_price_of_the_market() -> None:
    found = default_settings(rules(), enabled=True)
    assert (found.level_quantity, found.max_inventory) == (Decimal("0.2"), Decimal(4))
    found = default_settings(rules(lot=Decimal("0.0001"), last_price=Decimal(3_000)), enabled=False)
    assert (found.level_quantity, found.enabled) == (Decimal(3), False)
    assert default_settings(rules(last_price=None), enabled=True).level_quantity == Decimal("0.00001")

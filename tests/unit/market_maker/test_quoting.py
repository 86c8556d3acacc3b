"""Where quotes stand: bounds hold whatever the market, the settings and the situation are."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from exchange.market_maker.movement import WINDOW_S, Movement
from exchange.market_maker.quoting import Outside, Quotes, quotes, spread_of
from tests.unit.market_maker.quoting_cases import Case, cases, rules, settings

NOBODY = Outside()


def asked(case: Case) -> Quotes:
    return quotes(case.rules, case.settings, case.reference, case.movement, case.inventory, case.outside)


def test_a_calm_market_is_quoted_a_little_wider_than_the_least_spread() -> None:
    found = quotes(rules(), settings(levels=2), Decimal(50_000), Fraction(0), Decimal(0), NOBODY)
    assert [level.ticks for level in found.bids] == [4_996_640, 4_994_960]
    assert [level.ticks for level in found.asks] == [5_003_360, 5_005_040]
    assert {level.lots for level in (*found.bids, *found.asks)} == {20_000}


@given(cases(with_others=False))
def test_the_spread_stays_within_its_bounds_but_for_the_tick(case: Case) -> None:
    found = asked(case)
    if not found.bids or not found.asks or not case.rules.low_ticks < found.bids[0].ticks:
        return
    reference = case.reference_ticks
    apart = found.asks[0].ticks - found.bids[0].ticks
    # Levels that the market does not take, the best among them, are left out: then the rest lies further apart.
    if found.bids[0].ticks >= reference * (1 - Fraction(case.settings.max_spread)) - 2:
        assert apart >= reference * Fraction(case.settings.min_spread)
    assert apart >= 1
    spread = spread_of(case.settings, case.movement)
    assert Fraction(case.settings.min_spread) <= spread <= Fraction(case.settings.max_spread)


@given(cases(with_others=False))
def test_rounding_widens_the_spread_by_less_than_two_ticks(case: Case) -> None:
    wide = replace(
        case.rules, low_ticks=-(10**12), high_ticks=10**12, min_lots=0, min_notional=Decimal(-(10**15)), max_lots=0
    )
    found = asked(
        replace(case, rules=wide, inventory=Decimal(0), settings=replace(case.settings, max_inventory=Decimal(10**9)))
    )
    apart = found.asks[0].ticks - found.bids[0].ticks
    assert apart < case.reference_ticks * Fraction(case.settings.max_spread) + 3
    assert apart >= case.reference_ticks * Fraction(case.settings.min_spread)
    # And so it is where orders were left standing as far from their levels as they may.
    tolerance = found.tolerance_ticks
    assert apart - 2 * tolerance >= case.reference_ticks * Fraction(case.settings.min_spread)
    assert apart + 2 * tolerance < case.reference_ticks * Fraction(case.settings.max_spread) + 3
    assert apart - 2 * tolerance >= 1


@given(cases())
def test_quotes_never_cross_one_another_or_the_others(case: Case) -> None:
    found = asked(case)
    for level in found.bids:
        assert level.ticks <= case.reference_ticks
        assert case.outside.ask_ticks is None or level.ticks < case.outside.ask_ticks
    for level in found.asks:
        assert level.ticks >= case.reference_ticks
        assert case.outside.bid_ticks is None or level.ticks > case.outside.bid_ticks
    if found.bids and found.asks:
        assert found.bids[0].ticks < found.asks[0].ticks
    assert all(better.ticks > worse.ticks for better, worse in pairwise(found.bids))
    assert all(better.ticks < worse.ticks for better, worse in pairwise(found.asks))


@given(cases())
def test_every_quote_is_one_that_the_market_takes(case: Case) -> None:
    found = asked(case)
    for side in (found.bids, found.asks):
        assert len(side) <= case.settings.levels
        for level in side:
            assert case.rules.low_ticks <= level.ticks <= case.rules.high_ticks
            assert max(case.rules.min_lots, 1) <= level.lots
            assert not case.rules.max_lots or level.lots <= case.rules.max_lots
            assert case.rules.quantity(level.lots) <= case.settings.level_quantity
            assert case.rules.price(level.ticks) * case.rules.quantity(level.lots) >= case.rules.min_notional


@given(cases())
def test_inventory_stays_allowed_if_a_side_trades_whole(case: Case) -> None:
    found = asked(case)
    bought = sum((case.rules.quantity(level.lots) for level in found.bids), Decimal(0))
    sold = sum((case.rules.quantity(level.lots) for level in found.asks), Decimal(0))
    assert not bought or case.inventory + bought <= case.settings.max_inventory
    assert not sold or case.inventory - sold >= -case.settings.max_inventory


@given(cases(with_others=False), st.decimals(Decimal("0.0001"), 100, places=4))
def test_who_holds_more_bids_no_higher_and_offers_no_dearer(case: Case, more: Decimal) -> None:
    limits = replace(case.settings, max_inventory=Decimal(10_000))
    less = asked(replace(case, settings=limits))
    longer = asked(replace(case, settings=limits, inventory=case.inventory + more))
    if less.bids and longer.bids and len(less.bids) == len(longer.bids) == limits.levels:
        assert longer.bids[0].ticks <= less.bids[0].ticks
    if less.asks and longer.asks and len(less.asks) == len(longer.asks) == limits.levels:
        assert longer.asks[0].ticks <= less.asks[0].ticks


def test_the_skew_moves_both_sides_against_the_inventory() -> None:
    def best(inventory: int) -> tuple[int, int]:
        found = quotes(rules(), settings(), Decimal(50_000), Fraction(0), Decimal(inventory), NOBODY)
        return found.bids[0].ticks, found.asks[0].ticks

    short, even, long = best(-2), best(0), best(2)
    assert long[0] < even[0] < short[0]
    assert long[1] < even[1] < short[1]


def test_all_levels_of_a_side_share_the_room_that_is_left() -> None:
    found = quotes(rules(), settings(max_inventory=Decimal("0.5")), Decimal(50_000), Fraction(0), Decimal(0), NOBODY)
    assert [level.lots for level in found.bids] == [20_000, 20_000, 10_000]
    assert [level.lots for level in found.asks] == [20_000, 20_000, 10_000]


def test_at_the_limit_of_the_inventory_one_side_is_quoted() -> None:
    full = quotes(rules(), settings(), Decimal(50_000), Fraction(0), Decimal(4), NOBODY)
    assert (len(full.bids), len(full.asks)) == (0, 5)
    owing = quotes(rules(), settings(), Decimal(50_000), Fraction(0), Decimal(-4), NOBODY)
    assert (len(owing.bids), len(owing.asks)) == (5, 0)


@given(cases(), st.decimals(0, 1, places=4))
def test_movement_never_makes_the_spread_smaller(case: Case, more: Decimal) -> None:
    assert spread_of(case.settings, case.movement + Fraction(more)) >= spread_of(case.settings, case.movement)


def test_movement_is_the_range_of_the_last_minute() -> None:
    movement = Movement()
    assert movement.range() == 0
    movement.add(0.0, Decimal(90))
    movement.add(1.0, Decimal(110))
    movement.add(WINDOW_S, Decimal(100))
    assert movement.range() == Fraction(1, 5)
    movement.add(WINDOW_S + 0.5, Decimal(100))
    assert movement.range() == Fraction(1, 10), "90 is older than a minute"


def test_a_side_that_would_trade_rests_behind_the_others() -> None:
    found = quotes(rules(), settings(levels=1), Decimal(50_000), Fraction(0), Decimal(0), Outside(5_100_000, None))
    assert found.asks[0].ticks == 5_100_001
    found = quotes(rules(), settings(levels=1), Decimal(50_000), Fraction(0), Decimal(0), Outside(None, 4_900_000))
    assert found.bids[0].ticks == 4_899_999

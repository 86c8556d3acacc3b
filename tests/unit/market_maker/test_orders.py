"""The fewest changes: what may stay stays, and what stands afterwards is what should."""

from __future__ import annotations

from decimal import Decimal
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from exchange.market_maker.account import AccountBook, AccountOrder
from exchange.market_maker.exchange import Book
from exchange.market_maker.orders import OwnOrder, changes, outside
from exchange.market_maker.position import Fill
from exchange.market_maker.quoting import BUY, SELL, Level, Outside, Quotes
from tests.unit.market_maker.quoting_cases import own_orders, rules

LOTS = 20
wanted_quotes = st.builds(
    lambda bids, asks, tolerance: Quotes(
        tuple(Level(ticks, LOTS) for ticks in sorted(bids, reverse=True)),
        tuple(Level(ticks, LOTS) for ticks in sorted(asks)),
        tolerance,
    ),
    st.sets(st.integers(960, 999), max_size=5),
    st.sets(st.integers(1_001, 1_040), max_size=5),
    st.integers(0, 15),
)


def fits(order: OwnOrder, side: str, level: Level, tolerance: int) -> bool:
    near = abs(order.ticks - level.ticks) <= tolerance
    return order.side == side and near and level.lots / 2 <= order.lots <= level.lots


@given(own_orders(1_000), wanted_quotes)
def test_what_stands_afterwards_is_one_order_for_each_level(orders: list[OwnOrder], wanted: Quotes) -> None:
    found = changes(orders, wanted)
    assert sorted((*found.kept, *found.cancels), key=lambda order: int(order.order_id)) == orders
    for side in (BUY, SELL):
        kept = [order for order in found.kept if order.side == side]
        places = [level for where, level in found.places if where == side]
        assert set(places) <= set(wanted.of(side))
        assert len(places) == len(set(places))
        open_levels = [level for level in wanted.of(side) if level not in places]
        assert len(kept) == len(open_levels)
        # Sorted alike, each order that is kept stands for its level.
        for order, level in zip(
            sorted(kept, key=lambda one: one.ticks), sorted(open_levels, key=lambda one: one.ticks), strict=True
        ):
            assert fits(order, side, level, wanted.tolerance_ticks)


@given(
    st.lists(st.integers(990, 1_000), max_size=4),
    st.sets(st.integers(988, 1_000), max_size=4),
    st.integers(0, 6),
)
def test_no_other_choice_keeps_more(prices: list[int], levels: set[int], tolerance: int) -> None:
    orders = [OwnOrder(str(number), "BTCUSD", BUY, ticks, LOTS) for number, ticks in enumerate(prices)]
    wanted = Quotes(tuple(Level(ticks, LOTS) for ticks in sorted(levels, reverse=True)), (), tolerance)
    padded = [*wanted.bids, *([None] * len(orders))]
    best = max(
        sum(
            level is not None and fits(order, BUY, level, tolerance)
            for order, level in zip(orders, choice, strict=True)
        )
        for choice in permutations(padded, len(orders))
    )
    assert len(changes(orders, wanted).kept) == best


def test_nothing_changes_where_all_is_as_it_should_be() -> None:
    orders = [OwnOrder("1", "BTCUSD", BUY, 990, LOTS), OwnOrder("2", "BTCUSD", SELL, 1_010, LOTS // 2)]
    found = changes(orders, Quotes((Level(992, LOTS),), (Level(1_008, LOTS),), tolerance_ticks=2))
    assert (found.cancels, found.places) == ((), ())


def test_what_is_mostly_filled_or_too_large_is_replaced() -> None:
    wanted = Quotes((Level(990, LOTS),), (Level(1_010, LOTS),), tolerance_ticks=0)
    orders = [OwnOrder("1", "BTCUSD", BUY, 990, LOTS // 2 - 1), OwnOrder("2", "BTCUSD", SELL, 1_010, LOTS + 1)]
    found = changes(orders, wanted)
    assert {order.order_id for order in found.cancels} == {"1", "2"}
    assert found.places == ((BUY, Level(990, LOTS)), (SELL, Level(1_010, LOTS)))


def test_without_quotes_all_orders_go() -> None:
    orders = [OwnOrder("1", "BTCUSD", BUY, 990, 5), OwnOrder("2", "BTCUSD", SELL, 1_010, 5)]
    assert changes(orders, Quotes()).cancels == tuple(orders)


def test_the_best_prices_of_the_others_leave_out_our_own() -> None:
    market = rules(tick=Decimal(1), lot=Decimal(1))
    book = Book(
        bids=((Decimal(100), Decimal(5)), (Decimal(99), Decimal(7))),
        asks=((Decimal(101), Decimal(5)),),
    )
    own = [OwnOrder("1", "BTCUSD", BUY, 100, 5), OwnOrder("2", "BTCUSD", SELL, 101, 3)]
    assert outside(book, own, market) == Outside(99, 101)
    assert outside(book, [*own, OwnOrder("3", "BTCUSD", SELL, 101, 2)], market) == Outside(99, None)


def test_the_account_counts_fills_and_forgets_ended_orders() -> None:
    book = AccountBook({}, "")
    placed = AccountOrder("7", "BTCUSD", BUY, Decimal("50000.00"), Decimal("0.2"))
    book.changed(placed)
    book.filled(Fill("BTCUSD", BUY, Decimal("0.05"), Decimal(2500), Decimal("2.5")))
    book.changed(AccountOrder("7", "BTCUSD", BUY, Decimal(50_000), Decimal("0.15")))
    assert book.orders(rules()) == [OwnOrder("7", "BTCUSD", BUY, 5_000_000, 15_000)]
    assert (book.position("BTCUSD").inventory, book.position("BTCUSD").cash) == (Decimal("0.05"), Decimal("-2502.5"))
    book.changed(AccountOrder("7", "BTCUSD", BUY, Decimal(50_000), Decimal(0)))
    assert book.count("BTCUSD") == 0
    book.begin_anew([AccountOrder("8", "BTCUSD", SELL, Decimal("50000.005"), Decimal(1))])
    assert book.orders(rules())[0].ticks == 0, "off the tick: it stands for no level"

"""The reference price: who counts, who does not, and why."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.market_data.venues.board import Board
from exchange.market_data.venues.book import MAX_LEVELS, VenueBook
from exchange.market_data.venues.reference import Comparison, Rules, compare, median
from exchange.market_data.venues.ticks import Tick, decode, encode

NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
RULES = Rules(stale_s=10.0, outlier_ppm=20_000)


def tick(venue: str, bid: str | None, ask: str | None, age_s: float = 0.0) -> Tick:
    return Tick(
        venue=venue,
        symbol="BTCUSD",
        bid=None if bid is None else Decimal(bid),
        ask=None if ask is None else Decimal(ask),
        received_ns=NOW - int(age_s * SECOND),
    )


def judged(*ticks: Tick) -> Comparison:
    return compare("BTCUSD", ticks, NOW, RULES)


def verdicts(found: Comparison) -> dict[str, str]:
    return {venue.tick.venue: venue.why for venue in found.venues}


def test_the_reference_price_is_the_median_of_the_middles() -> None:
    found = judged(tick("a", "99", "101"), tick("b", "100", "102"), tick("c", "100.5", "100.7"))
    assert found.price == Decimal("100.6")
    assert found.venue_count == 3
    assert [venue.deviation_ppm for venue in found.venues] == [-5964, 3976, 0]


def test_of_two_it_is_the_mean() -> None:
    assert judged(tick("a", "99", "101"), tick("b", "100", "102")).price == Decimal("100.5")


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (tick("odd", "100", "101", age_s=10.1), "stale"),
        (tick("odd", "103", "104"), "outlier"),
        (tick("odd", "101", "100"), "crossed"),
        (tick("odd", "100", "100"), "crossed"),
        (tick("odd", None, None), "no_book"),
        (tick("odd", "100", None), "no_book"),
    ],
)
def test_a_venue_that_cannot_be_believed_is_left_out_and_named(odd: Tick, why: str) -> None:
    found = judged(tick("a", "99.9", "100.1"), odd, tick("b", "100", "100.2"))
    assert verdicts(found) == {"a": "", "b": "", "odd": why}
    assert found.price == Decimal("100.05")
    assert found.venue_count == 2


def test_just_within_the_bounds_counts() -> None:
    found = judged(tick("a", "100", "100.2"), tick("b", "100", "100.2"), tick("c", "102", "102.204", age_s=10.0))
    assert verdicts(found)["c"] == ""


def test_one_venue_alone_is_believed() -> None:
    assert judged(tick("a", "99", "101"), tick("b", None, None)).price == Decimal(100)


def test_of_two_that_disagree_neither_is_believed() -> None:
    found = judged(tick("a", "100", "100.2"), tick("b", "110", "110.2"))
    assert found.price is None
    assert verdicts(found) == {"a": "outlier", "b": "outlier"}
    assert found.price_ns is None


def test_a_liar_cannot_move_the_price_beyond_the_honest() -> None:
    for lie in ("1", "100.3", "101.9", "1000000"):
        found = judged(tick("a", "100", "100.2"), tick("b", "100.4", "100.6"), tick("liar", lie, str(Decimal(lie) + 1)))
        assert found.price is not None
        assert Decimal("100.1") <= found.price <= Decimal("100.5")


def test_nothing_is_nothing() -> None:
    found = judged()
    assert (found.price, found.venue_count, found.venues) == (None, 0, ())
    assert median([]) is None


def test_the_price_is_as_old_as_the_oldest_in_it() -> None:
    found = judged(tick("a", "99", "101", 3), tick("b", "99", "101", 1), tick("c", "99", "101", 50))
    assert found.price_ns == NOW - 3 * SECOND


def test_a_tick_that_waited_does_not_replace_a_later_one() -> None:
    board = Board({"BTCUSD": ("a",)}, RULES)
    board.take(tick("a", "99", "101"))
    board.take(tick("a", "1", "2", age_s=1))
    board.take(tick("unknown", "1", "2"))
    assert board.compare("BTCUSD", NOW).price == Decimal(100)
    assert len(board.ticks()) == 1


def test_a_trade_stays_until_the_next_one() -> None:
    board = Board({"BTCUSD": ("a",)}, RULES)
    board.take(Tick(venue="a", symbol="BTCUSD", trade=Decimal(7), received_ns=1))
    board.take(tick("a", "99", "101"))
    assert board.ticks()[0].trade == Decimal(7)


def test_a_tick_is_the_same_after_the_queue() -> None:
    one = Tick(venue="a", symbol="BTCUSD", bid=Decimal("0.00000001"), ask=Decimal("50001.50"), received_ns=NOW)
    assert decode(encode(one)) == one
    assert b'"bid":"0.00000001"' in encode(one) or b'"bid":"1E-8"' in encode(one)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"no", b"{}", b"\xff", b'{"venue":"a","symbol":"B","received_ns":"x"}',
        b'{"venue":"a","symbol":"B","bid":"NaN","ask":"1","received_ns":1}',
        b'{"venue":"a","symbol":"B","bid":"-1","ask":"1","received_ns":1}',
        b'{"venue":"a","symbol":"B","bid":"Infinity","ask":"1","received_ns":1}',
    ],
)  # fmt: skip
def test_what_is_no_tick_is_none(data: bytes) -> None:
    assert decode(data) is None


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 12), st.integers(0, 3)),
        max_size=60,
    )
)
def test_a_book_is_as_a_table_of_its_levels(changes: list[tuple[bool, int, int]]) -> None:
    book = VenueBook()
    tables: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for is_bid, price, quantity in changes:
        level = [(Decimal(price), Decimal(quantity))]
        book.apply(level if is_bid else [], [] if is_bid else level)
        table = tables[0 if is_bid else 1]
        if quantity:
            table[price] = quantity
        else:
            table.pop(price, None)
        bids, asks = tables
        best_bid = (Decimal(max(bids)), Decimal(bids[max(bids)])) if bids else None
        best_ask = (Decimal(min(asks)), Decimal(asks[min(asks)])) if asks else None
        assert (book.best_bid, book.best_ask) == (best_bid, best_ask)
        assert len(book) == len(bids) + len(asks)


def test_a_book_has_a_bound_and_forgets_the_farthest() -> None:
    one = Decimal(1)
    book = VenueBook(
        [(Decimal(price), one) for price in range(1, MAX_LEVELS + 2)],
        [(Decimal(price), one) for price in range(MAX_LEVELS * 2, MAX_LEVELS - 1, -1)],
    )
    assert len(book) == 2 * MAX_LEVELS
    assert book.best_bid == (Decimal(MAX_LEVELS + 1), one)
    assert book.best_ask == (Decimal(MAX_LEVELS), one)

"""Books kept from the engine's events alone are the engine's books, order by order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from exchange.market_data import events as ev
from exchange.market_data.book import OrderBook
from exchange.market_data.books import Books
from exchange.market_data.follower import Inconsistent
from exchange.runtime.errors import ErrorReason, ServiceError
from tests.unit.market_data.engine_history import EngineHistory, Kept, Wish, assert_equal_books
from tests.unit.market_data.wishes import frames

BUY, SELL = ev.BUY, ev.SELL


def following(history: EngineHistory) -> Books:
    books = Books()
    books.begin(history.snapshot())
    return books


@given(before=frames, after=frames)
@settings(max_examples=40, deadline=None)
def test_a_book_kept_from_events_is_the_engine_s_order_by_order(
    before: list[list[Wish]], after: list[list[Wish]]
) -> None:
    history = EngineHistory()
    for wishes in before:
        for wish in wishes:
            history.wish(wish)
        history.frame()
    books = following(history)
    assert_equal_books(history, books)

    for wishes in after:
        for wish in wishes:
            history.wish(wish)
        books.take(history.batch())
        assert_equal_books(history, books)
    assert books.differed == 0


@given(wished=frames)
@settings(max_examples=10, deadline=None)
def test_by_the_first_rules_a_replaced_order_always_loses_its_place(wished: list[list[Wish]]) -> None:
    history = EngineHistory(rules=1)
    books = following(history)
    for wishes in wished:
        for wish in (*wishes, (2, *wishes[0][1:])):
            history.wish(wish)
        books.take(history.batch())
        assert_equal_books(history, books)


@given(wished=frames)
@settings(max_examples=15, deadline=None)
def test_the_book_is_the_same_wherever_it_begins(wished: list[list[Wish]]) -> None:
    history = EngineHistory()
    begun = [following(history)]
    for wishes in wished:
        for wish in wishes:
            history.wish(wish)
        batch = history.batch()
        for books in begun:
            books.take(batch)
        begun.append(following(history))

    for books in begun:
        assert_equal_books(history, books)


def test_a_book_that_differs_is_found_by_the_engine_s_hash() -> None:
    history = EngineHistory()
    history.wish((10, 0, 0, 4_000, 5, 1))
    history.wish((10, 1, 0, 4_000, 7, 1))
    history.frame()
    books = following(history)
    queue = books.markets["XY"].book._queues[BUY, 4_000]
    # The same level, and another order of priority.
    first = next(iter(queue))
    queue[first] = queue.pop(first)
    history.wish((6, 0, 0, 0, 0, 1))

    with pytest.raises(Inconsistent, match="is not the engine's"):
        books.take(history.batch())

    assert (books.verified, books.differed) == (1, 1)


def test_a_crossed_book_is_not_let_out() -> None:
    books, kept = following(EngineHistory()), Kept()
    books.add(kept)
    first = books.sequence + 1
    accepted = [
        ev.OrderAccepted(first + step, 1, "XY", first + step, side, price, "1.0")
        for step, (side, price) in enumerate(((BUY, "1000.25"), (SELL, "1000.00")))
    ]

    with pytest.raises(Inconsistent, match="crossed"):
        books.take(ev.Batch(first, first + 1, 1, b"12345678", "", list(accepted)))

    assert kept.frames == []


RESTING = ev.OrderAccepted(10, 1, "XY", 10, BUY, "1000.00", "2.0")


@pytest.mark.parametrize(
    "event",
    [
        RESTING,
        ev.OrderCancelled(11, 1, "XY", 9, was_resting=True),
        ev.OrderReplaced(11, 1, "XY", 9, BUY, "1000.00", "1.0", kept_place=False),
        ev.TradeExecuted(11, 1, "XY", "11-1", "1000.00", "1.0", "1000", SELL, 9, "1.0"),
        ev.TradeExecuted(11, 1, "XY", "11-1", "1000.00", "1.0", "1000", SELL, 10, "0.5"),
        ev.TradeExecuted(11, 1, "XY", "11-1", "1000.25", "1.0", "1000", SELL, 10, "1.0"),
    ],
    ids=["accepted twice", "cancelled", "replaced", "unknown maker", "other quantity", "other price"],
)
def test_an_event_that_makes_no_sense_is_named(event: Any) -> None:
    book = OrderBook("XY", "0.25", "0.1")
    book.apply(RESTING)

    with pytest.raises(Inconsistent, match="XY, sequence 1"):
        book.apply(event)


def test_an_event_of_a_market_that_nobody_knows_is_named() -> None:
    books = following(EngineHistory())
    event = msgspec.structs.replace(RESTING, symbol="NONE")

    with pytest.raises(Inconsistent, match="NONE"):
        books.take(ev.Batch(10, 10, 1, b"12345678", "", [event]))


def test_markets_are_found_by_any_form_of_their_name() -> None:
    books = following(EngineHistory())

    assert books.market("x/y") is books.market("XY")
    for symbol, reason in (("", ErrorReason.FIELD_REQUIRED), ("NONE", ErrorReason.UNKNOWN_SYMBOL)):
        with pytest.raises(ServiceError) as caught:
            books.market(symbol)
        assert caught.value.reason == reason
    with pytest.raises(ServiceError) as caught:
        Books().market("XY")
    assert caught.value.reason == ErrorReason.NOT_READY

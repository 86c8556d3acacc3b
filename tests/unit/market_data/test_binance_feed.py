"""Binance's rules of sequence, on messages as its documentation shows them."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.market_data.venues.binance import MAX_BUFFERED, BinanceDialect
from exchange.market_data.venues.dialect import Broken, Counts, Fault

E_MS = 1_672_515_782_136


def dialect() -> BinanceDialect:
    return BinanceDialect({"BTCUSD": "BTCUSDT"}, Counts())


def streamed(stream: str, data: dict[str, Any]) -> str:
    return json.dumps({"stream": f"btcusdt@{stream}", "data": data})


def depth(first: int, last: int, bids: list[Any] | None = None, asks: list[Any] | None = None, **more: int) -> str:
    data = {"e": "depthUpdate", "E": E_MS, "s": "BTCUSDT", "U": first, "u": last, "b": bids or [], "a": asks or []}
    return streamed("depth@100ms", data | more)


def ticker(update: int, bid: str = "50000.00", ask: str = "50001.00", quantity: str = "1.0") -> str:
    return streamed("bookTicker", {"u": update, "s": "BTCUSDT", "b": bid, "B": quantity, "a": ask, "A": "2.00000000"})


def snapshot(last: int) -> bytes:
    body = {"lastUpdateId": last, "bids": [["50000.00", "1.00000000"]], "asks": [["50001.00", "2.00000000"]]}
    return json.dumps(body).encode()


def whole(last: int = 100) -> BinanceDialect:
    """With a book at an update."""
    found = dialect()
    found.receive(depth(last - 1, last))
    assert list(found.snapshots_wanted()) == ["BTCUSD"]
    found.snapshot("BTCUSD", snapshot(last))
    return found


def best(found: BinanceDialect) -> tuple[str, str]:
    book = found.books["BTCUSD"]
    assert book.best_bid is not None
    assert book.best_ask is not None
    return str(book.best_bid[0]), str(book.best_ask[0])


def test_all_streams_of_all_markets_come_on_one_connection() -> None:
    found = BinanceDialect({"BTCUSD": "BTCUSDT", "ETHUSD": "ETHUSDT"}, Counts())
    assert found.path() == (
        "/stream?streams=btcusdt@depth@100ms/btcusdt@trade/btcusdt@bookTicker"
        "/ethusdt@depth@100ms/ethusdt@trade/ethusdt@bookTicker"
    )


def test_a_snapshot_is_asked_for_once_and_only_after_the_first_event() -> None:
    found = dialect()
    assert list(found.snapshots_wanted()) == []
    found.receive(depth(1, 2))
    assert list(found.snapshots_wanted()) == ["BTCUSD"]
    assert list(found.snapshots_wanted()) == []
    assert found.snapshot_path("BTCUSD") == "/api/v3/depth?symbol=BTCUSDT&limit=1000"
    found.snapshot_failed("BTCUSD")
    assert list(found.snapshots_wanted()) == ["BTCUSD"]


def test_events_that_the_snapshot_contains_are_dropped_and_the_rest_applied() -> None:
    found = dialect()
    found.receive(depth(90, 95, bids=[["49999.00", "7"]]))
    found.receive(depth(96, 103, bids=[["50000.50", "3"]]))
    found.receive(depth(104, 104, asks=[["50001.00", "0.00000000"], ["50002.00", "1"]]))
    found.snapshot("BTCUSD", snapshot(100))
    assert best(found) == ("50000.50", "50002.00")
    assert len(found.books["BTCUSD"]) == 3, "what the first event said is in the snapshot, or is not so any more"


def test_a_snapshot_from_before_the_first_event_is_asked_for_again() -> None:
    found = dialect()
    found.receive(depth(90, 95))
    assert list(found.snapshots_wanted()) == ["BTCUSD"]
    found.snapshot("BTCUSD", snapshot(88))
    assert found.books == {}
    assert list(found.snapshots_wanted()) == ["BTCUSD"]


def test_an_event_with_a_hole_before_it_takes_the_book_away_until_a_new_snapshot() -> None:
    found = whole(100)
    heard = found.receive(depth(102, 103, bids=[["60000.00", "1"]]))
    assert found.books == {}
    assert heard.moved == {"BTCUSD"}
    assert found.counts.gaps == 1
    assert list(found.snapshots_wanted()) == ["BTCUSD"]
    found.snapshot("BTCUSD", snapshot(102))
    assert best(found) == ("60000.00", "50001.00"), "the event that showed the hole counts after the new snapshot"


def test_a_hole_among_the_events_that_waited_is_found() -> None:
    found = dialect()
    found.receive(depth(99, 100))
    found.receive(depth(105, 106))
    found.receive(depth(107, 108))
    found.snapshot("BTCUSD", snapshot(100))
    assert found.books == {}
    assert found.counts.gaps == 1
    found.snapshots_wanted()
    found.snapshot("BTCUSD", snapshot(105))
    found.receive(depth(109, 110))
    assert found.counts.gaps == 1


def test_an_old_event_changes_nothing() -> None:
    found = whole(100)
    assert found.receive(depth(98, 100, bids=[["60000.00", "1"]])).moved == set()
    assert best(found)[0] == "50000.00"


def test_events_that_name_the_one_before_must_follow_it() -> None:
    """As the futures' streams do: their ids have holes of their own."""
    found = whole(100)
    found.receive(depth(101, 110, pu=100))
    found.receive(depth(150, 160, pu=110))
    assert found.counts.gaps == 0
    found.receive(depth(161, 170, pu=155))
    assert found.counts.gaps == 1
    assert found.books == {}


@pytest.mark.parametrize("wrong", [{"bid": "50000.01"}, {"ask": "50001.01"}, {"quantity": "1.5"}])
def test_a_best_price_that_is_not_the_book_tickers_takes_the_book_away(wrong: dict[str, str]) -> None:
    found = whole(100)
    found.receive(ticker(100))
    assert "BTCUSD" in found.books
    found.receive(ticker(100, **wrong))
    assert found.books == {}
    assert found.counts.mismatches == 1


def test_a_book_ticker_that_is_ahead_is_compared_when_the_book_has_come_so_far() -> None:
    found = whole(100)
    found.receive(ticker(102, bid="50000.70", quantity="4"))
    found.receive(ticker(99, bid="1"))
    assert "BTCUSD" in found.books, "one of another update says nothing of this book"
    found.receive(ticker(102, bid="50000.70", quantity="4"))
    found.receive(depth(101, 102, bids=[["50000.80", "4"]]))
    assert found.books == {}


def test_a_trade_is_told_with_the_venues_time() -> None:
    trade = {"e": "trade", "E": E_MS, "s": "BTCUSDT", "t": 1, "p": "50000.10", "q": "1", "T": E_MS - 1, "m": True}
    heard = dialect().receive(streamed("trade", trade))
    assert heard.trades == {"BTCUSD": Decimal("50000.10")}
    assert heard.venue_ns == E_MS * 1_000_000


@pytest.mark.parametrize(
    "text", ['{"result":null,"id":1}', '{"stream":"xyz@depth","data":{}}', '{"stream":"btcusdt@kline_1m","data":{}}']
)
def test_what_is_not_of_a_market_of_ours_is_passed_over(text: str) -> None:
    heard = dialect().receive(text)
    assert not heard.moved
    assert not heard.trades


@pytest.mark.parametrize(
    "text",
    [
        "", "no json", "[]", "{", b"\xff\xfe", '{"stream":"btcusdt@depth"}', "[" * 100_000,
        depth(-1, 2), depth(1, 2**64), depth(1, 2, bids=[["NaN", "1"]]), depth(1, 2, bids=[["1e9", "1"]]),
        depth(1, 2, bids=[["-5", "1"]]), depth(1, 2, bids=[["0", "1"]]), depth(1, 2, bids=[["5", "-1"]]),
        depth(1, 2, bids=[["9" * 50, "1"]]), depth(1, 2, bids=[["5"]]), depth(1, 2, bids=[[5.0, 1]]),
        streamed("trade", {"E": E_MS, "p": "Infinity"}), streamed("bookTicker", {"u": "1"}),
    ],
)  # fmt: skip
def test_garbage_breaks_the_connection_and_nothing_else(text: str | bytes) -> None:
    found = whole(1)
    with pytest.raises(Broken) as broken:
        found.receive(text)
    assert broken.value.fault is Fault.GARBAGE


def test_a_refusal_says_why() -> None:
    with pytest.raises(Broken, match="Too many requests") as broken:
        dialect().receive('{"code":2,"msg":"Too many requests","id":1}')
    assert broken.value.fault is Fault.REFUSED


def test_events_do_not_wait_for_a_snapshot_without_bound() -> None:
    found = dialect()
    for number in range(MAX_BUFFERED):
        found.receive(depth(number, number))
    with pytest.raises(Broken, match="no snapshot"):
        found.receive(depth(MAX_BUFFERED, MAX_BUFFERED))


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["e", "E", "U", "u", "b", "a", "p", "x"]), inner, max_size=6)
            ),
            max_leaves=12,
        ).map(lambda data: json.dumps({"stream": "btcusdt@depth", "data": data})),
    )
)
def test_whatever_comes_is_heard_or_breaks_the_connection(message: str | bytes) -> None:
    with contextlib.suppress(Broken):
        whole(100).receive(message)

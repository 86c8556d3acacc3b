"""Coinbase's rules of sequence, on messages as its documentation shows them."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.market_data.venues.coinbase import CoinbaseDialect
from exchange.market_data.venues.dialect import Broken, Counts, Fault

TIME = "2023-02-09T20:32:50.714964855Z"


class Session:
    """Messages of one connection, numbered as Coinbase does."""

    def __init__(self) -> None:
        self.dialect = CoinbaseDialect({"BTCUSD": "BTC-USD"}, Counts())
        self.numbers = count()

    def message(self, channel: str, events: Any, number: int | None = None) -> str:
        sequence = next(self.numbers) if number is None else number
        return json.dumps(
            {"channel": channel, "client_id": "", "timestamp": TIME, "sequence_num": sequence, "events": events}
        )

    def book(
        self, kind: str, *levels: tuple[str, str, str], product: str = "BTC-USD", number: int | None = None
    ) -> str:
        updates = [
            {"side": side, "event_time": "1970-01-01T00:00:00Z", "price_level": price, "new_quantity": quantity}
            for side, price, quantity in levels
        ]
        return self.message("l2_data", [{"type": kind, "product_id": product, "updates": updates}], number)

    def begin(self) -> None:
        """Subscribed, with a book."""
        self.dialect.receive(self.book("snapshot", ("bid", "21921.73", "0.06"), ("offer", "21921.75", "0.1")))
        self.dialect.receive(self.message("subscriptions", [{"subscriptions": {"level2": ["BTC-USD"]}}]))

    @property
    def best(self) -> tuple[str, str]:
        book = self.dialect.books["BTCUSD"]
        assert book.best_bid is not None
        assert book.best_ask is not None
        return str(book.best_bid[0]), str(book.best_ask[0])


@pytest.fixture
def session() -> Session:
    return Session()


def test_each_channel_is_subscribed_to_by_a_message_of_its_own(session: Session) -> None:
    asked = [json.loads(text) for text in session.dialect.greeting()]
    assert [one["channel"] for one in asked] == ["level2", "market_trades", "heartbeats"]
    assert all(one["type"] == "subscribe" and one["product_ids"] == ["BTC-USD"] for one in asked)


def test_updates_are_absolute_quantities_after_a_snapshot(session: Session) -> None:
    session.begin()
    heard = session.dialect.receive(
        session.book("update", ("bid", "21921.74", "1"), ("bid", "21921.73", "0"), ("offer", "21999", "0"))
    )
    assert heard.moved == {"BTCUSD"}
    assert session.best == ("21921.74", "21921.75")
    assert len(session.dialect.books["BTCUSD"]) == 2
    expected = int(datetime(2023, 2, 9, 20, 32, 50, 714964, UTC).timestamp() * 1e6) * 1_000
    assert heard.venue_ns == expected


def test_a_missing_number_ends_the_connection_whatever_channel_it_was_of(session: Session) -> None:
    session.begin()
    next(session.numbers)
    with pytest.raises(Broken, match="sequence_num 3 came after 1") as broken:
        session.dialect.receive(session.message("heartbeats", [{"heartbeat_counter": 1}]))
    assert broken.value.fault is Fault.GAP
    assert session.dialect.counts.gaps == 1


def test_an_old_number_changes_nothing(session: Session) -> None:
    session.begin()
    assert session.dialect.receive(session.book("update", ("bid", "21921.74", "1"), number=1)).moved == set()
    assert session.best[0] == "21921.73"


def test_a_missing_heartbeat_ends_the_connection(session: Session) -> None:
    session.begin()
    session.dialect.receive(session.message("heartbeats", [{"current_time": "", "heartbeat_counter": "3049"}]))
    session.dialect.receive(session.message("heartbeats", [{"current_time": "", "heartbeat_counter": 3050}]))
    with pytest.raises(Broken, match="heartbeat_counter 3052"):
        session.dialect.receive(session.message("heartbeats", [{"heartbeat_counter": 3052}]))
    assert session.dialect.counts.gaps == 1


def test_an_update_before_its_snapshot_ends_the_connection(session: Session) -> None:
    with pytest.raises(Broken, match="before its snapshot"):
        session.dialect.receive(session.book("update", ("bid", "1", "1")))


def test_another_snapshot_replaces_the_book(session: Session) -> None:
    session.begin()
    session.dialect.receive(session.book("snapshot", ("bid", "5", "1"), ("offer", "6", "1")))
    assert session.best == ("5", "6")


def test_the_newest_trade_counts_and_those_from_before_we_came_do_not(session: Session) -> None:
    def trades(kind: str, *prices: str) -> str:
        listed = [
            {"trade_id": "1", "product_id": "BTC-USD", "price": price, "size": "0.3", "side": "BUY", "time": TIME}
            for price in prices
        ]
        return session.message("market_trades", [{"type": kind, "trades": listed}])

    assert session.dialect.receive(trades("snapshot", "1")).trades == {}
    assert session.dialect.receive(trades("update", "1260.01", "1260.00")).trades == {"BTCUSD": Decimal("1260.01")}


def test_a_product_of_nobodys_is_passed_over(session: Session) -> None:
    session.begin()
    assert session.dialect.receive(session.book("update", ("bid", "1", "1"), product="XRP-USD")).moved == set()


def test_a_refusal_says_why(session: Session) -> None:
    with pytest.raises(Broken, match="failure to subscribe") as broken:
        session.dialect.receive('{"type":"error","message":"failure to subscribe"}')
    assert broken.value.fault is Fault.REFUSED


@pytest.mark.parametrize(
    ("channel", "events"),
    [
        ("l2_data", [{"type": "update", "product_id": "BTC-USD", "updates": [{"side": "up", "price_level": "1", "new_quantity": "1"}]}]),
        ("l2_data", [{"type": "update", "product_id": "BTC-USD", "updates": [{"side": "bid", "price_level": "x", "new_quantity": "1"}]}]),
        ("l2_data", {"type": "update"}),
        ("market_trades", [{"type": "update", "trades": [{"product_id": "BTC-USD", "price": 5}]}]),
        ("heartbeats", [{"heartbeat_counter": "many"}]),
    ],
)  # fmt: skip
def test_garbage_breaks_the_connection_and_nothing_else(session: Session, channel: str, events: Any) -> None:
    session.begin()
    with pytest.raises(Broken) as broken:
        session.dialect.receive(session.message(channel, events))
    assert broken.value.fault is Fault.GARBAGE


@pytest.mark.parametrize(
    "text", ["", "{}", "null", b"\xff", '{"channel":"l2_data"}', '{"channel":"l2_data","sequence_num":-1}']
)
def test_what_is_no_message_breaks_the_connection(session: Session, text: str | bytes) -> None:
    with pytest.raises(Broken) as broken:
        session.dialect.receive(text)
    assert broken.value.fault is Fault.GARBAGE


@given(
    st.sampled_from(["l2_data", "market_trades", "heartbeats", "candles", ""]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "product_id", "updates", "side", "price_level", "new_quantity", "trades", "price"]
                ),
                inner,
            )
        ),
        max_leaves=12,
    ),
)
def test_whatever_comes_is_heard_or_breaks_the_connection(channel: str, events: Any) -> None:
    session = Session()
    session.begin()
    with contextlib.suppress(Broken):
        session.dialect.receive(session.message(channel, events))

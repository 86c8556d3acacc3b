"""Trading over REST, through a real Envoy, PostgreSQL behind it."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.e2e.rest_client import RestClient

if TYPE_CHECKING:
    from tests.stack_fixture import ExchangeStack

TIMEOUT_S = 10.0


@pytest.fixture
def client(exchange_stack: ExchangeStack) -> RestClient:
    return RestClient(exchange_stack)


def test_the_seed_request_works_verbatim_and_can_be_read_back(client: RestClient) -> None:
    body = '{"symbol":"BTC/USD","side":"Buy","quantity":"1.0","price":"50000.00","order_type":"Limit"}'
    answer = client.call("POST", "/api/v1/orders", body)
    order = answer.json()

    assert answer.status == 200
    assert (order["symbol"], order["side"], order["order_type"], order["status"]) == (
        "BTCUSD",
        "BUY",
        "LIMIT",
        "PENDING",
    )
    assert (order["quantity"], order["price"], order["open_quantity"]) == ("1.00000", "50000.00", "1.00000")
    read = client.call("GET", f"/api/v1/orders/{order['order_id']}")
    assert (read.status, read.json()) == (200, order)
    assert client.call("DELETE", f"/api/v1/orders/{order['order_id']}").json()["status"] == "CANCELLED"


@pytest.mark.parametrize("side", ["Buy", "BUY", "buy"])
@pytest.mark.parametrize("order_type", ["Limit", "LIMIT", "limit"])
def test_enum_values_are_taken_in_any_case(client: RestClient, side: str, order_type: str) -> None:
    assert client.placed(side=side, order_type=order_type)["side"] == "BUY"


def test_an_order_is_changed_listed_and_cancelled(client: RestClient) -> None:
    order_id = client.placed(client_order_id="mine:1")["order_id"]
    by_id = client.call("GET", f"/api/v1/orders/by-client-order-id/{quote('mine:1')}")
    replaced = client.call("POST", f"/api/v1/orders/{order_id}/replace", {"price": "30001", "quantity": "0.02"})
    reduced = client.call("POST", f"/api/v1/orders/{order_id}/reduce", {"quantity": "0.005"})
    listed = client.call("GET", "/api/v1/orders?symbol=BTCUSD&page_size=5")
    cancelled = client.call("POST", "/api/v1/orders:cancelAll", {"symbol": "BTC-USD"})

    assert by_id.json()["order_id"] == order_id
    assert (replaced.json()["price"], replaced.json()["open_quantity"]) == ("30001.00", "0.02000")
    assert reduced.json()["open_quantity"] == "0.01500"
    assert [order["order_id"] for order in listed.json()["orders"]] == [order_id]
    assert cancelled.json()["cancelled_count"] == 1


def test_an_order_is_cancelled_by_its_client_s_id(client: RestClient) -> None:
    client.placed(client_order_id="mine")
    answer = client.call("DELETE", "/api/v1/orders/by-client-order-id/mine?request_id=c-1")

    assert (answer.status, answer.json()["status"], answer.json()["cancel_reason"]) == (200, "CANCELLED", "REQUESTED")
    assert client.call("DELETE", "/api/v1/orders/by-client-order-id/mine?request_id=c-1").json() == answer.json()


def test_a_repeat_gets_the_first_answer_and_another_body_409(client: RestClient) -> None:
    first = client.placed(client_order_id="once")
    client.call("DELETE", f"/api/v1/orders/{first['order_id']}")

    assert client.placed(client_order_id="once") == first
    other = client.place(client_order_id="once", price="30001")
    assert (other.status, other.reason()) == (409, "DUPLICATE_ID")


def test_a_batch_answers_each_order(client: RestClient) -> None:
    good = {"symbol": "BTCUSD", "side": "BUY", "order_type": "LIMIT", "quantity": "0.01", "price": "30000"}
    answer = client.call("POST", "/api/v1/orders:batchPlace", {"orders": [good, {**good, "price": "0"}]})

    done, refused = answer.json()["results"]
    assert (done["status"], refused["reason"]) == ("PENDING", "NOT_POSITIVE")


def test_trades_books_and_balances_are_told(client: RestClient, exchange_stack: ExchangeStack) -> None:
    other = RestClient(exchange_stack)
    price = "49123.45"
    resting = other.placed(side="Sell", price=price)
    taken = client.placed(price=price)
    try:
        (fill,) = client.call("GET", f"/api/v1/trades?min_sequence={taken['sequence']}").json()["trades"]
    finally:
        other.call("POST", "/api/v1/orders:cancelAll", {})
        client.call("POST", "/api/v1/orders:cancelAll", {})

    assert taken["status"] == "FILLED"
    assert (fill["order_id"], fill["is_maker"]) == (taken["order_id"], False)
    assert resting["order_id"] != taken["order_id"]
    balances = {row["asset"]: row for row in client.call("GET", "/api/v1/balances").json()["balances"]}
    assert balances["BTC"]["total"] == "10.01000000"
    market_trades = client.call("GET", "/api/v1/market-trades/BTCUSD?page_size=3").json()["trades"]
    assert fill["trade_id"] in [trade["trade_id"] for trade in market_trades]


@pytest.mark.parametrize("symbol", ["BTCUSD", "btcusd", "BTC-USD", "BTC/USD", "BTC%2FUSD"])
def test_a_symbol_in_a_path_may_be_written_in_every_form(client: RestClient, symbol: str) -> None:
    for path in ("/api/v1/orderbook", "/api/v1/markets"):
        answer = client.call("GET", f"{path}/{symbol}")
        assert (answer.status, answer.json()["symbol"]) == (200, "BTCUSD"), path


def test_the_book_over_rest_shows_an_order_at_its_price(client: RestClient) -> None:
    order = client.placed(price="49999.99", quantity="0.5")
    book = client.call("GET", f"/api/v1/orderbook/BTC/USD?depth=5000&min_sequence={order['sequence']}").json()
    client.call("DELETE", f"/api/v1/orders/{order['order_id']}")

    assert "49999.99" in [level["price"] for level in book["bids"]]
    assert isinstance(book["checksum"], int)


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("/api/v1/orderbook-stream/BTCUSD?depth=10", "snapshot"),
        ("/api/v1/trade-stream/BTCUSD", "snapshot"),
        ("/api/v1/orders:stream", "snapshot"),
        ("/api/v1/balances:stream", "snapshot"),
    ],
)
def test_a_stream_over_rest_begins_with_its_snapshot(client: RestClient, path: str, first: str) -> None:
    message = first_of_stream(client, path)

    assert first in message
    assert message["sequence"]


def first_of_stream(client: RestClient, path: str) -> dict[str, Any]:
    """The first message of a JSON array that never ends, or of lines of JSON."""
    connection = http.client.HTTPConnection(client.stack.edge_address, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"x-pincex-account": client.account})
        response = connection.getresponse()
        assert response.status == 200
        text = ""
        while True:
            text += response.read1(65_536).decode()
            try:
                found, _ = json.JSONDecoder().raw_decode(text.lstrip("[, \n"))
            except json.JSONDecodeError:
                continue
            message: dict[str, Any] = found
            return message
    finally:
        connection.close()

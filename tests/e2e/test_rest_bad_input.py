"""Bad input over REST: each has its HTTP status and its reason, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.rest_client import RestClient

if TYPE_CHECKING:
    from tests.stack_fixture import ExchangeStack


@pytest.fixture(scope="module")
def client(exchange_stack: ExchangeStack) -> RestClient:
    return RestClient(exchange_stack)


BAD_ORDERS: list[tuple[dict[str, Any], int, str]] = [
    ({"symbol": "NONE"}, 404, "UNKNOWN_SYMBOL"),
    ({"symbol": ""}, 400, "FIELD_REQUIRED"),
    ({"side": "SIDEWAYS"}, 400, "MALFORMED_REQUEST"),
    ({"side": 0}, 400, "UNKNOWN_ENUM_VALUE"),
    ({"side": "SIDE_UNSPECIFIED"}, 400, "UNKNOWN_ENUM_VALUE"),
    ({"order_type": "ICEBERG"}, 400, "MALFORMED_REQUEST"),
    ({"order_type": "ORDER_TYPE_UNSPECIFIED"}, 400, "UNKNOWN_ENUM_VALUE"),
    ({"price": "0"}, 400, "NOT_POSITIVE"),
    ({"price": "-1"}, 400, "NOT_POSITIVE"),
    ({"price": "30000.001"}, 400, "PRICE_OFF_TICK"),
    ({"price": "3e4"}, 400, "INVALID_DECIMAL"),
    ({"price": "NaN"}, 400, "INVALID_DECIMAL"),
    ({"price": "9" * 40}, 400, "INVALID_DECIMAL"),
    ({"price": "9" * 38}, 400, "NUMBER_TOO_LARGE"),
    ({"price": 30000}, 400, "MALFORMED_REQUEST"),
    ({"price": 30000.5}, 400, "MALFORMED_REQUEST"),
    ({"price": True}, 400, "MALFORMED_REQUEST"),
    ({"price": ["30000"]}, 400, "MALFORMED_REQUEST"),
    ({"price": ""}, 400, "FIELD_REQUIRED"),
    ({"quantity": "0"}, 400, "NOT_POSITIVE"),
    ({"quantity": "0.0000001"}, 400, "QUANTITY_OFF_LOT"),
    ({"quantity": "0.123456789012"}, 400, "QUANTITY_OFF_LOT"),
    ({"quantity": 1}, 400, "MALFORMED_REQUEST"),
    ({"quantity": "1000"}, 400, "INSUFFICIENT_FUNDS"),
    ({"quantity": "0.00001"}, 400, "NOTIONAL_TOO_SMALL"),
    ({"price": "10000"}, 400, "PRICE_OUT_OF_BAND"),
    ({"time_in_force": "FOK"}, 400, "FOK_NOT_FILLABLE"),
    ({"symbol": "ETHUSD", "order_type": "MARKET", "price": ""}, 400, "NO_LIQUIDITY"),
    ({"post_only": "perhaps"}, 400, "MALFORMED_REQUEST"),
    ({"expire_time": "tomorrow"}, 400, "MALFORMED_REQUEST"),
    ({"expire_time": "2100-01-01T00:00:00Z"}, 400, "FIELD_NOT_ALLOWED"),
    ({"client_order_id": "x" * 65}, 400, "INVALID_FIELD"),
    ({"price": None}, 400, "FIELD_REQUIRED"),
]


@pytest.mark.parametrize(("change", "status", "reason"), BAD_ORDERS, ids=lambda value: str(value)[:50])
def test_a_bad_order_has_its_status_and_reason(
    client: RestClient, change: dict[str, Any], status: int, reason: str
) -> None:
    answer = client.place(**change)

    assert (answer.status, answer.reason()) == (status, reason), answer.text


def test_bad_orders_leave_no_trace(client: RestClient) -> None:
    statuses = "&".join(f"statuses={name}" for name in ("PENDING", "PARTIAL", "FILLED", "CANCELLED"))
    assert client.call("GET", f"/api/v1/orders?{statuses}").json().get("orders", []) == []
    balances = {row["asset"]: row for row in client.call("GET", "/api/v1/balances").json()["balances"]}
    assert (balances["USD"]["available"], balances["USD"]["held"]) == ("1000000.00000000", "0.00000000")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("GET", "/api/v1/orders/999999999999", None, 404, "ORDER_NOT_FOUND"),
        ("GET", "/api/v1/orders/abc", None, 404, "ORDER_NOT_FOUND"),
        ("DELETE", "/api/v1/orders/999999999999", None, 404, "ORDER_NOT_FOUND"),
        ("DELETE", "/api/v1/orders/by-client-order-id/none", None, 404, "ORDER_NOT_FOUND"),
        ("POST", "/api/v1/orders/999999999999/reduce", {"quantity": "1"}, 404, "ORDER_NOT_FOUND"),
        ("POST", "/api/v1/orders/1/reduce", {"quantity": 1}, 400, "MALFORMED_REQUEST"),
        ("GET", "/api/v1/orders?page_size=501", None, 400, "INVALID_FIELD"),
        ("GET", "/api/v1/orders?page_token=AAAA", None, 400, "INVALID_PAGE_TOKEN"),
        ("GET", "/api/v1/orders?nonsense=1", None, 400, "MALFORMED_REQUEST"),
        ("GET", "/api/v1/orders?side=SIDEWAYS", None, 400, "MALFORMED_REQUEST"),
        ("GET", "/api/v1/orderbook/NONE", None, 404, "UNKNOWN_SYMBOL"),
        ("GET", "/api/v1/orderbook/BTCUSD?depth=5001", None, 400, "INVALID_FIELD"),
        ("GET", "/api/v1/orderbook-stream/BTCUSD?depth=7", None, 400, "INVALID_FIELD"),
        ("GET", "/api/v1/orderbook-stream/BTCUSD?resume_token=x", None, 400, "INVALID_RESUME_TOKEN"),
        ("POST", "/api/v1/orders:cancelAll", {"symbol": "NONE"}, 404, "UNKNOWN_SYMBOL"),
        ("POST", "/api/v1/orders:batchPlace", {"orders": []}, 400, "BATCH_TOO_LARGE"),
        ("POST", "/api/v1/orders:batchPlace", "[]", 400, "MALFORMED_REQUEST"),
    ],
)
def test_a_bad_call_has_its_status_and_reason(
    client: RestClient, method: str, path: str, body: object, status: int, reason: str
) -> None:
    answer = client.call(method, path, body)

    assert (answer.status, answer.reason()) == (status, reason), answer.text


def test_orders_of_another_account_are_not_found(client: RestClient, exchange_stack: ExchangeStack) -> None:
    other = RestClient(exchange_stack)
    order_id = other.placed(client_order_id="theirs")["order_id"]
    for method, path in (
        ("GET", f"/api/v1/orders/{order_id}"),
        ("DELETE", f"/api/v1/orders/{order_id}"),
        ("GET", "/api/v1/orders/by-client-order-id/theirs"),
    ):
        answer = client.call(method, path)
        assert (answer.status, answer.reason()) == (404, "ORDER_NOT_FOUND")
    assert other.call("DELETE", f"/api/v1/orders/{order_id}").status == 200
    again = other.call("DELETE", f"/api/v1/orders/{order_id}")
    assert (again.status, again.reason()) == (400, "ORDER_CLOSED")


def test_post_only_that_would_cross_is_refused(client: RestClient, exchange_stack: ExchangeStack) -> None:
    other = RestClient(exchange_stack)
    resting = other.placed(side="Sell", price="49500.00")
    try:
        answer = client.place(price="49500.00", post_only=True)
        assert (answer.status, answer.reason()) == (400, "POST_ONLY_WOULD_CROSS")
    finally:
        other.call("DELETE", f"/api/v1/orders/{resting['order_id']}")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("POST", "/admin/markets", {"base_asset": "BTC", "quote_asset": "ETH", "lot_size": "1" + "0" * 37}, 400, None),
        ("POST", "/admin/assets", {"code": "btc"}, 400, "INVALID_FIELD"),
        ("POST", "/admin/assets", {"code": "BTC", "decimals": 8}, 409, "ALREADY_EXISTS"),
        ("POST", "/admin/orders:massCancel", {"account": "demo"}, 400, "FIELD_REQUIRED"),
        ("POST", "/admin/orderbook/rebuild/NONE", None, 404, "UNKNOWN_SYMBOL"),
        ("GET", "/admin/orderbook/validate/NONE", None, 404, "UNKNOWN_SYMBOL"),
        ("GET", "/admin/events?from_sequence=99999999999", None, 400, "SEQUENCE_IN_FUTURE"),
        ("GET", "/admin/events?from_sequence=-1", None, 400, "MALFORMED_REQUEST"),
    ],
)
def test_a_bad_call_of_an_operator_has_its_status_and_reason(
    client: RestClient, method: str, path: str, body: object, status: int, reason: str | None
) -> None:
    answer = client.operator(method, path, body)

    assert answer.status == status, answer.text
    assert reason is None or answer.reason() == reason
    assert client.call("GET", "/api/v1/health").status == 200


def test_the_runbooks_lines_answer(client: RestClient) -> None:
    client.placed()
    rebuilt = client.operator("POST", "/admin/orderbook/rebuild/BTC-USD")
    valid = client.operator("GET", "/admin/orderbook/validate/BTC-USD")
    client.call("POST", "/api/v1/orders:cancelAll", {})

    assert (rebuilt.status, rebuilt.json()["identical"]) == (200, True)
    assert (valid.status, valid.json()["valid"]) == (200, True)
    assert client.operator("GET", "/admin/queue/depth").text.strip().isdigit()

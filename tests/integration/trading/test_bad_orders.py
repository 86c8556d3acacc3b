"""Bad input to PlaceOrder: each has its code and reason, and leaves the exchange as it was."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from exchange.trading.core.constants import MAX_AMOUNT
from pincex.trading.v1 import account_service_pb2, admin_service_pb2, types_pb2
from tests.integration.trading.engine_app import (
    BUY,
    FOK,
    GTC,
    GTD,
    IOC,
    LIMIT,
    MARKET,
    SELL,
    STOP,
    STOP_LIMIT,
    Exchange,
    placing,
    refused,
)

pytestmark = pytest.mark.each_role

FUTURE = Timestamp(seconds=4_000_000_000)
GOOD: dict[str, Any] = {"side": BUY, "quantity": "1", "price": "50000"}

# What differs from a good order, the reason, the field that the metadata name.
MALFORMED: list[tuple[dict[str, Any], str, str]] = [
    ({"side": 0}, "UNKNOWN_ENUM_VALUE", "side"),
    ({"side": 3}, "UNKNOWN_ENUM_VALUE", "side"),
    ({"side": -1}, "UNKNOWN_ENUM_VALUE", "side"),
    ({"order_type": 0}, "UNKNOWN_ENUM_VALUE", "order_type"),
    ({"order_type": 9}, "UNKNOWN_ENUM_VALUE", "order_type"),
    ({"time_in_force": 9}, "UNKNOWN_ENUM_VALUE", "time_in_force"),
    ({"self_trade_prevention": 9}, "UNKNOWN_ENUM_VALUE", "self_trade_prevention"),
    ({"self_trade_prevention": -1}, "UNKNOWN_ENUM_VALUE", "self_trade_prevention"),
    *(
        ({field: text}, reason, field)
        for field in ("price", "quantity")
        for text, reason in (
            ("0", "NOT_POSITIVE"),
            ("0.00", "NOT_POSITIVE"),
            ("-1", "NOT_POSITIVE"),
            ("-0.5", "NOT_POSITIVE"),
            ("1e3", "INVALID_DECIMAL"),
            ("1E3", "INVALID_DECIMAL"),
            ("NaN", "INVALID_DECIMAL"),
            ("Infinity", "INVALID_DECIMAL"),
            ("+1", "INVALID_DECIMAL"),
            ("-", "INVALID_DECIMAL"),
            (" 1", "INVALID_DECIMAL"),
            ("1 ", "INVALID_DECIMAL"),
            ("1,000", "INVALID_DECIMAL"),
            ("1.", "INVALID_DECIMAL"),
            (".5", "INVALID_DECIMAL"),
            ("1.2.3", "INVALID_DECIMAL"),
            ("0x10", "INVALID_DECIMAL"),
            ("\uff11", "INVALID_DECIMAL"),
            ("1" * 40, "INVALID_DECIMAL"),
            ("1" * 38, "NUMBER_TOO_LARGE"),
        )
    ),
    ({"price": "50000.001"}, "PRICE_OFF_TICK", "price"),
    ({"price": "50000.00000000000001"}, "PRICE_OFF_TICK", "price"),
    ({"quantity": "0.000001"}, "QUANTITY_OFF_LOT", "quantity"),
    ({"quantity": "0.123456789"}, "QUANTITY_OFF_LOT", "quantity"),
    ({"price": ""}, "FIELD_REQUIRED", "price"),
    ({"quantity": ""}, "FIELD_REQUIRED", "quantity"),
    ({"symbol": ""}, "FIELD_REQUIRED", "symbol"),
    ({"stop_price": "50000"}, "FIELD_NOT_ALLOWED", "stop_price"),
    ({"order_type": STOP, "price": "1", "stop_price": "51000"}, "FIELD_NOT_ALLOWED", "price"),
    ({"order_type": STOP, "price": ""}, "FIELD_REQUIRED", "stop_price"),
    ({"order_type": STOP_LIMIT}, "FIELD_REQUIRED", "stop_price"),
    ({"order_type": STOP_LIMIT, "price": "", "stop_price": "51000"}, "FIELD_REQUIRED", "price"),
    ({"order_type": STOP_LIMIT, "stop_price": "0.001"}, "PRICE_OFF_TICK", "stop_price"),
    ({"order_type": MARKET, "time_in_force": GTC}, "FIELD_NOT_ALLOWED", "time_in_force"),
    ({"order_type": STOP_LIMIT, "stop_price": "51000", "time_in_force": FOK}, "FIELD_NOT_ALLOWED", "time_in_force"),
    ({"post_only": True, "time_in_force": IOC}, "FIELD_NOT_ALLOWED", "post_only"),
    ({"post_only": True, "order_type": MARKET, "price": ""}, "FIELD_NOT_ALLOWED", "post_only"),
    ({"time_in_force": GTD}, "FIELD_REQUIRED", "expire_time"),
    ({"expire_time": FUTURE}, "FIELD_NOT_ALLOWED", "expire_time"),
    ({"time_in_force": GTD, "expire_time": Timestamp(seconds=-5)}, "INVALID_FIELD", "expire_time"),
    ({"time_in_force": GTD, "expire_time": Timestamp(seconds=2**40)}, "INVALID_FIELD", "expire_time"),
    ({"request_time": Timestamp(seconds=-5)}, "INVALID_FIELD", "request_time"),
    ({"client_order_id": "with space"}, "INVALID_FIELD", "client_order_id"),
    ({"client_order_id": "x" * 65}, "INVALID_FIELD", "client_order_id"),
    ({"client_order_id": "é"}, "INVALID_FIELD", "client_order_id"),
    ({"client_order_id": "line\nbreak"}, "INVALID_FIELD", "client_order_id"),
]


@pytest.fixture
async def books(exchange: Exchange) -> Exchange:
    """An order on each side, so that a wrong answer would have something to trade with."""
    await exchange.maker.buy("1", "49000")
    await exchange.maker.sell("1", "51000")
    return exchange


async def test_every_malformed_order_is_refused_with_its_reason_and_changes_nothing(books: Exchange) -> None:
    before = await books.state_hash()
    for change, reason, field in MALFORMED:
        refusal = await refused(books.demo.place(**{**GOOD, **change}))
        found = (refusal.code, refusal.reason, refusal.metadata["field"])
        assert found == ("INVALID_ARGUMENT", reason, field), change
        assert refusal.details == ("BadRequest",), change
        assert await books.state_hash() == before, change


@pytest.mark.parametrize("symbol", ["NONE", "BTC", "BTC USD", "BTC//USD ", "BTCUSDT", "💥", "x" * 5000])
async def test_an_unknown_symbol_is_not_found_and_changes_nothing(books: Exchange, symbol: str) -> None:
    before = await books.state_hash()
    refusal = await refused(books.demo.place(**GOOD, symbol=symbol))

    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "UNKNOWN_SYMBOL")
    assert await books.state_hash() == before


# What differs, the reason. All FAILED_PRECONDITION, journaled, and nothing but the memory of it changes.
REFUSED_BY_STATE: list[tuple[dict[str, Any], str]] = [
    ({"price": "51000", "post_only": True}, "POST_ONLY_WOULD_CROSS"),
    ({"side": SELL, "price": "49000", "post_only": True}, "POST_ONLY_WOULD_CROSS"),
    ({"quantity": "1.5", "price": "51000", "time_in_force": FOK}, "FOK_NOT_FILLABLE"),
    ({"time_in_force": FOK}, "FOK_NOT_FILLABLE"),
    ({"quantity": "2", "price": "", "order_type": MARKET, "time_in_force": FOK}, "FOK_NOT_FILLABLE"),
    ({"symbol": "ETHUSD", "price": "", "order_type": MARKET}, "NO_LIQUIDITY"),
    ({"symbol": "ETHUSD", "side": SELL, "price": "", "order_type": MARKET}, "NO_LIQUIDITY"),
    ({"quantity": "1000"}, "INSUFFICIENT_FUNDS"),
    ({"side": SELL, "quantity": "100.00001"}, "INSUFFICIENT_FUNDS"),
    ({"price": "75000.01"}, "PRICE_OUT_OF_BAND"),
    ({"price": "24999.99"}, "PRICE_OUT_OF_BAND"),
    ({"quantity": "0.00001"}, "NOTIONAL_TOO_SMALL"),
    ({"time_in_force": GTD, "expire_time": Timestamp(seconds=1)}, "EXPIRE_TIME_PASSED"),
]


async def test_every_order_that_the_state_refuses_has_its_reason_and_moves_nothing(books: Exchange) -> None:
    balances = (await books.demo.balances(), await books.maker.balances())
    for change, reason in REFUSED_BY_STATE:
        refusal = await refused(books.demo.place(**{**GOOD, **change}))
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", reason), change
    assert (await books.demo.balances(), await books.maker.balances()) == balances
    assert await books.demo.listed(statuses=[1, 2, 3, 4]) == []


async def test_a_stop_price_that_was_reached_already_is_refused(exchange: Exchange) -> None:
    await exchange.maker.sell("1", "50000")
    await exchange.demo.buy("1", "50000")

    for side, stop in ((BUY, "50000"), (BUY, "49999"), (SELL, "50000")):
        refusal = await refused(exchange.demo.place(side, "0.1", order_type=STOP, stop_price=stop))
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "STOP_ALREADY_REACHED")


async def test_missing_funds_name_the_asset(exchange: Exchange) -> None:
    poor = exchange.client("poor")
    buying = await refused(poor.buy("1", "50000", client_order_id="b"))
    selling = await refused(poor.sell("1", "50000"))

    assert buying.metadata == {"asset": "USD", "client_order_id": "b"}
    assert selling.metadata == {"asset": "BTC"}


async def test_an_order_beyond_the_account_s_limit_is_refused(exchange: Exchange) -> None:
    limits = admin_service_pb2.SetAccountLimitsRequest(account="demo", max_open_orders=2)
    await exchange.operator.ask(exchange.operator.admin.SetAccountLimits, limits)
    first = await exchange.demo.buy("0.1", "40000")
    await exchange.demo.buy("0.1", "40000")

    refusal = await refused(exchange.demo.buy("0.1", "40000"))

    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_OPEN_ORDERS")
    await exchange.demo.cancel(first.order_id)
    assert (await exchange.demo.buy("0.1", "40000")).order_id


async def test_sizes_that_no_64_bits_hold_are_refused_before_the_core(exchange: Exchange) -> None:
    for price, quantity in (("9999999999.99", "1"), ("50000", "9999999.99999"), ("9999999999", "9999999")):
        refusal = await refused(exchange.demo.buy(quantity, price))
        assert refusal.reason in {"NUMBER_TOO_LARGE", "PRICE_OUT_OF_BAND", "INSUFFICIENT_FUNDS"}
    assert (await refused(exchange.demo.buy("99999999999", "50000"))).code == "INVALID_ARGUMENT"


async def test_bytes_that_are_no_message_are_malformed(exchange: Exchange) -> None:
    for method in ("OrderService/PlaceOrder", "OrderService/ListOrders", "MarketService/GetOrderBook"):
        channel: Any = exchange.public
        raw = channel.unary_unary(f"/pincex.trading.v1.{method}")
        refusal = await refused(raw(b"\xff\xff\xffgarbage"))
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")


async def test_a_request_of_8_mb_does_not_get_in(exchange: Exchange) -> None:
    before = await exchange.state_hash()
    request = placing(BUY, "1", "50000", client_order_id="x" * 8_000_000)
    with pytest.raises(grpc.RpcError) as caught:
        await exchange.demo.ask(exchange.demo.orders.PlaceOrder, request)

    assert isinstance(caught.value, grpc.aio.AioRpcError)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await exchange.state_hash() == before
    assert (await exchange.demo.buy("1", "50000")).order_id


async def test_the_clock_of_the_machine_may_go_back(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await exchange.demo.buy("0.1", "40000")
    real = type(exchange.app.clock).time_ns
    # One clock for all parts of the engine, an hour slow from now on.
    monkeypatch.setattr(type(exchange.app.clock), "time_ns", lambda clock: real(clock) - 3_600_000_000_000)

    second = await exchange.demo.buy("0.1", "40000", client_order_id="after")
    cancelled = await exchange.demo.cancel(first.order_id)

    assert second.created_time.ToNanoseconds() >= first.created_time.ToNanoseconds()
    assert cancelled.updated_time.ToNanoseconds() >= second.created_time.ToNanoseconds()
    assert await exchange.demo.buy("0.1", "40000", client_order_id="after") == second


# --- credits ---


async def test_only_operators_credit(exchange: Exchange) -> None:
    request = account_service_pb2.CreditAccountRequest(account="demo", asset="BTC", amount="1", request_id="c")
    refusal = await refused(exchange.demo.ask(exchange.demo.accounts.CreditAccount, request))

    assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"account": ""}, "INVALID_ARGUMENT", "FIELD_REQUIRED"),
        ({"account": "$fees"}, "INVALID_ARGUMENT", "INVALID_FIELD"),
        ({"asset": ""}, "INVALID_ARGUMENT", "FIELD_REQUIRED"),
        ({"asset": "DOGE"}, "NOT_FOUND", "UNKNOWN_ASSET"),
        ({"amount": ""}, "INVALID_ARGUMENT", "FIELD_REQUIRED"),
        ({"amount": "0"}, "INVALID_ARGUMENT", "NOT_POSITIVE"),
        ({"amount": "-1"}, "INVALID_ARGUMENT", "NOT_POSITIVE"),
        ({"amount": "1e3"}, "INVALID_ARGUMENT", "INVALID_DECIMAL"),
        ({"amount": "0.000000001"}, "INVALID_ARGUMENT", "INVALID_FIELD"),
        ({"amount": "1" * 38}, "INVALID_ARGUMENT", "NUMBER_TOO_LARGE"),
        ({"amount": str(MAX_AMOUNT // 10**8)}, "FAILED_PRECONDITION", "BALANCE_LIMIT"),
        ({"request_id": ""}, "INVALID_ARGUMENT", "FIELD_REQUIRED"),
        ({"request_id": "with space"}, "INVALID_ARGUMENT", "INVALID_FIELD"),
        ({"request_time": Timestamp(seconds=1)}, "FAILED_PRECONDITION", "REQUEST_TOO_OLD"),
    ],
    ids=str,
)
async def test_a_credit_that_must_not_be_is_refused(
    exchange: Exchange, fields: dict[str, Any], code: str, reason: str
) -> None:
    good = {"account": "demo", "asset": "BTC", "amount": "1", "request_id": "c"}
    request = account_service_pb2.CreditAccountRequest(**{**good, **fields})
    refusal = await refused(exchange.operator.ask(exchange.operator.accounts.CreditAccount, request))

    assert (refusal.code, refusal.reason) == (code, reason)
    assert (await exchange.demo.balances())["BTC"] == ("100.00000000", "0.00000000")


async def test_money_is_credited_once_whatever_is_repeated(exchange: Exchange) -> None:
    first = await exchange.credit("fresh", "btc", "1.5", "c-1")
    again = await exchange.credit("fresh", "BTC", "1.5", "c-1")
    other = account_service_pb2.CreditAccountRequest(account="fresh", asset="BTC", amount="2", request_id="c-1")
    refusal = await refused(exchange.operator.ask(exchange.operator.accounts.CreditAccount, other))

    assert (first.available, again.available) == ("1.50000000", "1.50000000")
    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "DUPLICATE_ID")


async def test_an_order_of_a_type_s_every_field_is_accepted(exchange: Exchange) -> None:
    """The other side of the table of malformed ones: what is allowed is allowed."""
    fields: dict[str, Any] = {
        "time_in_force": GTD,
        "expire_time": FUTURE,
        "post_only": True,
        "client_order_id": "!~" * 32,
    }
    order = await exchange.demo.place(**GOOD, order_type=LIMIT, **fields)

    assert (order.status, order.expire_time) == (types_pb2.PENDING, FUTURE)

"""CancelOrder, ReplaceOrder, ReduceOrder and CancelAllOrders."""

from __future__ import annotations

from typing import Any

import pytest

from pincex.trading.v1 import order_commands_pb2 as pb
from pincex.trading.v1 import types_pb2
from tests.integration.trading.engine_app import BUY, IOC, STOP, Client, Exchange, refused

pytestmark = pytest.mark.each_role


async def replace(client: Client, order_id: str, quantity: str, price: str, **more: Any) -> types_pb2.Order:
    request = pb.ReplaceOrderRequest(order_id=order_id, quantity=quantity, price=price, **more)
    order: types_pb2.Order = await client.ask(client.orders.ReplaceOrder, request)
    return order


async def reduce(client: Client, order_id: str, quantity: str, **more: Any) -> types_pb2.Order:
    request = pb.ReduceOrderRequest(order_id=order_id, quantity=quantity, **more)
    order: types_pb2.Order = await client.ask(client.orders.ReduceOrder, request)
    return order


async def cancel_all(client: Client, **fields: Any) -> Any:
    return await client.ask(client.orders.CancelAllOrders, pb.CancelAllOrdersRequest(**fields))


async def first_in_line(exchange: Exchange) -> str:
    """The order that a tiny sell at 50,000 meets."""
    fill = await exchange.maker.sell("0.0001", "50000", time_in_force=IOC)
    assert fill.status == types_pb2.FILLED
    makers = [
        order for order in await exchange.demo.listed(statuses=[types_pb2.PARTIAL]) if order.sequence == fill.sequence
    ]
    assert len(makers) == 1
    return makers[0].order_id


# --- cancel ---


async def test_a_cancelled_order_gives_back_what_it_held(exchange: Exchange) -> None:
    before = await exchange.demo.balances()
    order = await exchange.demo.buy("1", "50000")
    cancelled = await exchange.demo.cancel(order.order_id)

    assert (cancelled.status, cancelled.cancel_reason) == (types_pb2.CANCELLED, types_pb2.REQUESTED)
    assert (cancelled.quantity, cancelled.open_quantity) == ("1.00000", "0.00000")
    assert cancelled.sequence > order.sequence
    assert await exchange.demo.balances() == before


async def test_an_order_is_cancelled_by_its_client_order_id(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000", client_order_id="mine")
    cancelled = await exchange.demo.cancel("", client_order_id="mine")

    assert (cancelled.order_id, cancelled.status) == (order.order_id, types_pb2.CANCELLED)


@pytest.mark.parametrize("order_id", ["999999", "0", "01", "abc", "-1", "1e3", "9" * 30, "१"])
async def test_an_order_that_never_was_cannot_be_cancelled(exchange: Exchange, order_id: str) -> None:
    refusal = await refused(exchange.demo.cancel(order_id))

    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "ORDER_NOT_FOUND")


async def test_a_filled_and_a_cancelled_order_are_closed(exchange: Exchange) -> None:
    filled = await exchange.demo.buy("1", "50000")
    await exchange.maker.sell("1", "50000")
    cancelled = await exchange.demo.buy("1", "50000", time_in_force=IOC)

    for order in (filled, cancelled):
        refusal = await refused(exchange.demo.cancel(order.order_id))
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "ORDER_CLOSED")


async def test_an_order_of_another_account_is_not_found_and_stays(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000", client_order_id="mine")
    attempts = [
        exchange.maker.cancel(order.order_id),
        exchange.maker.cancel("", client_order_id="mine"),
        replace(exchange.maker, order.order_id, "1", "49000"),
        reduce(exchange.maker, order.order_id, "0.5"),
        exchange.client("nobody").cancel(order.order_id),
        replace(exchange.client("nobody"), order.order_id, "1", "49000"),
    ]
    for attempt in attempts:
        refusal = await refused(attempt)
        assert (refusal.code, refusal.reason) == ("NOT_FOUND", "ORDER_NOT_FOUND")
    assert await exchange.demo.get(order.order_id) == order


async def test_an_order_is_named_by_exactly_one_id(exchange: Exchange) -> None:
    assert (await refused(exchange.demo.cancel(""))).reason == "FIELD_REQUIRED"
    assert (await refused(exchange.demo.cancel("1", client_order_id="mine"))).reason == "FIELD_NOT_ALLOWED"
    assert (await refused(exchange.demo.cancel("", client_order_id="with space"))).reason == "INVALID_FIELD"


async def test_a_cancel_repeated_with_its_request_id_gets_the_first_answer(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000")
    first = await exchange.demo.cancel(order.order_id, request_id="c-1")

    assert await exchange.demo.cancel(order.order_id, request_id="c-1") == first
    other = await refused(exchange.demo.cancel("77", request_id="c-1"))
    assert (other.code, other.reason, other.metadata) == ("ALREADY_EXISTS", "DUPLICATE_ID", {"request_id": "c-1"})


async def test_a_refused_cancel_is_refused_again_with_its_request_id(exchange: Exchange) -> None:
    first = await refused(exchange.demo.cancel("999", request_id="c-1"))

    assert await refused(exchange.demo.cancel("999", request_id="c-1")) == first


# --- replace ---


@pytest.mark.parametrize(("quantity", "keeps"), [("1", True), ("0.5", True), ("1.5", False)])
async def test_a_replaced_order_keeps_its_place_unless_it_grows(
    exchange: Exchange, quantity: str, *, keeps: bool
) -> None:
    one = await exchange.demo.buy("1", "50000")
    two = await exchange.demo.buy("1", "50000")
    replaced = await replace(exchange.demo, one.order_id, quantity, "50000")

    assert (replaced.order_id, replaced.status) == (one.order_id, types_pb2.PENDING)
    assert float(replaced.open_quantity) == float(quantity)
    assert await first_in_line(exchange) == (one if keeps else two).order_id


async def test_a_replaced_order_may_trade_at_once(exchange: Exchange) -> None:
    await exchange.maker.sell("0.5", "50000")
    order = await exchange.demo.buy("1", "49000")
    replaced = await replace(exchange.demo, order.order_id, "2", "50000")

    assert (replaced.status, replaced.quantity, replaced.price) == (types_pb2.PARTIAL, "2.00000", "50000.00")
    assert (replaced.filled_quantity, replaced.open_quantity) == ("0.50000", "1.50000")


async def test_a_replacement_that_the_state_refuses_leaves_the_order_as_it_was(exchange: Exchange) -> None:
    await exchange.maker.sell("1", "50000")
    order = await exchange.demo.buy("1", "49000", post_only=True)
    for quantity, price, reason in (
        ("1", "50000", "POST_ONLY_WOULD_CROSS"),
        ("1000", "49000", "INSUFFICIENT_FUNDS"),
        ("1", "80000", "PRICE_OUT_OF_BAND"),
        ("0.00001", "49000", "NOTIONAL_TOO_SMALL"),
    ):
        refusal = await refused(replace(exchange.demo, order.order_id, quantity, price))
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", reason)
    assert await exchange.demo.get(order.order_id) == order


async def test_a_replacement_guards_against_fills_in_between(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000")
    assert (
        await replace(exchange.demo, order.order_id, "1", "50001", expected_filled_quantity="0")
    ).price == "50001.00"
    await exchange.maker.sell("0.25", "50001")

    for stale in ("0", "0.00", "0.2"):
        refusal = await refused(replace(exchange.demo, order.order_id, "1", "50002", expected_filled_quantity=stale))
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "FILLED_QUANTITY_CHANGED")
    replaced = await replace(exchange.demo, order.order_id, "1", "50002", expected_filled_quantity="0.25")
    assert (replaced.quantity, replaced.open_quantity) == ("1.25000", "1.00000")


@pytest.mark.parametrize("text", ["..", ".", "0.", "0.0.0", "-0", "1e0", "nan"])
async def test_an_expected_quantity_that_is_no_decimal_is_refused(exchange: Exchange, text: str) -> None:
    order = await exchange.demo.buy("1", "50000")
    refusal = await refused(replace(exchange.demo, order.order_id, "1", "49000", expected_filled_quantity=text))

    assert refusal.code == "INVALID_ARGUMENT"
    assert refusal.metadata["field"] == "expected_filled_quantity"


async def test_a_replacement_needs_price_and_quantity(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000")

    assert (await refused(replace(exchange.demo, order.order_id, "1", ""))).metadata == {"field": "price"}
    assert (await refused(replace(exchange.demo, order.order_id, "", "1"))).metadata == {"field": "quantity"}


async def test_a_sleeping_stop_order_cannot_be_replaced(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", order_type=STOP, stop_price="51000")
    refusal = await refused(replace(exchange.demo, order.order_id, "1", "50000"))

    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "ORDER_ASLEEP")


async def test_a_replacement_repeated_with_its_request_id_gets_the_first_answer(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000")
    first = await replace(exchange.demo, order.order_id, "2", "50001", request_id="r-1")
    await exchange.maker.sell("0.5", "50001")

    assert await replace(exchange.demo, order.order_id, "2", "50001", request_id="r-1") == first
    other = await refused(replace(exchange.demo, order.order_id, "3", "50001", request_id="r-1"))
    assert (other.code, other.reason) == ("ALREADY_EXISTS", "DUPLICATE_ID")


# --- reduce ---


async def test_a_reduced_order_keeps_its_place(exchange: Exchange) -> None:
    one = await exchange.demo.buy("1", "50000")
    await exchange.demo.buy("1", "50000")
    reduced = await reduce(exchange.demo, one.order_id, "0.4")

    assert (reduced.status, reduced.quantity, reduced.open_quantity) == (types_pb2.PENDING, "0.60000", "0.60000")
    assert await first_in_line(exchange) == one.order_id


async def test_an_order_reduced_to_nothing_is_cancelled(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000")
    reduced = await reduce(exchange.demo, order.order_id, "1", request_id="r-1")

    assert (reduced.status, reduced.cancel_reason) == (types_pb2.CANCELLED, types_pb2.REDUCED_TO_ZERO)
    assert await reduce(exchange.demo, order.order_id, "1", request_id="r-1") == reduced


async def test_no_more_is_taken_off_than_is_open(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000")
    refusal = await refused(reduce(exchange.demo, order.order_id, "1.00001"))

    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "REDUCE_EXCEEDS_OPEN")
    assert (await refused(reduce(exchange.demo, order.order_id, "0"))).reason == "NOT_POSITIVE"


# --- all ---


async def test_cancel_all_cancels_the_account_s_own_of_one_symbol_or_of_all(exchange: Exchange) -> None:
    btc = [await exchange.demo.place(BUY, "0.1", f"{price}") for price in (40000, 41000)]
    eth = await exchange.demo.place(BUY, "1", "2000", symbol="ETHUSD")
    foreign = await exchange.maker.buy("1", "42000")

    answer = await cancel_all(exchange.demo, symbol="btc-usd", request_id="all-1")
    assert answer.cancelled_count == 2
    assert [order.order_id for order in await exchange.demo.listed()] == [eth.order_id]
    assert [(await exchange.demo.get(order.order_id)).cancel_reason for order in btc] == [types_pb2.REQUESTED] * 2
    assert await cancel_all(exchange.demo, symbol="BTCUSD", request_id="all-1") == answer

    assert (await cancel_all(exchange.demo)).cancelled_count == 1
    assert (await cancel_all(exchange.demo)).cancelled_count == 0
    assert (await exchange.maker.get(foreign.order_id)).status == types_pb2.PENDING


async def test_cancel_all_of_an_unknown_symbol_is_refused(exchange: Exchange) -> None:
    refusal = await refused(cancel_all(exchange.demo, symbol="NONE"))

    assert (refusal.code, refusal.reason, refusal.metadata) == ("NOT_FOUND", "UNKNOWN_SYMBOL", {"symbol": "NONE"})

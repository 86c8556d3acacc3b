"""PlaceOrder and BatchPlaceOrders: what each kind of order does, and that a repeat gets the first answer."""

from __future__ import annotations

import time
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pincex.common.v1.errors_pb2 import ErrorReason
from pincex.trading.v1 import order_service_pb2, types_pb2
from tests.integration.trading.engine_app import (
    BUY,
    FOK,
    GTC,
    GTD,
    IOC,
    MARKET,
    SELL,
    STOP,
    STOP_LIMIT,
    Exchange,
    eventually,
    placing,
    refused,
)

pytestmark = pytest.mark.each_role


def in_seconds(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(time.time_ns() + int(seconds * 1e9))
    return stamp


async def test_the_seed_order_rests_whole_and_says_everything(exchange: Exchange) -> None:
    order = await exchange.demo.place(BUY, "1.0", "50000.00", symbol="BTC/USD")

    assert order.order_id == str(order.sequence)
    assert order.symbol == "BTCUSD"
    assert (order.side, order.order_type, order.time_in_force) == (BUY, types_pb2.LIMIT, GTC)
    assert order.status == types_pb2.PENDING
    assert (order.quantity, order.filled_quantity, order.open_quantity) == ("1.00000", "0.00000", "1.00000")
    assert (order.price, order.stop_price, order.average_price) == ("50000.00", "", "")
    assert (order.filled_notional, order.fee_paid) == ("0.00000000", "0.00000000")
    assert order.self_trade_prevention == types_pb2.CANCEL_NEWEST
    assert (order.cancel_reason, order.triggered, order.post_only) == (0, False, False)
    assert order.account == "demo"
    assert not order.HasField("expire_time")
    assert order.created_time == order.updated_time
    # 50,000 and the taker's fee of 0.2 %.
    assert (await exchange.demo.balances())["USD"] == ("9949900.00000000", "50100.00000000")


@pytest.mark.parametrize("symbol", ["BTCUSD", "BTC/USD", "BTC-USD", "btcusd", "btc/usd", "BTC%2FUSD"])
async def test_a_symbol_may_be_written_in_every_usual_form(exchange: Exchange, symbol: str) -> None:
    assert (await exchange.demo.buy("0.001", "40000", symbol=symbol)).symbol == "BTCUSD"


async def test_a_limit_order_takes_the_better_price_and_rests_with_the_remainder(exchange: Exchange) -> None:
    maker = await exchange.maker.sell("1", "50000")
    taker = await exchange.demo.buy("1.5", "50100")

    assert taker.status == types_pb2.PARTIAL
    assert (taker.filled_quantity, taker.open_quantity, taker.price) == ("1.00000", "0.50000", "50100.00")
    assert (taker.filled_notional, taker.average_price) == ("50000.00000000", "50000.00000000")
    assert taker.fee_paid == "100.00000000"
    filled = await exchange.maker.get(maker.order_id)
    assert (filled.status, filled.fee_paid) == (types_pb2.FILLED, "50.00000000")
    assert filled.sequence == taker.sequence


async def test_a_market_order_takes_what_there_is_and_cancels_the_rest(exchange: Exchange) -> None:
    await exchange.maker.sell("0.4", "50000")
    order = await exchange.demo.buy("1", order_type=MARKET)

    assert (order.status, order.cancel_reason) == (types_pb2.CANCELLED, types_pb2.REMAINDER)
    assert (order.quantity, order.filled_quantity, order.open_quantity) == ("1.00000", "0.40000", "0.00000")
    assert order.time_in_force == IOC
    assert order.price == "52500.00"  # the best price moved by the market's protection of 5 %


async def test_a_market_order_trades_no_worse_than_its_own_protection_price(exchange: Exchange) -> None:
    await exchange.maker.sell("1", "50000")
    await exchange.maker.sell("1", "50010")
    order = await exchange.demo.buy("2", "50005", order_type=MARKET)

    assert (order.filled_quantity, order.price) == ("1.00000", "50005.00")


async def test_an_ioc_order_with_no_liquidity_is_cancelled_at_once(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000", time_in_force=IOC)

    assert (order.status, order.cancel_reason) == (types_pb2.CANCELLED, types_pb2.REMAINDER)
    assert (order.quantity, order.open_quantity) == ("1.00000", "0.00000")
    assert (await exchange.demo.balances())["USD"] == ("10000000.00000000", "0.00000000")


async def test_a_fok_order_fills_whole(exchange: Exchange) -> None:
    await exchange.maker.sell("0.5", "50000")
    await exchange.maker.sell("0.5", "50001")
    order = await exchange.demo.buy("1", "50001", time_in_force=FOK)

    assert (order.status, order.filled_quantity) == (types_pb2.FILLED, "1.00000")


async def test_a_gtd_order_expires_by_itself(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000", time_in_force=GTD, expire_time=in_seconds(0.05))
    assert order.HasField("expire_time")
    await eventually(lambda: not exchange.engine.state.accounts["demo"].orders, "the order expires")

    expired = await exchange.demo.get(order.order_id)
    assert (expired.status, expired.cancel_reason) == (types_pb2.CANCELLED, types_pb2.EXPIRED)


async def test_a_post_only_order_rests(exchange: Exchange) -> None:
    await exchange.maker.sell("1", "50000")
    order = await exchange.demo.buy("1", "49999.99", post_only=True)

    assert (order.status, order.post_only) == (types_pb2.PENDING, True)


async def test_a_stop_order_sleeps_until_the_last_trade_reaches_it(exchange: Exchange) -> None:
    await exchange.maker.sell("1", "50000")
    await exchange.maker.sell("1", "50500")
    stop = await exchange.demo.buy("0.5", order_type=STOP, stop_price="50000")
    assert (stop.status, stop.triggered, stop.price, stop.stop_price) == (types_pb2.PENDING, False, "", "50000.00")

    await exchange.client("maker").buy("1", "50000", self_trade_prevention=types_pb2.NONE)

    woken = await exchange.demo.get(stop.order_id)
    assert (woken.status, woken.triggered, woken.price) == (types_pb2.FILLED, True, "52500.00")
    assert woken.average_price == "50500.00000000"


async def test_a_stop_limit_order_wakes_into_the_book(exchange: Exchange) -> None:
    await exchange.maker.buy("1", "50000")
    stop = await exchange.demo.sell("0.5", "50100", order_type=STOP_LIMIT, stop_price="50000")
    assert (stop.price, stop.time_in_force) == ("50100.00", GTC)

    await exchange.maker.sell("1", "50000", self_trade_prevention=types_pb2.NONE)

    woken = await exchange.demo.get(stop.order_id)
    assert (woken.status, woken.triggered, woken.open_quantity) == (types_pb2.PENDING, True, "0.50000")


@pytest.mark.parametrize(
    ("prevention", "status", "resting"),
    [
        (0, types_pb2.CANCELLED, types_pb2.PENDING),
        (types_pb2.NONE, types_pb2.FILLED, types_pb2.FILLED),
        (types_pb2.CANCEL_NEWEST, types_pb2.CANCELLED, types_pb2.PENDING),
        (types_pb2.CANCEL_OLDEST, types_pb2.PENDING, types_pb2.CANCELLED),
        (types_pb2.CANCEL_BOTH, types_pb2.CANCELLED, types_pb2.CANCELLED),
    ],
)
async def test_self_trade_prevention_decides_who_goes(
    exchange: Exchange, prevention: int, status: int, resting: int
) -> None:
    older = await exchange.demo.sell("1", "50000")
    newer = await exchange.demo.buy("1", "50000", self_trade_prevention=prevention)

    assert (newer.status, (await exchange.demo.get(older.order_id)).status) == (status, resting)


# --- repeats ---


async def test_a_repeat_gets_the_first_answer_also_after_a_fill_and_after_the_end(exchange: Exchange) -> None:
    first = await exchange.demo.buy("1", "50000", client_order_id="mine")
    assert await exchange.demo.buy("1", "50000", client_order_id="mine") == first

    await exchange.maker.sell("0.25", "50000")
    assert await exchange.demo.buy("1", "50000", client_order_id="mine") == first

    await exchange.demo.cancel(first.order_id)
    assert await exchange.demo.buy("1.0", "50000.00", client_order_id="mine") == first


async def test_a_repeat_of_a_stop_order_that_woke_meanwhile_gets_the_first_answer(exchange: Exchange) -> None:
    fields: dict[str, Any] = {"order_type": STOP, "stop_price": "50000", "client_order_id": "stop"}
    first = await exchange.demo.buy("0.5", **fields)
    await exchange.maker.sell("1", "50000")
    await exchange.maker.buy("0.1", "50000", self_trade_prevention=types_pb2.NONE)
    assert (await exchange.demo.get(first.order_id)).triggered

    assert await exchange.demo.buy("0.5", **fields) == first


@pytest.mark.leader_only
async def test_a_repeat_gets_the_first_answer_when_the_order_is_no_longer_kept(exchange: Exchange) -> None:
    first = await exchange.demo.buy("0.1", "50000", time_in_force=IOC, client_order_id="old")
    exchange.engine.state.max_finished_orders = 1
    for _ in range(2):
        await exchange.demo.buy("0.1", "50000", time_in_force=IOC)
    assert (await refused(exchange.demo.get(first.order_id))).reason == "ORDER_NOT_FOUND"

    assert await exchange.demo.buy("0.1", "50000", time_in_force=IOC, client_order_id="old") == first


@pytest.mark.parametrize(
    "change",
    [{"quantity": "2"}, {"price": "50001"}, {"side": SELL}, {"symbol": "ETHUSD"}, {"post_only": True}],
    ids=lambda change: next(iter(change)),
)
async def test_the_same_id_with_another_body_already_exists(exchange: Exchange, change: dict[str, object]) -> None:
    fields: dict[str, Any] = {"side": BUY, "quantity": "1", "price": "30000", "client_order_id": "mine"}
    await exchange.demo.place(**fields)
    before = await exchange.state_hash()

    refusal = await refused(exchange.demo.place(**{**fields, **change}))

    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "DUPLICATE_ID")
    assert refusal.metadata == {"client_order_id": "mine"}
    assert await exchange.state_hash() == before


async def test_a_refusal_by_the_state_is_repeated_though_the_state_would_allow_it_now(exchange: Exchange) -> None:
    first = await refused(exchange.demo.buy("1", order_type=MARKET, client_order_id="early"))
    await exchange.maker.sell("1", "50000")
    again = await refused(exchange.demo.buy("1", order_type=MARKET, client_order_id="early"))

    assert (first.code, first.reason) == ("FAILED_PRECONDITION", "NO_LIQUIDITY")
    assert again == first


async def test_an_id_that_was_refused_for_its_syntax_is_not_used_up(exchange: Exchange) -> None:
    assert (await refused(exchange.demo.buy("1", "0", client_order_id="mine"))).reason == "NOT_POSITIVE"

    assert (await exchange.demo.buy("1", "50000", client_order_id="mine")).client_order_id == "mine"


async def test_the_same_id_of_two_accounts_are_two_orders(exchange: Exchange) -> None:
    one = await exchange.demo.buy("1", "50000", client_order_id="mine")
    two = await exchange.maker.buy("1", "50000", client_order_id="mine")

    assert one.order_id != two.order_id


async def test_a_request_older_than_the_memory_for_ids_is_refused(exchange: Exchange) -> None:
    refusal = await refused(exchange.demo.buy("1", "50000", client_order_id="old", request_time=in_seconds(-90_000)))

    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "REQUEST_TOO_OLD")
    assert (await exchange.demo.buy("1", "50000", client_order_id="old", request_time=in_seconds(-60))).order_id


# --- batches ---


async def test_a_batch_answers_each_order_on_its_own_and_in_order(exchange: Exchange) -> None:
    await exchange.maker.sell("0.5", "50000")
    request = order_service_pb2.BatchPlaceOrdersRequest(
        orders=[
            placing(BUY, "1", "50000", client_order_id="a"),
            placing(BUY, "1", "50000.001", client_order_id="b"),
            placing(BUY, "1", "50000", symbol="NONE"),
            placing(BUY, "1", order_type=MARKET, client_order_id="d"),
            placing(BUY, "1", "50000", time_in_force=IOC),
        ]
    )
    answer = await exchange.demo.ask(exchange.demo.orders.BatchPlaceOrders, request)

    done, off_tick, unknown, empty, cancelled = answer.results
    assert (done.status, done.filled_quantity, done.open_quantity) == (types_pb2.PARTIAL, "0.50000", "0.50000")
    assert (done.client_order_id, done.filled_notional) == ("a", "25000.00000000")
    assert [result.reason for result in (off_tick, unknown, empty)] == [
        ErrorReason.PRICE_OFF_TICK,
        ErrorReason.UNKNOWN_SYMBOL,
        ErrorReason.NO_LIQUIDITY,
    ]
    assert (off_tick.sequence, unknown.sequence, empty.sequence) == (0, 0, done.sequence + 1)
    assert off_tick.message
    assert empty.client_order_id == "d"
    assert (cancelled.status, cancelled.cancel_reason) == (types_pb2.CANCELLED, types_pb2.REMAINDER)


async def test_a_batch_repeated_with_the_same_ids_gets_the_same_results(exchange: Exchange) -> None:
    request = order_service_pb2.BatchPlaceOrdersRequest(
        orders=[placing(BUY, "1", "50000", client_order_id="a"), placing(SELL, "1", "50000", client_order_id="b")]
    )
    first = await exchange.demo.ask(exchange.demo.orders.BatchPlaceOrders, request)

    assert await exchange.demo.ask(exchange.demo.orders.BatchPlaceOrders, request) == first


@pytest.mark.parametrize("count", [0, 101])
async def test_a_batch_of_no_or_too_many_orders_is_refused_whole(exchange: Exchange, count: int) -> None:
    before = await exchange.state_hash()
    request = order_service_pb2.BatchPlaceOrdersRequest(orders=[placing(BUY, "1", "50000")] * count)
    refusal = await refused(exchange.demo.ask(exchange.demo.orders.BatchPlaceOrders, request))

    assert (refusal.code, refusal.reason, refusal.metadata["limit"]) == ("INVALID_ARGUMENT", "BATCH_TOO_LARGE", "100")
    assert await exchange.state_hash() == before


async def test_a_batch_of_which_nothing_can_be_read_still_answers_each(exchange: Exchange) -> None:
    request = order_service_pb2.BatchPlaceOrdersRequest(orders=[placing(0, "1", "50000"), placing(BUY, "", "50000")])
    answer = await exchange.demo.ask(exchange.demo.orders.BatchPlaceOrders, request)

    assert [result.reason for result in answer.results] == [ErrorReason.UNKNOWN_ENUM_VALUE, ErrorReason.FIELD_REQUIRED]

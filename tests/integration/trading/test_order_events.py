"""StreamOrderEvents: an account's own orders and fills, resumable from any message."""

from __future__ import annotations

from itertools import pairwise

import pytest

from exchange.trading.service.streaming import MAX_STREAMS_PER_ACCOUNT
from pincex.trading.v1 import order_commands_pb2, types_pb2
from pincex.trading.v1 import order_service_pb2 as pb
from tests.integration.trading.engine_app import (
    BUY,
    IOC,
    STOP,
    STOP_LIMIT,
    Client,
    Exchange,
    Stream,
    eventually,
    refused,
)


def subscribe(client: Client, token: str = "") -> Stream:
    return client.stream(client.orders.StreamOrderEvents, pb.StreamOrderEventsRequest(resume_token=token))


def shape(message: pb.OrderEvent) -> str:
    """Kind, and what matters of it."""
    kind = message.WhichOneof("event")
    if kind == "order":
        return f"order {types_pb2.OrderStatus.Name(message.order.status)} {message.order.open_quantity}"
    if kind == "fill":
        return f"fill {message.fill.quantity} {'maker' if message.fill.is_maker else 'taker'}"
    return str(kind)


async def a_day(exchange: Exchange) -> str:
    """Everything that can happen to demo's orders; answers the id of the last one, which rests."""
    demo, maker = exchange.demo, exchange.maker
    order = await demo.buy("1", "50000", client_order_id="one")
    await demo.ask(
        demo.orders.ReduceOrder, order_commands_pb2.ReduceOrderRequest(order_id=order.order_id, quantity="0.2")
    )
    await demo.ask(
        demo.orders.ReplaceOrder,
        order_commands_pb2.ReplaceOrderRequest(order_id=order.order_id, quantity="0.6", price="50010"),
    )
    await maker.sell("0.1", "50010")
    for price in ("50011", "50012"):
        await maker.sell("0.2", price)
    await demo.buy("0.5", "50020")  # two fills, then rests
    await demo.place(BUY, "0.1", "50000", time_in_force=IOC)
    stop = await demo.buy("0.1", order_type=STOP, stop_price="50030")
    limit = await demo.buy("0.1", "50031", order_type=STOP_LIMIT, stop_price="50030")
    await maker.sell("0.3", "50030")
    await maker.place(BUY, "0.2", "50030", self_trade_prevention=types_pb2.NONE)  # wakes both
    await demo.sell("0.05", "50020", self_trade_prevention=types_pb2.NONE)  # with itself
    for ended in (stop, limit):
        await refused(demo.cancel(ended.order_id)) if ended is stop else await demo.cancel(ended.order_id)
    await demo.ask(demo.orders.CancelAllOrders, order_commands_pb2.CancelAllOrdersRequest())
    return (await demo.buy("0.01", "40000", client_order_id="last")).order_id


def is_last(message: pb.OrderEvent) -> bool:
    return message.order.client_order_id == "last"


async def test_a_stream_begins_with_the_open_orders(exchange: Exchange) -> None:
    resting = [await exchange.demo.buy("1", "40000"), await exchange.demo.buy("1", "41000")]
    await exchange.maker.buy("1", "42000")
    first = await subscribe(exchange.demo).next()

    assert (first.prev_sequence, first.snapshot.complete) == (0, True)
    assert list(first.snapshot.orders) == resting
    assert first.sequence == exchange.engine.state.sequence
    assert list((await subscribe(exchange.client("nobody")).next()).snapshot.orders) == []


async def test_many_open_orders_come_in_parts(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.trading.service.order_stream.SNAPSHOT_ORDERS", 2)
    resting = [(await exchange.demo.buy("0.1", "40000")).order_id for _ in range(5)]
    parts = await subscribe(exchange.demo).take(3)

    assert [order.order_id for part in parts for order in part.snapshot.orders] == resting
    assert [part.snapshot.complete for part in parts] == [False, False, True]
    assert [bool(part.resume_token) for part in parts] == [False, False, True]


async def test_each_fill_is_followed_by_its_order_and_every_order_is_as_it_was_answered(exchange: Exchange) -> None:
    stream = subscribe(exchange.demo)
    await stream.next()
    resting = await exchange.demo.buy("1", "50000")
    await exchange.maker.sell("0.25", "50000")
    filled = await exchange.demo.get(resting.order_id)
    cancelled = await exchange.demo.cancel(resting.order_id)

    accepted, fill, order, end = await stream.take(4)

    assert accepted.order == resting
    assert (fill.fill.order_id, fill.fill.quantity, fill.fill.is_maker) == (resting.order_id, "0.25000", True)
    assert order.order == filled
    assert end.order == cancelled


async def test_what_happens_to_orders_is_told_whole_and_in_order(exchange: Exchange) -> None:
    stream = subscribe(exchange.demo)
    await stream.next()
    await a_day(exchange)

    assert [shape(message) for message in await stream.until(is_last)] == [
        "order PENDING 1.00000",
        "order PENDING 0.80000",
        "order PENDING 0.60000",
        "fill 0.10000 maker",
        "order PARTIAL 0.50000",
        "order PENDING 0.50000",
        "fill 0.20000 taker",
        "order PARTIAL 0.30000",
        "fill 0.20000 taker",
        "order PARTIAL 0.10000",
        "order PENDING 0.10000",
        "order CANCELLED 0.00000",
        "order PENDING 0.10000",  # the stop order sleeps
        "order PENDING 0.10000",  # the stop-limit order sleeps
        "order PENDING 0.10000",  # woken
        "fill 0.10000 taker",
        "order FILLED 0.00000",
        "order PENDING 0.10000",  # woken, and rests
        "order PENDING 0.05000",
        "fill 0.05000 maker",
        "order PARTIAL 0.05000",
        "fill 0.05000 taker",
        "order FILLED 0.00000",
        "order CANCELLED 0.00000",
        "order CANCELLED 0.00000",
        "order CANCELLED 0.00000",
        "order PENDING 0.01000",
    ]


async def test_the_stream_leaves_every_order_as_the_engine_has_it(exchange: Exchange) -> None:
    stream = subscribe(exchange.demo)
    await stream.next()
    await a_day(exchange)
    latest = {
        message.order.order_id: message.order for message in await stream.until(is_last) if message.HasField("order")
    }

    everything = await exchange.demo.listed(statuses=[1, 2, 3, 4], page_size=500)
    assert latest == {order.order_id: order for order in everything}


async def test_messages_chain_by_sequence(exchange: Exchange) -> None:
    stream = subscribe(exchange.demo)
    messages = [await stream.next()]
    await a_day(exchange)
    messages += await stream.until(is_last)

    for before, after in pairwise(messages):
        assert after.prev_sequence == before.sequence <= after.sequence


@pytest.mark.parametrize("kept_by_the_core", [True, False])
async def test_every_token_resumes_with_exactly_the_rest(
    exchange: Exchange,
    kept_by_the_core: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """In the middle of a command too, and when the core has forgotten the orders that the rest speaks of."""
    stream = subscribe(exchange.demo)
    messages = [await stream.next()]
    await a_day(exchange)
    messages += await stream.until(is_last)
    stream.call.cancel()
    if not kept_by_the_core:
        exchange.engine.state.max_finished_orders = 1
        for _ in range(2):
            await exchange.maker.place(BUY, "0.01", "40000", time_in_force=IOC)
        assert len(exchange.engine.state.finished) == 1

    for place, message in enumerate(messages[:-1]):
        again = subscribe(exchange.demo, message.resume_token)
        assert await again.until(is_last) == messages[place + 1 :], place
        again.call.cancel()


async def test_tokens_hold_when_the_frames_left_memory(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = subscribe(exchange.demo)
    first = await stream.next()
    await a_day(exchange)
    messages = await stream.until(is_last)
    exchange.app.hub._recent.clear()
    exchange.app.hub._starts.clear()

    assert await subscribe(exchange.demo, first.resume_token).until(is_last) == messages


async def test_a_quiet_account_gets_heartbeats_with_its_token(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.trading.service.order_stream.HEARTBEAT_S", 0.02)
    stream = subscribe(exchange.demo)
    first = await stream.next()
    foreign = await exchange.maker.buy("1", "40000")
    beats = await stream.until(lambda message: message.heartbeat.head_sequence == foreign.sequence)

    assert {shape(beat) for beat in beats} == {"heartbeat"}
    assert beats[-1].resume_token == beats[-1].heartbeat.resume_token == first.resume_token
    assert beats[-1].prev_sequence == beats[-1].sequence == first.sequence


async def test_a_stream_begun_while_orders_fly_misses_none(exchange: Exchange) -> None:
    stream = subscribe(exchange.demo)
    placed = [(await exchange.demo.buy("0.01", "40000")).order_id for _ in range(50)]
    last = await exchange.demo.buy("0.01", "40000", client_order_id="last")
    messages = await stream.until(lambda message: is_last(message) or last in message.snapshot.orders)

    seen = [order.order_id for message in messages for order in message.snapshot.orders]
    seen += [message.order.order_id for message in messages if message.HasField("order")]
    assert seen == [*placed, last.order_id]


async def test_a_stopping_server_says_so_and_the_token_holds(exchange: Exchange) -> None:
    stream = subscribe(exchange.demo)
    first = await stream.next()
    exchange.stopped.set()
    notice, end = await stream.rest()

    assert notice.drain.resume_token == end.end.resume_token == first.resume_token
    assert end.end.reason == "DRAINING"


async def test_the_streams_of_an_account_are_bounded(exchange: Exchange) -> None:
    streams = [subscribe(exchange.demo) for _ in range(MAX_STREAMS_PER_ACCOUNT)]
    for stream in streams:
        await stream.next()
    guard = exchange.app.public.guard
    refusal = await refused(subscribe(exchange.demo).next())

    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS")
    await subscribe(exchange.maker).next()
    streams[0].call.cancel()
    await eventually(lambda: guard.open_streams == MAX_STREAMS_PER_ACCOUNT, "one has left")
    await subscribe(exchange.demo).next()


async def test_a_subscriber_that_leaves_is_forgotten(exchange: Exchange) -> None:
    stream = subscribe(exchange.demo)
    await stream.next()
    await eventually(lambda: any(exchange.app.hub._waiting_accounts.values()), "it waits")
    stream.call.cancel()

    await eventually(lambda: not any(exchange.app.hub._waiting_accounts.values()), "it has left")

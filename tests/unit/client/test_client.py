"""Unary calls: conversion, errors, repeats."""

from datetime import UTC, datetime
from decimal import Decimal

import grpc
import pytest

from pincex.trading.v1.admin_replicas_pb2 import VerifyJournalProgress
from pincex_client import (
    AlreadyExists,
    ExchangeClient,
    ExchangeError,
    InvalidRequest,
    NotFound,
    Overloaded,
    RetryPolicy,
    TradingSuspended,
    Unavailable,
    requests,
)
from pincex_client.errors import Backoff, error_of_reason
from pincex_client.transport import CHANNEL_OPTIONS
from tests.unit.client.fake_exchange import FakeExchange
from tests.unit.client.fake_server import FakeServer


async def test_an_order_comes_back_with_decimals(client: ExchangeClient) -> None:
    order = await client.place_order("BTCUSD", "buy", Decimal("1.50"), "50000.00", client_order_id="mine")
    assert (order.side, order.order_type, order.status) == ("BUY", "LIMIT", "PENDING")
    assert (order.quantity, order.price, order.client_order_id) == (Decimal("1.50"), Decimal("50000.00"), "mine")
    assert (order.stop_price, order.average_price, order.cancel_reason, order.expire_time) == (None, None, "", None)
    assert order.is_open
    assert (await client.get_order(order.order_id)) == (await client.get_order(client_order_id="mine"))
    cancelled = await client.cancel_order(order.order_id)
    assert (cancelled.status, cancelled.cancel_reason, cancelled.is_open) == ("CANCELLED", "REQUESTED", False)


async def test_pages_are_turned(client: ExchangeClient) -> None:
    for number in range(5):
        await client.place_order("BTCUSD", "BUY", 1, 100 + number)
    orders = await client.list_orders()
    assert [order.price for order in orders] == [104, 103, 102, 101, 100]
    assert len(await client.list_orders(limit=3)) == 3
    assert (await client.cancel_all_orders()).cancelled_count == 5


async def test_reads_carry_the_sequence_of_the_newest_write(client: ExchangeClient, exchange: FakeExchange) -> None:
    order = await client.place_order("BTCUSD", "BUY", 1, 100)
    await client.get_order(order.order_id)
    assert exchange.requests[-1].min_sequence == order.sequence > 0
    await client.get_order(order.order_id, min_sequence=0)
    assert exchange.requests[-1].min_sequence == 0


async def test_a_book_of_the_past_waits_for_no_write(client: ExchangeClient, exchange: FakeExchange) -> None:
    order = await client.place_order("BTCUSD", "BUY", 1, 100)
    await client.get_order_book("BTCUSD", as_of_sequence=order.sequence)
    assert (exchange.requests[-1].as_of_sequence, exchange.requests[-1].min_sequence) == (order.sequence, 0)
    await client.get_order_book("BTCUSD")
    assert (exchange.requests[-1].as_of_sequence, exchange.requests[-1].min_sequence) == (0, order.sequence)
    with pytest.raises(ValueError, match="starts at 1"):
        await client.get_order_book("BTCUSD", as_of_sequence=0)


async def test_a_verification_tells_its_progress_and_ends_with_its_result(
    client: ExchangeClient, exchange: FakeExchange
) -> None:
    exchange.verification = [
        VerifyJournalProgress(sequence=4, to_sequence=9),
        VerifyJournalProgress(sequence=9, to_sequence=9, frame_count=3, done=True, valid=True, state_hash="beef"),
    ]
    first, last = [progress async for progress in client.admin.verify_journal(2, 9)]
    assert (first.sequence, first.done) == (4, False)
    assert (last.sequence, last.frame_count, last.done, last.valid, last.state_hash) == (9, 3, True, True, "beef")
    assert (exchange.requests[-1].from_sequence, exchange.requests[-1].to_sequence) == (2, 9)


async def test_a_verification_that_ends_without_a_result_raises(client: ExchangeClient, exchange: FakeExchange) -> None:
    with pytest.raises(ExchangeError, match="SEQUENCE_NOT_RETAINED"):
        await anext(client.admin.verify_journal())
    exchange.verification = [VerifyJournalProgress(sequence=4, to_sequence=9)]
    steps = client.admin.verify_journal()
    assert not (await anext(steps)).done
    with pytest.raises(Unavailable, match="without a result"):
        await anext(steps)


async def test_a_batch_is_judged_order_by_order(client: ExchangeClient) -> None:
    good = requests.place_order("BTCUSD", "BUY", 1, 100)
    bad = requests.place_order("NOPE", "BUY", 1, 100)
    results = await client.place_orders([good, bad])
    assert [result.reason for result in results] == ["", "UNKNOWN_SYMBOL"]
    with pytest.raises(ValueError, match="1 to 100"):
        await client.place_orders([])


async def test_a_refusal_has_reason_code_metadata_and_request_id(client: ExchangeClient) -> None:
    with pytest.raises(NotFound) as caught:
        await client.place_order("NOPE", "BUY", 1, 100)
    error = caught.value
    assert (error.reason, error.code) == ("UNKNOWN_SYMBOL", grpc.StatusCode.NOT_FOUND)
    assert error.metadata["symbol"] == "NOPE"
    assert error.violations == (("symbol", "no such market"),)
    assert error.request_id.startswith("r-")
    assert str(error) == "UNKNOWN_SYMBOL: no such market"


async def test_a_passing_failure_is_repeated_with_the_same_id_and_time(
    client: ExchangeClient, exchange: FakeExchange
) -> None:
    exchange.failures = [("JOURNAL_UNAVAILABLE", None), ("JOURNAL_UNAVAILABLE", 0.01)]
    await client.place_order("BTCUSD", "BUY", 1, 100)
    sent = exchange.requests
    assert len(sent) == 3
    assert sent[0] == sent[1] == sent[2]
    assert sent[0].client_order_id
    assert sent[0].HasField("request_time")


async def test_a_journaled_refusal_is_not_repeated(client: ExchangeClient, exchange: FakeExchange) -> None:
    exchange.failures = [("MAINTENANCE", None)]
    with pytest.raises(TradingSuspended) as caught:
        await client.place_order("BTCUSD", "BUY", 1, 100)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert len(exchange.requests) == 1


async def test_retry_info_beyond_the_deadline_ends_the_attempts(server: FakeServer, exchange: FakeExchange) -> None:
    exchange.failures = [("JOURNAL_UNAVAILABLE", 30.0)]
    async with ExchangeClient(server.target, policy=RetryPolicy(deadline=1.0)) as client:
        with pytest.raises(Unavailable) as caught:
            await client.cancel_all_orders()
    assert caught.value.retry_after == 30.0
    assert len(exchange.requests) == 1


async def test_an_exchange_that_comes_back_within_the_deadline_is_not_missed(
    client: ExchangeClient, server: FakeServer, exchange: FakeExchange
) -> None:
    await server.kill()
    with pytest.raises(Unavailable, match="UPSTREAM_UNAVAILABLE"):
        async with ExchangeClient(server.target, policy=RetryPolicy(deadline=0.1)) as hasty:
            await hasty.list_markets()
    await server.start()
    assert [market.symbol for market in await client.list_markets()] == ["BTCUSD"]
    assert exchange.markets


async def test_operators_calls_need_the_ops_listener(client: ExchangeClient, server: FakeServer) -> None:
    balance = await client.admin.credit_account("demo", "USD", "12.50", request_id="once")
    assert balance == await client.admin.credit_account("demo", "USD", "12.50", request_id="once")
    assert [each.total for each in await client.list_balances()] == [Decimal("12.50")]
    with pytest.raises(AlreadyExists):
        await client.admin.create_market("BTC", "USD", symbol="BTCUSD", tick_size="0.01", lot_size="0.001")
    assert (await client.admin.set_market_mode("BTCUSD", "HALTED")).mode == "HALTED"
    assert (await client.admin.set_switch("circuit_breaker", on=True)).circuit_breaker
    async with ExchangeClient(server.target) as public:
        with pytest.raises(ValueError, match="ops_target"):
            _ = public.admin


async def test_books_and_health_are_read(client: ExchangeClient) -> None:
    await client.place_order("BTCUSD", "BUY", 2, 100)
    await client.place_order("BTCUSD", "SELL", 1, 101)
    book = await client.get_order_book("BTCUSD")
    assert [(level.price, level.quantity, level.order_count) for level in book.bids] == [(Decimal(100), Decimal(2), 1)]
    assert (book.mode, book.ask_quantity, book.bid_level_count) == ("OPEN", Decimal(1), 1)
    assert (await client.health()).status == "SERVING"
    assert await client.list_fills() == []


@pytest.mark.parametrize(
    ("prices", "kind"),
    [
        ({"price": 100}, "LIMIT"),
        ({}, "MARKET"),
        ({"stop_price": 99}, "STOP"),
        ({"price": 100, "stop_price": 99}, "STOP_LIMIT"),
    ],
)
def test_the_prices_say_which_type_of_order_is_meant(prices: dict[str, int], kind: str) -> None:
    request = requests.place_order("BTCUSD", "s", 1, **prices)  # type: ignore[arg-type]
    assert request.order_type == requests.enum_value("OrderType", kind)
    assert request.side == requests.side_value("SELL")


def test_amounts_are_written_plainly_and_floats_are_refused() -> None:
    request = requests.place_order(
        "BTCUSD", "BUY", Decimal("1E-8"), "1e5", time_in_force="gtd", expire_time=datetime(2030, 1, 1, tzinfo=UTC)
    )
    assert request.quantity == "0.00000001"
    assert request.price == "1e5", "text goes as it is: the exchange judges it"
    with pytest.raises(TypeError, match="price"):
        requests.place_order("BTCUSD", "BUY", 1, 0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="quantity"):
        requests.place_order("BTCUSD", "BUY", True, 1)
    with pytest.raises(ValueError, match="time zone"):
        requests.place_order("BTCUSD", "BUY", 1, 1, expire_time=datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="one of BUY, SELL"):
        requests.place_order("BTCUSD", "hold", 1, 1)


def test_back_off_grows_within_bounds_and_never_undercuts_the_server() -> None:
    backoff = Backoff(first=0.1, ceiling=1.0)
    delays = [backoff.next_delay() for _ in range(10)]
    assert all(0.05 <= delay <= 1.0 for delay in delays)
    assert delays[-1] >= 0.5
    assert backoff.next_delay(retry_after=3.0) >= 3.0
    backoff.reset()
    assert backoff.next_delay() <= 0.1


@pytest.mark.parametrize(
    ("reason", "kind", "transient"),
    [
        ("PRICE_OFF_TICK", InvalidRequest, False),
        ("DUPLICATE_ID", AlreadyExists, False),
        ("OVERLOADED", Overloaded, True),
        ("DRAINING", Unavailable, True),
        ("CIRCUIT_BREAKER", TradingSuspended, False),
        ("A_REASON_OF_TOMORROW", ExchangeError, False),
    ],
)
def test_reasons_become_classes_that_say_what_to_do(reason: str, kind: type[ExchangeError], transient: bool) -> None:  # noqa: FBT001
    error = error_of_reason(reason, "text")
    assert isinstance(error, kind)
    assert error.transient is transient


def test_keepalive_stays_above_the_servers_minimum() -> None:
    assert dict(CHANNEL_OPTIONS)["grpc.keepalive_time_ms"] >= 20_000

"""GetOrder, ListOrders, ListTrades and what they wait for; markets, books, trades and balances for everyone."""

from __future__ import annotations

from typing import Any

import pytest

from pincex.trading.v1 import (
    account_service_pb2,
    health_service_pb2,
    market_service_pb2,
    order_service_pb2,
    types_pb2,
)
from tests.integration.trading.engine_app import BUY, IOC, SELL, Client, Exchange, refused

pytestmark = pytest.mark.each_role

OPEN = [types_pb2.PENDING, types_pb2.PARTIAL]
ALL = [*OPEN, types_pb2.FILLED, types_pb2.CANCELLED]


async def by_client_id(client: Client, client_order_id: str, **more: Any) -> types_pb2.Order:
    request = order_service_pb2.GetOrderByClientOrderIdRequest(client_order_id=client_order_id, **more)
    order: types_pb2.Order = await client.ask(client.orders.GetOrderByClientOrderId, request)
    return order


async def orders_page(client: Client, **filters: Any) -> Any:
    return await client.ask(client.orders.ListOrders, order_service_pb2.ListOrdersRequest(**filters))


async def trades_page(client: Client, **filters: Any) -> Any:
    return await client.ask(client.orders.ListTrades, order_service_pb2.ListTradesRequest(**filters))


async def all_pages(read: Any, client: Client, items: str, **filters: Any) -> list[list[Any]]:
    pages, token = [], ""
    while True:
        response = await read(client, page_token=token, **filters)
        pages.append(list(getattr(response, items)))
        token = response.next_page_token
        if not token:
            return pages


# --- one order ---


async def test_an_order_is_found_by_the_id_its_client_chose(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000", client_order_id="mine/1?x")

    assert await by_client_id(exchange.demo, "mine/1?x") == order
    for client, name in ((exchange.demo, "other"), (exchange.maker, "mine/1?x"), (exchange.client("nobody"), "mine")):
        refusal = await refused(by_client_id(client, name))
        assert (refusal.code, refusal.reason) == ("NOT_FOUND", "ORDER_NOT_FOUND")
        assert refusal.metadata == {"client_order_id": name}
    assert (await refused(by_client_id(exchange.demo, ""))).reason == "FIELD_REQUIRED"


async def test_an_order_that_was_refused_is_not_found_by_its_client_id(exchange: Exchange) -> None:
    await refused(exchange.demo.buy("1000", "50000", client_order_id="mine"))

    assert (await refused(by_client_id(exchange.demo, "mine"))).reason == "ORDER_NOT_FOUND"


async def test_a_foreign_order_is_not_found(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000")
    refusal = await refused(exchange.maker.get(order.order_id))

    assert (refusal.code, refusal.reason, refusal.metadata) == (
        "NOT_FOUND",
        "ORDER_NOT_FOUND",
        {"order_id": order.order_id},
    )


async def test_a_read_waits_for_the_sequence_of_ones_own_write(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000")

    assert await exchange.demo.get(order.order_id, min_sequence=order.sequence) == order
    assert (await orders_page(exchange.demo, min_sequence=order.sequence)).sequence >= order.sequence


async def test_a_read_of_a_sequence_that_does_not_come_says_so(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.trading.service.desk.READ_WAIT_S", 0.01)
    order = await exchange.demo.buy("1", "50000")

    refusal = await refused(exchange.demo.get(order.order_id, min_sequence=order.sequence + 1))

    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "SEQUENCE_NOT_REACHED")
    assert refusal.metadata == {"sequence": str(order.sequence)}
    for _ in range(5):
        await refused(exchange.demo.get(order.order_id, min_sequence=2**64 - 1))
    assert len(exchange.sequencer._sequence_waiters) == 0, "who gave up is waited for no longer"


async def test_a_read_waits_until_the_sequence_comes(exchange: Exchange) -> None:
    head = exchange.engine.state.sequence
    reading = exchange.app.desk.reach(head + 1)
    waiting = exchange.running.get_loop().create_task(reading)
    await exchange.demo.buy("1", "50000")

    await waiting
    assert exchange.sequencer.committed_sequence >= head + 1


# --- lists ---


async def test_orders_are_listed_newest_first_and_by_filters(exchange: Exchange) -> None:
    bought = await exchange.demo.buy("0.1", "40000")
    sold = await exchange.demo.sell("0.1", "60000")
    ether = await exchange.demo.place(BUY, "1", "2000", symbol="ETHUSD")
    ended = await exchange.demo.buy("0.1", "40000", time_in_force=IOC)
    partial = await exchange.demo.buy("0.2", "41000")
    await exchange.maker.sell("0.1", "41000")

    async def ids(**filters: Any) -> list[str]:
        return [order.order_id for order in await exchange.demo.listed(**filters)]

    assert await ids() == [partial.order_id, ether.order_id, sold.order_id, bought.order_id]
    assert await ids(statuses=ALL) == [partial.order_id, ended.order_id, ether.order_id, sold.order_id, bought.order_id]
    assert await ids(statuses=[types_pb2.PARTIAL]) == [partial.order_id]
    assert await ids(statuses=[types_pb2.CANCELLED]) == [ended.order_id]
    assert await ids(symbol="eth/usd") == [ether.order_id]
    assert await ids(side=SELL) == [sold.order_id]
    assert await exchange.client("nobody").listed() == []


@pytest.mark.parametrize("statuses", [OPEN, ALL])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 500])
async def test_pages_hold_every_order_once(exchange: Exchange, size: int, statuses: list[int]) -> None:
    placed = [(await exchange.demo.buy("0.1", "40000")).order_id for _ in range(6)]

    pages = await all_pages(orders_page, exchange.demo, "orders", page_size=size, statuses=statuses)

    assert [order.order_id for page in pages for order in page] == placed[::-1]
    assert all(len(page) == size for page in pages[:-1])


async def test_orders_placed_or_ended_between_two_pages_shift_nothing(exchange: Exchange) -> None:
    placed = [(await exchange.demo.buy("0.1", "40000")).order_id for _ in range(4)]
    first = await orders_page(exchange.demo, page_size=2)
    await exchange.demo.buy("0.1", "40000")
    await exchange.demo.cancel(placed[2])

    second = await orders_page(exchange.demo, page_size=2, page_token=first.next_page_token)

    assert [order.order_id for order in second.orders] == [placed[1], placed[0]]
    assert second.next_page_token == ""


async def test_a_page_token_holds_for_its_filters_only(exchange: Exchange) -> None:
    for _ in range(3):
        await exchange.demo.buy("0.1", "40000")
    token = (await orders_page(exchange.demo, page_size=1)).next_page_token

    for client, filters in (
        (exchange.demo, {"symbol": "BTCUSD"}),
        (exchange.demo, {"side": BUY}),
        (exchange.demo, {"statuses": ALL}),
        (exchange.maker, {}),
    ):
        refusal = await refused(orders_page(client, page_token=token, **filters))
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")
    assert (await orders_page(exchange.demo, page_size=2, page_token=token)).orders


@pytest.mark.parametrize("size", [-1, 501])
async def test_a_page_size_out_of_bounds_is_refused(exchange: Exchange, size: int) -> None:
    for page in (orders_page, trades_page):
        refusal = await refused(page(exchange.demo, page_size=size))
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
        assert refusal.metadata == {"field": "page_size", "value": str(size)}


@pytest.mark.parametrize("filters", [{"statuses": [0]}, {"statuses": [99]}, {"side": 3}], ids=str)
async def test_a_filter_that_is_no_known_value_is_refused(exchange: Exchange, filters: dict[str, Any]) -> None:
    refusal = await refused(orders_page(exchange.demo, **filters))

    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "UNKNOWN_ENUM_VALUE")


# --- trades ---


async def test_trades_are_told_to_both_sides(exchange: Exchange) -> None:
    rested = await exchange.maker.sell("1", "50000", client_order_id="rest")
    took = await exchange.demo.buy("0.4", "50000", client_order_id="take")

    (maker,) = (await trades_page(exchange.maker)).trades
    (taker,) = (await trades_page(exchange.demo)).trades
    assert maker.trade_id == taker.trade_id == f"{took.sequence}-1"
    assert (maker.is_maker, maker.side, maker.order_id, maker.client_order_id) == (True, SELL, rested.order_id, "rest")
    assert (taker.is_maker, taker.side, taker.order_id, taker.client_order_id) == (False, BUY, took.order_id, "take")
    assert (taker.price, taker.quantity, taker.notional) == ("50000.00", "0.40000", "20000.00000000")
    assert (maker.fee, taker.fee) == ("20.00000000", "40.00000000")
    assert (maker.account, taker.account) == ("maker", "demo")
    assert taker.sequence == took.sequence


@pytest.mark.parametrize("size", [1, 2, 3, 500])
async def test_pages_hold_every_trade_once_and_a_trade_with_oneself_twice(exchange: Exchange, size: int) -> None:
    await exchange.demo.sell("1", "50000")
    await exchange.demo.sell("1", "50001")
    own = await exchange.demo.buy("2", "50001", self_trade_prevention=types_pb2.NONE)
    await exchange.maker.sell("0.3", "50002")
    other = await exchange.demo.buy("0.3", "50002")

    pages = await all_pages(trades_page, exchange.demo, "trades", page_size=size)

    assert [(fill.trade_id, fill.is_maker) for page in pages for fill in page] == [
        (f"{other.sequence}-1", False),
        (f"{own.sequence}-2", False),
        (f"{own.sequence}-2", True),
        (f"{own.sequence}-1", False),
        (f"{own.sequence}-1", True),
    ]


async def test_trades_are_listed_by_symbol_and_by_order(exchange: Exchange) -> None:
    await exchange.maker.sell("1", "50000")
    await exchange.maker.place(SELL, "1", "3000", symbol="ETHUSD")
    one = await exchange.demo.buy("0.1", "50000")
    two = await exchange.demo.buy("0.2", "50000")
    three = await exchange.demo.place(BUY, "1", "3000", symbol="ETHUSD")

    async def orders(**filters: Any) -> list[str]:
        return [fill.order_id for fill in (await trades_page(exchange.demo, **filters)).trades]

    assert await orders() == [three.order_id, two.order_id, one.order_id]
    assert await orders(symbol="BTCUSD") == [two.order_id, one.order_id]
    assert await orders(order_id=one.order_id) == [one.order_id]
    assert await orders(order_id="12345678") == []
    token = (await trades_page(exchange.demo, page_size=1)).next_page_token
    assert (await refused(trades_page(exchange.demo, page_token=token, symbol="BTCUSD"))).reason == "INVALID_PAGE_TOKEN"


async def test_the_market_s_trades_name_no_account(exchange: Exchange) -> None:
    async def page(client: Client, **fields: Any) -> Any:
        request = market_service_pb2.ListMarketTradesRequest(symbol="BTC/USD", **fields)
        return await client.ask(client.markets.ListMarketTrades, request)

    await exchange.maker.sell("1", "50000")
    taken = [(await exchange.demo.buy("0.1", "50000")).sequence for _ in range(3)]

    pages = await all_pages(page, exchange.demo, "trades", page_size=2)

    assert [trade.sequence for trades in pages for trade in trades] == taken[::-1]
    newest = pages[0][0]
    assert (newest.trade_id, newest.taker_side) == (f"{taken[-1]}-1", BUY)
    assert (newest.price, newest.quantity, newest.symbol) == ("50000.00", "0.10000", "BTCUSD")
    assert (await refused(page(exchange.demo, page_size=1001))).reason == "INVALID_FIELD"


# --- markets, books, balances, health ---


async def test_markets_are_listed_by_symbol(exchange: Exchange) -> None:
    async def page(client: Client, **fields: Any) -> Any:
        return await client.ask(client.markets.ListMarkets, market_service_pb2.ListMarketsRequest(**fields))

    pages = await all_pages(page, exchange.demo, "markets", page_size=1)

    assert [[market.symbol for market in markets] for markets in pages] == [["BTCUSD"], ["ETHUSD"]]
    request = market_service_pb2.GetMarketRequest(symbol="btc/usd")
    market = await exchange.demo.ask(exchange.demo.markets.GetMarket, request)
    assert market == pages[0][0]
    assert (market.tick_size, market.lot_size, market.min_quantity) == ("0.01", "0.00001", "0.00001")
    assert (market.min_notional, market.max_quantity) == ("1.00000000", "")
    assert (market.last_price, market.reference_price) == ("", "50000.00")
    assert (market.base_asset, market.quote_asset, market.mode) == ("BTC", "USD", types_pb2.OPEN)


async def test_the_book_shows_levels_and_what_lies_beyond_them(exchange: Exchange) -> None:
    for price in (49998, 49999, 49999):
        await exchange.demo.buy("0.1", f"{price}")
    await exchange.maker.sell("0.2", "50001")
    request = market_service_pb2.GetOrderBookRequest(symbol="BTC/USD", depth=1)

    book = await exchange.demo.ask(exchange.demo.markets.GetOrderBook, request)

    assert [(level.price, level.quantity, level.order_count) for level in book.bids] == [("49999.00", "0.20000", 2)]
    assert [(level.price, level.quantity, level.order_count) for level in book.asks] == [("50001.00", "0.20000", 1)]
    assert (book.bid_order_count, book.bid_quantity, book.bid_level_count) == (3, "0.30000", 2)
    assert (book.ask_order_count, book.ask_quantity, book.ask_level_count) == (1, "0.20000", 1)
    assert book.sequence == exchange.engine.state.sequence
    for depth in (-1, 5001):
        request = market_service_pb2.GetOrderBookRequest(symbol="BTCUSD", depth=depth)
        assert (await refused(exchange.demo.ask(exchange.demo.markets.GetOrderBook, request))).reason == "INVALID_FIELD"


async def test_balances_are_listed_in_pages_by_asset(exchange: Exchange) -> None:
    async def page(client: Client, **fields: Any) -> Any:
        return await client.ask(client.accounts.ListBalances, account_service_pb2.ListBalancesRequest(**fields))

    await exchange.demo.sell("1", "50000")
    pages = await all_pages(page, exchange.demo, "balances", page_size=2)

    assert [balance.asset for balances in pages for balance in balances] == ["BTC", "ETH", "USD"]
    bitcoin = pages[0][0]
    assert (bitcoin.available, bitcoin.held, bitcoin.total) == ("99.00000000", "1.00000000", "100.00000000")
    assert (await page(exchange.client("nobody"))).balances == []
    token = (await page(exchange.demo, page_size=1)).next_page_token
    assert (await refused(page(exchange.maker, page_token=token))).reason == "INVALID_PAGE_TOKEN"


@pytest.mark.leader_only
async def test_health_says_who_serves_and_the_contract_is_served(exchange: Exchange) -> None:
    health = await exchange.demo.ask(exchange.demo.health.GetHealth, health_service_pb2.GetHealthRequest())

    assert (health.status, health.instance, health.role) == ("SERVING", "engine-under-test", "LEADER")
    assert health.sequence == exchange.engine.state.sequence
    document = await exchange.demo.ask(exchange.demo.health.GetOpenApi, health_service_pb2.GetOpenApiRequest())
    assert document.content_type == "application/json"
    assert b'"/api/v1/orders"' in document.data

"""RebuildOrderBook and ValidateOrderBook: a book that is right, and books that somebody has tampered with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from exchange.trading.core.engine import Engine
from pincex.trading.v1 import admin_service_pb2 as pb
from tests.integration.trading.engine_app import Exchange, eventually, refused


async def rebuild(exchange: Exchange, symbol: str = "BTC/USD") -> pb.RebuildOrderBookResponse:
    request = pb.RebuildOrderBookRequest(symbol=symbol, reason="test")
    response: pb.RebuildOrderBookResponse = await exchange.operator.ask(
        exchange.operator.admin.RebuildOrderBook, request
    )
    return response


async def validate(exchange: Exchange) -> pb.ValidateOrderBookResponse:
    request = pb.ValidateOrderBookRequest(symbol="BTCUSD")
    response: pb.ValidateOrderBookResponse = await exchange.operator.ask(
        exchange.operator.admin.ValidateOrderBook, request
    )
    return response


async def some_book(exchange: Exchange) -> list[str]:
    """Three bids, one of them filled in part, and two asks; answers demo's order ids, the best first."""
    placed = [(await exchange.demo.buy("0.5", price)).order_id for price in ("49000", "48000", "48000")]
    await exchange.maker.sell("0.1", "49000")
    await exchange.maker.sell("1", "51000")
    await exchange.maker.sell("1", "52000")
    return placed


async def test_a_book_rebuilt_from_the_journal_is_the_book_in_use(exchange: Exchange) -> None:
    await some_book(exchange)
    before = await exchange.state_hash()
    report = await rebuild(exchange)

    assert (report.identical, list(report.differences), report.symbol) == (True, [], "BTCUSD")
    assert report.hash_before == report.hash_rebuilt
    assert (report.sequence, report.replayed_commands, report.from_sequence) == (
        exchange.engine.state.sequence,
        exchange.engine.state.sequence,
        1,
    )
    assert report.order_count == 5
    assert await exchange.state_hash() == before


async def test_an_empty_book_rebuilds_too(exchange: Exchange) -> None:
    report = await rebuild(exchange, "ETHUSD")

    assert (report.identical, report.order_count) == (True, 0)
    assert (await refused(rebuild(exchange, "NONE"))).reason == "UNKNOWN_SYMBOL"


async def test_a_rebuild_while_orders_come_compares_at_one_sequence(exchange: Exchange) -> None:
    await some_book(exchange)

    async def trade() -> None:
        for step in range(60):
            await exchange.demo.buy("0.01", f"{40_000 + step}")

    trading = asyncio.create_task(trade())
    reports = [await rebuild(exchange) for _ in range(5)]
    await trading

    assert all(report.identical for report in reports), [list(report.differences) for report in reports]


def lose_an_order(engine: Engine, order_id: int) -> None:
    from exchange.trading.core import book

    order = engine.state.orders[order_id]
    book.remove(order)


def grow_an_order(engine: Engine, order_id: int) -> None:
    engine.state.orders[order_id].lots_open += 1


def move_an_order(engine: Engine, order_id: int) -> None:
    from exchange.trading.core import book

    order = engine.state.orders[order_id]
    book.remove(order)
    book.rest(order.market.bids, order)


def cross_the_book(engine: Engine, order_id: int) -> None:
    from exchange.trading.core import book

    order = engine.state.orders[order_id]
    book.remove(order)
    order.price = 6_000_000
    book.rest(order.market.bids, order)


@pytest.mark.parametrize(
    ("tamper", "which", "said"),
    [
        (lose_an_order, 0, "missing in the book in use"),
        (grow_an_order, 0, "in use (price 4900000, open 40001), journal (4900000, 40000)"),
        (move_an_order, 1, "place 2 in use, 1 by the journal"),
        (cross_the_book, 2, "in use (price 6000000"),
    ],
)
async def test_a_book_that_was_tampered_with_is_told_and_replaced(
    exchange: Exchange, tamper: Callable[[Engine, int], None], which: int, said: str
) -> None:
    placed = await some_book(exchange)
    before = await exchange.state_hash()
    engine = exchange.engine
    tamper(engine, int(placed[which]))
    report = await rebuild(exchange)

    assert not report.identical
    assert report.hash_before != report.hash_rebuilt
    assert any(line.startswith(f"order {placed[which]}: ") and said in line for line in report.differences)
    assert report.order_count == 5
    # The journal's book serves from now on.
    await eventually(lambda: exchange.app.desk.sequencer is not None and exchange.engine is not engine, "it recovers")
    await eventually(lambda: exchange.engine.state.sequence >= report.sequence, "it is whole")
    assert await exchange.state_hash() == before
    assert (await rebuild(exchange)).identical
    assert (await exchange.demo.buy("0.1", "40000")).order_id


async def test_a_whole_book_is_valid_and_every_check_is_named(exchange: Exchange) -> None:
    await some_book(exchange)
    answer = await validate(exchange)

    assert (answer.valid, answer.symbol, answer.sequence) == (True, "BTCUSD", exchange.engine.state.sequence)
    assert {check.holds for check in answer.checks} == {True}
    names = [check.name for check in answer.checks]
    assert len(set(names)) == len(names)
    assert {"book_not_crossed", "level_totals_match_orders", "supply_conserved", "holds_match_open_orders"} <= set(
        names
    )


def mint(engine: Engine, _order_id: int) -> None:
    engine.state.accounts["demo"].balances[2].available += 1


@pytest.mark.parametrize(
    ("tamper", "broken"),
    [
        (grow_an_order, "level_totals_match_orders"),
        (cross_the_book, "book_not_crossed"),
        (lose_an_order, "open_orders_filed"),
        (mint, "supply_conserved"),
    ],
)
async def test_a_tampered_book_is_not_valid_and_says_what_is_wrong(
    exchange: Exchange, tamper: Callable[[Engine, int], None], broken: str
) -> None:
    placed = await some_book(exchange)
    tamper(exchange.engine, int(placed[0]))
    answer = await validate(exchange)

    assert not answer.valid
    wrong = {check.name: check.detail for check in answer.checks if not check.holds}
    assert wrong[broken]

"""Feeds while the recorded flow is played: who follows them has the exchange's own book and every trade, from market data and engine."""

from __future__ import annotations

import asyncio
import struct
import uuid
from contextlib import asynccontextmanager
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import psycopg

from exchange.market_data.candles import INTERVALS
from pincex.marketdata.v1 import market_data_service_pb2 as data_pb
from pincex.marketdata.v1 import market_data_service_pb2_grpc
from pincex_client import ExchangeClient, NotFound, RetryPolicy
from pincex_client.replay.flow import read_commands, read_fills
from pincex_client.replay.plan import Plan, make_plan, prepare
from pincex_client.replay.run import Flow, Replay, RunOptions
from tests.integration.market_data.history_rig import CANDLES_BY_SQL, TICKER_BY_SQL
from tests.integration.trading.engine_app import eventually
from tests.unit.market_data.streams_rig import OrderCopy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable
    from datetime import datetime
    from pathlib import Path

    from pincex_client import BookStream, Candle, CandleStream, TradeStream
    from tests.stack_fixture import ExchangeStack

DEADLINE_S = 100.0
LIVE_COMMANDS = 10_500
# Frames that are small enough for streams to have something to tell.
OPTIONS = RunOptions(window=500, batch_size=100)
# Depth and interval in ms of what is followed at market data.
KINDS = ((0, 0), (10, 0), (50, 0), (10, 100))


async def follow(stream: BookStream, seen: list[int]) -> None:
    async for book in stream:
        assert not book.crossed
        seen.append(book.sequence)


async def collect(stream: TradeStream, seen: list[str]) -> None:
    async for trade in stream:
        seen += [trade.trade_id]


async def draw(stream: CandleStream, seen: dict[datetime | None, Candle]) -> None:
    async for candle in stream:
        assert candle.open_time not in seen or not seen[candle.open_time].closed, "closed is for good"
        seen[candle.open_time] = candle


async def keep(client: ExchangeClient, symbol: str, copy: OrderCopy) -> None:
    """Follow order by order; the copy checks each message."""
    stub: Any = market_data_service_pb2_grpc.MarketDataServiceStub(client.channel)
    async for update in stub.StreamBookOrders(data_pb.StreamBookOrdersRequest(symbol=symbol)):
        copy.apply(update)


def book_hash(copy: OrderCopy, plan: Plan) -> str:
    """See docs/FEEDS.md."""
    digest = sha256()
    for side in (1, 2):
        for price, order_id, quantity in copy.in_priority(side):
            ticks, lots = Decimal(price) / plan.tick, Decimal(quantity) / plan.lot
            digest.update(struct.pack("<4q", side, int(ticks), int(order_id), int(lots)))
    return digest.hexdigest()


def prices(candle: Candle) -> tuple[Decimal, ...]:
    return candle.open, candle.high, candle.low, candle.close, candle.volume, candle.quote_volume


def second_of(moment: datetime | None) -> int:
    assert moment is not None
    return int(moment.timestamp())


async def known(client: ExchangeClient, symbol: str) -> None:
    """Until market data has heard of a market."""
    while True:
        try:
            await client.market_data.get_ticker(symbol)
        except NotFound:
            await asyncio.sleep(0.02)
        else:
            return


@asynccontextmanager
async def running(tasks: Iterable[Awaitable[None]]) -> AsyncIterator[None]:
    """Until the end of the block; none of them may have failed."""
    started = [asyncio.ensure_future(task) for task in tasks]
    try:
        yield
    finally:
        for task in started:
            task.cancel()
        ends = await asyncio.gather(*started, return_exceptions=True)
    assert [end for end in ends if isinstance(end, Exception)] == []


async def test_followed_books_equal_the_exchanges_own_and_trades_and_candles_are_those_of_the_tables(
    exchange_stack: ExchangeStack, recorded_flow: Path
) -> None:
    commands = read_commands(recorded_flow / "es-part-a.commands.csv")[:LIVE_COMMANDS]
    fills = [fill for fill in read_fills(recorded_flow / "es-part-a.fills.csv") if fill.seq <= LIVE_COMMANDS]
    run_id = uuid.uuid4().hex[:8]
    plan = make_plan(commands, symbol=f"F{run_id.upper()}", run_id=run_id)
    policy = RetryPolicy(deadline=30.0)
    ops = exchange_stack.ops_address
    async with (
        asyncio.timeout(DEADLINE_S),
        ExchangeClient(exchange_stack.edge_address, ops_target=ops, account=plan.account, policy=policy) as client,
        # There the engines themselves answer.
        ExchangeClient(ops, account="ops-local", policy=policy) as engines,
    ):
        await prepare(client, plan)
        symbol = plan.symbol
        await known(client, symbol)
        books = [client.book_stream(symbol, depth=depth, interval_ms=interval_ms) for depth, interval_ms in KINDS]
        books.append(engines.book_stream(symbol))
        updates: list[list[int]] = [[] for _ in books]
        trade_streams = client.trade_stream(symbol), engines.trade_stream(symbol)
        trades: list[list[str]] = [[], []]
        seconds: dict[datetime | None, Candle] = {}
        orders = OrderCopy()
        followers = (
            *(follow(stream, seen) for stream, seen in zip(books, updates, strict=True)),
            *(collect(stream, seen) for stream, seen in zip(trade_streams, trades, strict=True)),
            draw(client.market_data.candle_stream(symbol, "1s"), seconds),
            keep(client, symbol, orders),
        )
        async with running(followers):
            report = await Replay(client, plan, Flow(commands, fills, None), OPTIONS).run()
            assert report.differences == []
            await asyncio.gather(*(stream.reached(report.last_sequence) for stream in books))
            await asyncio.gather(*(stream.reached(report.last_sequence) for stream in trade_streams))
            await eventually(lambda: orders.sequence >= books[0].book.sequence, "every order is told")
            final = await engines.get_order_book(symbol, depth=5_000, min_sequence=report.last_sequence)
            own = await client.admin.book_state(symbol)
            await eventually(lambda: sum(one.trade_count for one in seconds.values()) == len(fills), "and every trade")
        for stream in books:
            depth = stream.book.depth
            levels = depth or 5_000
            assert (stream.gaps, stream.mismatches) == (0, 0)
            assert (stream.book.bids(), stream.book.asks()) == (final.bids[:levels], final.asks[:levels]), depth
            assert stream.book.checksum() == final.checksum
        assert min(len(updates[0]), len(updates[-1])) > 10, "each change was told, not all of them at the end"
        assert book_hash(orders, plan) == own.book_hash
        assert trades[0] == trades[1]
        assert len(set(trades[0])) == len(fills)
        await the_past_is_that_of_the_tables(exchange_stack, client, symbol, trades[0], seconds)
        for book_stream in books:
            await book_stream.aclose()
        for trade_stream in trade_streams:
            await trade_stream.aclose()


async def the_past_is_that_of_the_tables(
    stack: ExchangeStack, client: ExchangeClient, symbol: str, told: list[str], seconds: dict[datetime | None, Candle]
) -> None:
    data = client.market_data
    while len(await data.list_trades(symbol, limit=None)) < len(told):  # noqa: ASYNC110 - settlement is another process
        await asyncio.sleep(0.05)
    assert [trade.trade_id for trade in await data.list_trades(symbol, limit=None)] == told[::-1]
    with psycopg.connect(str(stack.admin_database_url), autocommit=True) as connection:
        for interval, length_s in INTERVALS.items():
            found = [
                (second_of(one.open_time), *map(str, prices(one)), one.trade_count, one.sequence)
                for one in await data.list_candles(symbol, interval, limit=None)
            ]
            assert found == connection.execute(CANDLES_BY_SQL, {"symbol": symbol, "length": length_s}).fetchall()
            assert len(found) > 0
        listed = {candle.open_time: prices(candle) for candle in await data.list_candles(symbol, "1s", limit=None)}
        assert {at: prices(candle) for at, candle in seconds.items()} == listed, "told as they came"
        ticker = await data.get_ticker(symbol)
        asked = {"symbol": symbol, "second": second_of(ticker.ticker_time)}
        (row,) = connection.execute(TICKER_BY_SQL, asked).fetchall()
    last = (ticker.last_price, ticker.last_quantity, ticker.open_price, ticker.high_price, ticker.low_price)
    assert (*map(str, (*last, ticker.volume, ticker.quote_volume)), ticker.trade_count) == row

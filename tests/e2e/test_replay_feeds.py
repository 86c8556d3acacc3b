"""Feeds while the recorded flow is played: a client that follows them has the exchange's own book and every trade."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pincex_client import ExchangeClient, RetryPolicy
from pincex_client.replay.flow import read_commands, read_fills
from pincex_client.replay.plan import make_plan, prepare
from pincex_client.replay.run import Flow, Replay, RunOptions

if TYPE_CHECKING:
    from pincex_client import BookStream, TradeStream
    from tests.stack_fixture import ExchangeStack

DEADLINE_S = 100.0
LIVE_COMMANDS = 14_000


async def follow(stream: BookStream, seen: list[int]) -> None:
    async for book in stream:
        assert not book.crossed
        seen.append(book.sequence)


async def collect(stream: TradeStream, seen: list[str]) -> None:
    async for trade in stream:
        seen += [trade.trade_id]


@pytest.mark.parametrize("depth", [0, 10])
async def test_a_followed_book_equals_the_exchanges_own_and_no_trade_is_missed(
    trading_stack: ExchangeStack, recorded_flow: Path, depth: int
) -> None:
    commands = read_commands(recorded_flow / "es-part-a.commands.csv")[:LIVE_COMMANDS]
    fills = [fill for fill in read_fills(recorded_flow / "es-part-a.fills.csv") if fill.seq <= LIVE_COMMANDS]
    run_id = uuid.uuid4().hex[:8]
    plan = make_plan(commands, symbol=f"F{run_id.upper()}", run_id=run_id)
    client = ExchangeClient(
        trading_stack.edge_address,
        ops_target=trading_stack.ops_address,
        account=plan.account,
        policy=RetryPolicy(deadline=30.0),
    )
    books: list[int] = []
    trades: list[str] = []
    async with asyncio.timeout(DEADLINE_S), client:
        await prepare(client, plan)
        book_stream, trade_stream = client.book_stream(plan.symbol, depth=depth), client.trade_stream(plan.symbol)
        followers = [
            asyncio.create_task(follow(book_stream, books)),
            asyncio.create_task(collect(trade_stream, trades)),
        ]
        report = await Replay(client, plan, Flow(commands, fills, None), RunOptions()).run()
        assert report.differences == []
        await asyncio.gather(*(stream.reached(report.last_sequence) for stream in (book_stream, trade_stream)))
        final = await client.get_order_book(plan.symbol, depth=depth or 5_000, min_sequence=report.last_sequence)
        for task in followers:
            task.cancel()
        assert not any(isinstance(end, Exception) for end in await asyncio.gather(*followers, return_exceptions=True))
        assert (book_stream.gaps, book_stream.mismatches, trade_stream.gaps) == (0, 0, 0)
        assert book_stream.book.bids() == final.bids
        assert book_stream.book.asks() == final.asks
        assert book_stream.book.checksum() == final.checksum
        assert len(books) > 10
        assert len(trades) == len(set(trades)) == len(fills)
        await book_stream.aclose()
        await trade_stream.aclose()

"""The history's part of market data inside the test's own event loop, beside an engine in memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from exchange.market_data.books import Books
from exchange.market_data.follower import Follower
from exchange.market_data.history import History
from exchange.market_data.service.candles import CandleService
from exchange.market_data.service.feeds import Counts
from exchange.market_data.service.history import TradeHistory
from exchange.market_data.service.history_intake import frame_of
from exchange.market_data.service.past import Past
from exchange.market_data.service.places import Places
from exchange.market_data.service.source import EventSource
from exchange.market_data.service.tickers import TickerService
from exchange.runtime.clock import SystemClock
from exchange.runtime.database import Database as Pool
from exchange.runtime.event_feed import EventFeed, FeedError
from exchange.runtime.grpc_server import GrpcServer
from exchange.runtime.internal_client import InternalClient
from exchange.runtime.metrics import GrpcMetrics, new_registry
from exchange.runtime.principal import DevelopmentResolver
from pincex.marketdata.v1 import market_data_service_pb2_grpc
from tests.integration.market_data.history_rig import market_data_url
from tests.integration.trading.engine_app import DEADLINE_S, Stream, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.trading.engine_app import Exchange
    from tests.postgres_fixture import Database


@dataclass
class MarketHistory:
    """What runs, and a client of it."""

    history: History
    candles: CandleService
    tickers: TickerService
    books: Books
    channel: grpc.aio.Channel
    stub: Any = field(init=False)

    def __post_init__(self) -> None:
        channel: Any = self.channel
        self.stub = market_data_service_pb2_grpc.MarketDataServiceStub(channel)

    async def ask(self, method: str, request: Any) -> Any:
        """A unary call."""
        return await getattr(self.stub, method)(request, timeout=DEADLINE_S)

    async def ask_with_headers(self, method: str, request: Any) -> tuple[Any, str]:
        """A unary call, and how long its answer may be kept."""
        call = getattr(self.stub, method)(request, timeout=DEADLINE_S)
        answer = await call
        return answer, str(dict(await call.initial_metadata()).get("cache-control", ""))

    def stream(self, method: str, request: Any) -> Stream:
        """An open stream."""
        return Stream(getattr(self.stub, method)(request))

    async def caught_up(self, exchange: Exchange) -> int:
        """Wait until all that the engine has done is in books, memory and tables."""
        sequence = exchange.engine.state.sequence
        await eventually(
            lambda: min(self.history.written.sequence, self.history.sequence, self.books.sequence) >= sequence,
            f"{sequence} is in the history",
        )
        return sequence


class Servicer:
    """The methods of the parts, as one service."""

    def __init__(self, *parts: object) -> None:
        self._parts = parts

    def __getattr__(self, name: str) -> Any:
        return next((getattr(part, name) for part in self._parts if hasattr(part, name)), None)


@asynccontextmanager
async def running_market_history(exchange: Exchange, database: Database) -> AsyncIterator[MarketHistory]:
    """One instance, until the end of the block."""
    clock = SystemClock()
    client = InternalClient(f"127.0.0.1:{exchange.app.ops.port}", "market-data", None)
    follower, books, counts = Follower(EventSource(client), clock), Books(), Counts()
    places = Places(follower, Past(client).check)
    follower.subscribe(places)
    follower.subscribe(books)
    history = History(
        market_data_url(database), "one", EventFeed(client, through_restores=True), frame_of, passing=(FeedError,)
    )
    pool = Pool(market_data_url(database), "one")
    candles = CandleService(history, pool, books, places, counts)
    tickers = TickerService(history, books, places, counts, clock)
    history.listen(candles)
    history.listen(tickers)
    servicer = Servicer(candles, tickers, TradeHistory(pool, books))
    registry = new_registry(service="market-data", instance="one", version="0")
    server = GrpcServer("127.0.0.1:0", resolver=DevelopmentResolver(), metrics=GrpcMetrics(registry))
    server.add(market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server, servicer)
    await pool.open()
    port = await server.start()
    await server.set_serving(True)
    tasks = [asyncio.create_task(task) for task in (follower.run(), history.run(), tickers.run())]
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield MarketHistory(history, candles, tickers, books, channel)
    finally:
        await server.stop(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await pool.close()
        await client.close()

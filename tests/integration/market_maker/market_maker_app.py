"""The market maker inside the test's own event loop, beside an engine in memory that also serves a reference price of the
test's choice, as the public edge would.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import grpc

from exchange.market_maker.__main__ import App
from exchange.market_maker.config import Config
from exchange.runtime import process
from exchange.runtime.config import Environment
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading.service import order_stream
from pincex.marketdata.v1 import feed_service_pb2, feed_service_pb2_grpc
from pincex.marketmaker.v1 import market_maker_service_pb2 as pb
from pincex.marketmaker.v1 import market_maker_service_pb2_grpc
from tests.integration.trading.engine_app import DEADLINE_S, ENVIRONMENT, Client, Exchange, eventually, running_exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from pincex.trading.v1 import types_pb2
    from tests.postgres_fixture import Database

ACCOUNT = "market-maker"
HEARTBEAT_S = 0.1


class FakeReference(feed_service_pb2_grpc.ReferencePriceServiceServicer):
    """What other venues come to, as the test says; without a price there is none."""

    def __init__(self) -> None:
        self.prices: dict[str, str] = {"BTCUSD": "50000.00"}
        self.age_s = 0.0

    async def GetReferencePrice(  # noqa: N802 - the contract's name
        self, request: feed_service_pb2.GetReferencePriceRequest, context: Any
    ) -> feed_service_pb2.ReferencePrice:
        price = self.prices.get(request.symbol)
        if price is None:
            raise ServiceError(ErrorReason.PRICE_UNAVAILABLE)
        found = feed_service_pb2.ReferencePrice(symbol=request.symbol, price=price, venue_count=3)
        found.price_time.FromNanoseconds(time.time_ns() - int(self.age_s * 1e9))
        return found


@asynccontextmanager
async def exchange_with_reference(monkeypatch: pytest.MonkeyPatch, reference: FakeReference) -> AsyncIterator[Exchange]:
    """The development exchange in memory; its streams beat fast."""
    monkeypatch.setattr(order_stream, "HEARTBEAT_S", HEARTBEAT_S)

    def prepare(app: Any) -> None:
        app.public.add(feed_service_pb2_grpc.add_ReferencePriceServiceServicer_to_server, reference)

    async with running_exchange(monkeypatch, prepare=prepare) as found:
        yield found


@dataclass
class MarketMaker:
    """A running instance, and what an operator and the public see of it."""

    app: App
    exchange: Exchange
    ops: grpc.aio.Channel
    stub: Any = field(init=False)

    def __post_init__(self) -> None:
        channel: Any = self.ops
        self.stub = market_maker_service_pb2_grpc.MarketMakerServiceStub(channel)

    @property
    def client(self) -> Client:
        return self.exchange.client(ACCOUNT)

    async def ask(self, method: str, request: Any) -> pb.MarketMakerStatus:
        """A call of MarketMakerService."""
        found: pb.MarketMakerStatus = await getattr(self.stub, method)(request, timeout=DEADLINE_S)
        return found

    async def status(self) -> pb.MarketMakerStatus:
        return await self.ask("GetMarketMakerStatus", pb.GetMarketMakerStatusRequest())

    async def market(self, symbol: str = "BTCUSD") -> pb.MarketQuoting:
        """One market of the status."""
        return next(market for market in (await self.status()).markets if market.symbol == symbol)

    async def orders(self, symbol: str = "BTCUSD") -> list[types_pb2.Order]:
        """Its open orders, as the engine has them."""
        return await self.client.listed(symbol=symbol)

    async def until(self, state: str, symbol: str = "BTCUSD") -> pb.MarketQuoting:
        """Wait for a state."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found = [market for market in (await self.status()).markets if market.symbol == symbol]
                if found and found[0].state == state:
                    return found[0]
                await asyncio.sleep(0.02)

    async def quoting(self, count: int = 10, symbol: str = "BTCUSD") -> list[types_pb2.Order]:
        """Wait until so many orders stand."""
        async with asyncio.timeout(DEADLINE_S):
            while len(found := await self.orders(symbol)) != count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return found

    async def rounds(self, count: int = 2) -> None:
        """Wait until it has looked so many times more."""
        rounds = self._rounds()
        await eventually(lambda: self._rounds() >= rounds + count, "it goes on")

    def _rounds(self) -> float:
        value = self.app.registry.get_sample_value("pincex_market_maker_round_seconds_count")
        return value or 0.0


def environment(exchange: Exchange, database: Database, logs: str, **variables: str) -> dict[str, str]:
    """What a process of the market maker beside this engine is started with."""
    return {
        "PINCEX_PROFILE": ENVIRONMENT["PINCEX_PROFILE"],
        "JWT_SECRET": ENVIRONMENT["JWT_SECRET"],
        "PINCEX_INSTANCE": "market-maker-under-test",
        "PINCEX_MARKET_MAKER_DATABASE_URL": database.market_maker_url,
        "PINCEX_INTERNAL_TARGET": f"127.0.0.1:{exchange.app.ops.port}",
        "PINCEX_EDGE_TARGET": f"127.0.0.1:{exchange.app.public.port}",
        "PINCEX_DRAIN_SECONDS": "0.5",
        "PINCEX_MARKET_MAKER_SECONDS": "0.05",
        "PINCEX_LOG_DIR": logs,
        **variables,
    }


@asynccontextmanager
async def running_market_maker(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database, **variables: str
) -> AsyncIterator[MarketMaker]:
    """An instance, until the end of the block."""
    stopped = asyncio.Event()
    monkeypatch.setattr(process, "stop_signal", lambda: stopped)
    logs = tempfile.mkdtemp(prefix="pincex-test-logs-")
    app = App(Config.read(Environment(environment(exchange, database, logs, **variables))))
    running = asyncio.create_task(app.run())
    try:
        await eventually(lambda: running.done() or app.ops.port != 0, "it listens")
        if running.done():
            await running
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.ops.port}") as ops:
            yield MarketMaker(app, exchange, ops)
    finally:
        stopped.set()
        try:
            await asyncio.wait_for(running, DEADLINE_S)
        finally:
            shutil.rmtree(logs)


def best(orders: list[types_pb2.Order]) -> tuple[Decimal, Decimal]:
    """Best bid and best ask of some orders."""
    bids = [Decimal(order.price) for order in orders if order.side == 1]
    asks = [Decimal(order.price) for order in orders if order.side == 2]
    return max(bids), min(asks)

"""Books and streams of market data inside the test's own event loop, beside an engine in memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from exchange.market_data.service.parts import BookPart
from exchange.runtime.clock import SystemClock
from exchange.runtime.drain import Drain
from exchange.runtime.grpc_server import GrpcServer
from exchange.runtime.internal_client import InternalClient
from exchange.runtime.metrics import GrpcMetrics, new_registry
from exchange.runtime.principal import DevelopmentResolver
from pincex.trading.v1 import market_service_pb2_grpc
from tests.integration.trading.engine_app import DEADLINE_S, Stream, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prometheus_client import CollectorRegistry

    from tests.integration.trading.engine_app import Exchange


@dataclass
class MarketBooks:
    """What runs, and a client of its MarketService."""

    part: BookPart
    channel: grpc.aio.Channel
    registry: CollectorRegistry
    stub: Any = field(init=False)

    def __post_init__(self) -> None:
        channel: Any = self.channel
        self.stub = market_service_pb2_grpc.MarketServiceStub(channel)

    async def ask(self, method: str, request: Any) -> Any:
        """A unary call."""
        return await getattr(self.stub, method)(request, timeout=DEADLINE_S)

    def stream(self, method: str, request: Any) -> Stream:
        """An open stream."""
        return Stream(getattr(self.stub, method)(request))

    async def caught_up(self, exchange: Exchange) -> int:
        """Wait until all that the engine has done is in the books."""
        sequence = exchange.engine.state.sequence
        assert await self.part.follower.reached(sequence, DEADLINE_S)
        return sequence


@asynccontextmanager
async def running_books(exchange: Exchange) -> AsyncIterator[MarketBooks]:
    """One instance, until the end of the block."""
    clock, drain = SystemClock(), Drain()
    client = InternalClient(f"127.0.0.1:{exchange.app.ops.port}", "market-data", None)
    registry = new_registry(service="market-data", instance="one", version="0")
    part = BookPart(client, clock, drain, registry)
    server = GrpcServer("127.0.0.1:0", resolver=DevelopmentResolver(), metrics=GrpcMetrics(registry), drain=drain)
    server.add(market_service_pb2_grpc.add_MarketServiceServicer_to_server, part.market)
    port = await server.start()
    tasks = [asyncio.create_task(task) for task in part.tasks()]
    try:
        await eventually(lambda: part.follower.ready, "it has books")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield MarketBooks(part, channel, registry)
    finally:
        await server.stop(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()

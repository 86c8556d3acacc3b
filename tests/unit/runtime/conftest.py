"""A real server on a free port, with a service that does whatever a test asks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from prometheus_client import CollectorRegistry

from exchange.runtime.access import MethodPolicy
from exchange.runtime.audit.contract import AuditTrail, SecurityLog
from exchange.runtime.grpc_server import GrpcServer, ServerLimits
from exchange.runtime.metrics import GrpcMetrics
from exchange.runtime.principal import DevelopmentResolver, PrincipalResolver

SERVICE = "pincex.test.Echo"
TRADE = MethodPolicy(scope="trade")
Handler = Callable[[Any, Any], Any]


@dataclass
class Echo:
    """The servicer: each method is whatever a test puts there."""

    one: Handler | None = None
    stream: Handler | None = None
    chat: Handler | None = None
    collect: Handler | None = None


def add_echo_to_server(servicer: Echo, server: Any) -> None:
    """Register as generated code does."""
    codec: dict[str, Any] = {
        "request_deserializer": StringValue.FromString,
        "response_serializer": StringValue.SerializeToString,
    }
    handlers: dict[str, Any] = {}
    if servicer.one is not None:
        handlers["One"] = grpc.unary_unary_rpc_method_handler(servicer.one, **codec)
    if servicer.stream is not None:
        handlers["Stream"] = grpc.unary_stream_rpc_method_handler(servicer.stream, **codec)
    if servicer.chat is not None:
        handlers["Chat"] = grpc.stream_stream_rpc_method_handler(servicer.chat, **codec)
    if servicer.collect is not None:
        handlers["Collect"] = grpc.stream_unary_rpc_method_handler(servicer.collect, **codec)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


@dataclass
class Running:
    """A server that listens and a channel to it."""

    server: GrpcServer
    channel: grpc.aio.Channel
    registry: CollectorRegistry

    def one(self) -> Any:
        return self._codec(self.channel.unary_unary, "One")

    def stream(self) -> Any:
        return self._codec(self.channel.unary_stream, "Stream")

    def chat(self) -> Any:
        return self._codec(self.channel.stream_stream, "Chat")

    def collect(self) -> Any:
        return self._codec(self.channel.stream_unary, "Collect")

    def raw(self, method: str) -> Any:
        channel: Any = self.channel
        return channel.unary_unary(f"/{SERVICE}/{method}")

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def requests(self, method: str, code: str) -> float:
        return self.count("grpc_requests_total", service=SERVICE, method=method, code=code)

    def _codec(self, make: Any, method: str) -> Any:
        return make(
            f"/{SERVICE}/{method}",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )


@dataclass
class Starter:
    """Starts servers and stops what a test leaves running."""

    running: list[Running] = field(default_factory=list)

    async def __call__(
        self,
        servicer: Echo,
        *,
        resolver: PrincipalResolver | None = None,
        limits: ServerLimits | None = None,
        channelz: bool = False,
        trail: AuditTrail | None = None,
        security: SecurityLog | None = None,
        policy: MethodPolicy = TRADE,
    ) -> Running:
        registry = CollectorRegistry()
        server = GrpcServer(
            "127.0.0.1:0",
            resolver=resolver if resolver is not None else DevelopmentResolver(),
            metrics=GrpcMetrics(registry),
            limits=limits,
            with_channelz=channelz,
            trail=trail,
            security=security,
        )
        server.add(add_echo_to_server, servicer, policy)
        port = await server.start()
        running = Running(server, grpc.aio.insecure_channel(f"127.0.0.1:{port}"), registry)
        self.running.append(running)
        return running


@pytest.fixture
async def start() -> AsyncIterator[Starter]:
    starter = Starter()
    yield starter
    for running in starter.running:
        await running.channel.close(None)
        await running.server.stop(0)


@pytest.fixture
def within() -> Callable[[Awaitable[Any]], Awaitable[Any]]:
    """Wait on a thing, ten seconds at most."""

    async def wait(awaitable: Awaitable[Any]) -> Any:
        async with asyncio.timeout(10):
            return await awaitable

    return wait

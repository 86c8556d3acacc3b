"""The server of the protocol on a free port, before an exchange that says what the test has it say."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from exchange.websocket.counts import Counts
from exchange.websocket.feed import Feeds
from exchange.websocket.limits import Limits
from exchange.websocket.server import WebSocketServer
from tests.integration.websocket.scripted import ScriptedExchange
from tests.integration.websocket.speaker import Speaker, speaking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from exchange.websocket.session import Exchange

    Serve = Callable[..., AbstractAsyncContextManager["Served"]]


@dataclass(slots=True)
class Served:
    """A running server, and what is behind it."""

    server: WebSocketServer
    exchange: Any

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}/ws"

    @property
    def counts(self) -> Counts:
        return self.server.counts

    def speak(self, *, welcomed: bool = True, **options: Any) -> AbstractAsyncContextManager[Speaker]:
        """A client."""
        return speaking(self.url, welcomed=welcomed, **options)


@asynccontextmanager
async def serving(exchange: Exchange, **limits: Any) -> AsyncIterator[Served]:
    """A server before an exchange; `limits` differ from the usual."""
    bounds = replace(Limits(), **limits)
    counts = Counts()
    server = WebSocketServer(exchange, Feeds(exchange.source, bounds, counts), bounds, counts, instance="websocket-1")
    await server.start()
    try:
        yield Served(server, exchange)
    finally:
        await server.stop()


@pytest.fixture
def exchange() -> ScriptedExchange:
    return ScriptedExchange()


@pytest.fixture
async def served(exchange: ScriptedExchange) -> AsyncIterator[Served]:
    async with serving(exchange) as found:
        yield found


@pytest.fixture
def serve(exchange: ScriptedExchange) -> Serve:
    """With limits of the test's own."""
    return lambda **limits: serving(exchange, **limits)

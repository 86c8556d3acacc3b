"""Clients that send, or subscribe, and never read: bounded, cut off in the end, and nobody else notices."""

from __future__ import annotations

import asyncio
import re

import pytest

from exchange.trading.__main__ import App
from pincex.trading.v1 import admin_service_pb2, market_service_pb2
from tests.integration.trading.engine_app import Exchange, eventually, running_exchange
from tests.integration.trading.session_client import Session, buying, seconds

RESTING = buying("0.01", "40000")
PATIENCE_S = 30.0
"""Until every buffer between client and server is full, on a busy machine."""


def impatient(app: App) -> None:
    """A quarter of a second to take a message, instead of half a minute."""
    app.public.guard.calls.max_write_seconds = 0.25


async def flood(session: Session) -> None:
    for batch in range(100_000):
        await session.send(1 + batch * 50, *[RESTING] * 50)


async def test_a_session_that_never_reads_is_cut_off_and_its_orders_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exchange.trading.service.session.MAX_OUTSTANDING", 400)
    async with running_exchange(monkeypatch, prepare=impatient) as exchange:
        session = await Session.open(exchange.demo, cancel_on_disconnect=True, grace=seconds(0))
        connection = exchange.app.sessions._connections["demo", "s"]
        flooding = asyncio.create_task(flood(session))
        await eventually(lambda: connection.outstanding >= 350, "the session is full")
        assert (await exchange.maker.buy("0.01", "40000")).order_id

        await eventually(lambda: exchange.app.sessions.open_count == 0, "it is cut off", PATIENCE_S)

        await eventually(lambda: not exchange.engine.state.accounts["demo"].orders, "its orders are cancelled")
        assert connection.outstanding <= 400
        assert exchange.app.public.guard.open_streams == 0
        assert await slow_consumers(exchange) == 1
        flooding.cancel()


async def test_a_subscriber_that_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_exchange(monkeypatch, prepare=impatient) as exchange:
        request = market_service_pb2.StreamOrderBookRequest(symbol="BTCUSD")
        mute = exchange.demo.stream(exchange.demo.markets.StreamOrderBook, request)
        reader = exchange.maker.stream(exchange.maker.markets.StreamOrderBook, request)
        await mute.next()
        await reader.next()
        monkeypatch.setattr(exchange.app.books._places, "token", lambda *_: "x" * 20_000)

        async def publish() -> None:
            while True:
                exchange.app.books.heartbeat(1)
                await reader.next()

        publishing = asyncio.create_task(publish())
        await eventually(lambda: exchange.app.public.guard.open_streams == 1, "the mute one is cut off", PATIENCE_S)

        assert await slow_consumers(exchange) == 1
        assert not publishing.done()
        publishing.cancel()


async def test_a_quiet_stream_is_not_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_exchange(monkeypatch, prepare=impatient) as exchange:
        session = await Session.open(exchange.demo)
        calls = exchange.app.public.guard.calls
        for _ in range(3):
            calls._sweep()
        await eventually(lambda: not calls._writing, "nothing is being written")

        await session.ping(1)
        assert (await session.stream.next()).pong.nonce == 1


async def slow_consumers(exchange: Exchange) -> int:
    """Streams that ended with RESOURCE_EXHAUSTED, as the metrics say."""
    request = admin_service_pb2.GetMetricsRequest()
    text = (await exchange.operator.ask(exchange.operator.admin.GetMetrics, request)).data.decode()
    counted = re.findall(r'^grpc_requests_total\{.*code="RESOURCE_EXHAUSTED".*\} (\S+)$', text, re.MULTILINE)
    return sum(int(float(count)) for count in counted)

"""Venues on this machine that speak Binance's and Coinbase's formats, and do what venues do on bad days."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from exchange.market_data.venues.catalogue import BINANCE, COINBASE, VENUES, Venue

HUGE = 300_000
"""Characters of a message that is larger than the feeds of these tests take."""


class VenueServer:
    """One market, its book a bid and an ask around a price that `move` moves. What was sent can be told from `best`."""

    name: str

    def __init__(self) -> None:
        self.price = 50_000
        self.accepted = 0
        self.closes_at_once = 0
        self.refuses = False
        self.is_mute = False
        self.clients: set[ServerConnection] = set()
        self._server: Server | None = None

    @property
    def best(self) -> tuple[Decimal, Decimal]:
        """The best bid and ask of its book."""
        return Decimal(self.price), Decimal(self.price + 1)

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"

    @property
    def venue(self) -> Venue:
        """For a feed."""
        known = VENUES[self.name]
        return replace(
            known,
            url=f"ws://{self.address}",
            rest_url=f"http://{self.address}",
            products={"BTCUSD": known.products["BTCUSD"]},
        )

    async def __aenter__(self) -> Self:
        self._server = await serve(self._serve, "127.0.0.1", 0, process_request=self._request, compression=None)
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def say(self, text: str | bytes) -> None:
        """The same to everybody."""
        for client in tuple(self.clients):
            with contextlib.suppress(ConnectionClosed):
                await client.send(text)

    async def drop(self) -> None:
        """End all connections without a word."""
        for client in tuple(self.clients):
            client.transport.abort()

    async def move(self) -> None:
        """The price changes, and everybody is told."""
        self.price += 1
        if not self.is_mute:
            await self.tell()

    async def lose(self) -> None:
        """The price changes, and what tells so is lost."""
        raise NotImplementedError

    async def tell(self) -> None:
        raise NotImplementedError

    async def disagree(self) -> None:
        """Say something that the book contradicts."""
        raise NotImplementedError

    async def trade(self) -> None:
        """A trade at the bid."""
        raise NotImplementedError

    async def greet(self, client: ServerConnection) -> None:
        raise NotImplementedError

    def forget(self, client: ServerConnection) -> None:
        """The connection is gone."""

    async def _serve(self, client: ServerConnection) -> None:
        self.accepted += 1
        if self.closes_at_once:
            self.closes_at_once -= 1
            return
        try:
            await self.greet(client)
            self.clients.add(client)
            async for _ in client:
                pass
        except ConnectionClosed:
            pass
        finally:
            self.clients.discard(client)
            self.forget(client)

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        return Response(503, "Service Unavailable", Headers(), b"") if self.refuses else self.answer(request)

    def answer(self, request: Request) -> Response | None:
        """What a request by HTTP gets; None: it is a WebSocket."""
        return None


class BinanceServer(VenueServer):
    """Diff. depth, trade and book ticker; the snapshot by HTTP on the same port."""

    name = BINANCE

    def __init__(self) -> None:
        super().__init__()
        self.update = 1_000
        self.fails = 0
        self.snapshots = 0
        self._told: set[int] = {self.price}

    async def greet(self, client: ServerConnection) -> None:
        """Nothing comes before the first change."""

    async def tell(self) -> None:
        first, self.update = self.update + 1, self.update + 2
        gone = [[f"{price}.00", "0.00000000"] for price in self._told if price != self.price]
        gone_asks = [[f"{price + 1}.00", "0.00000000"] for price in self._told if price != self.price]
        self._told = {self.price}
        await self.say(
            _binance(
                "depth@100ms",
                {
                    "e": "depthUpdate", "E": int(time.time() * 1e3), "s": "BTCUSDT", "U": first, "u": self.update,
                    "b": [*gone, [f"{self.price}.00", "1.50000000"]],
                    "a": [*gone_asks, [f"{self.price + 1}.00", "2.50000000"]],
                },
            )
        )  # fmt: skip
        await self.ticker(Decimal(self.price))

    async def ticker(self, bid: Decimal) -> None:
        """The best prices, as of the last update."""
        data = {"u": self.update, "s": "BTCUSDT", "b": str(bid), "B": "1.5", "a": f"{self.price + 1}.00", "A": "2.5"}
        await self.say(_binance("bookTicker", data))

    async def lose(self) -> None:
        self._told.add(self.price)
        self.price += 1
        self.update += 2

    async def disagree(self) -> None:
        await self.ticker(Decimal(self.price) - 1)

    async def trade(self) -> None:
        data = {
            "e": "trade", "E": int(time.time() * 1e3), "s": "BTCUSDT", "t": 1, "p": f"{self.price}.00", "q": "1",
            "T": int(time.time() * 1e3), "m": True, "M": True,
        }  # fmt: skip
        await self.say(_binance("trade", data))

    def answer(self, request: Request) -> Response | None:
        parts = urlsplit(request.path)
        if parts.path != "/api/v3/depth":
            return None
        assert parse_qs(parts.query)["symbol"] == ["BTCUSDT"]
        self.snapshots += 1
        if self.fails:
            self.fails -= 1
            return Response(429, "Too Many Requests", Headers(), b"")
        body = json.dumps(
            {
                "lastUpdateId": self.update,
                "bids": [[f"{self.price}.00", "1.50000000"]],
                "asks": [[f"{self.price + 1}.00", "2.50000000"]],
            }
        ).encode()
        self._told = {self.price}
        return Response(200, "OK", Headers({"Content-Length": str(len(body)), "Connection": "close"}), body)


class CoinbaseServer(VenueServer):
    """level2, market_trades and heartbeats; each connection has its own sequence."""

    name = COINBASE

    def __init__(self) -> None:
        super().__init__()
        self._sequences: dict[ServerConnection, int] = {}
        self._last = self.price

    async def greet(self, client: ServerConnection) -> None:
        for channel in ("level2", "market_trades", "heartbeats"):
            asked = json.loads(await client.recv())
            assert (asked["type"], asked["channel"]) == ("subscribe", channel)
        self._sequences[client] = 0
        if not self.is_mute:
            await self._send(client, "l2_data", [self._book("snapshot", self.price)])

    def forget(self, client: ServerConnection) -> None:
        self._sequences.pop(client, None)

    async def tell(self) -> None:
        event = self._book("update", self.price, gone=self._last)
        self._last = self.price
        await self._to_all("l2_data", [event])

    async def lose(self) -> None:
        self.price += 1
        for client in self._sequences:
            self._sequences[client] += 1

    async def disagree(self) -> None:
        """A bid above the ask."""
        await self._to_all("l2_data", [_event("update", [_level("bid", self.price + 100_000, "1")])])

    async def trade(self) -> None:
        trade = {"trade_id": "1", "product_id": "BTC-USD", "price": f"{self.price}.00", "size": "1", "side": "BUY"}
        await self._to_all("market_trades", [{"type": "update", "trades": [{**trade, "time": _now()}]}])

    async def _to_all(self, channel: str, events: list[Any]) -> None:
        for client in tuple(self.clients):
            with contextlib.suppress(ConnectionClosed):
                await self._send(client, channel, events)

    async def _send(self, client: ServerConnection, channel: str, events: list[Any]) -> None:
        number = self._sequences[client]
        self._sequences[client] += 1
        message = {"channel": channel, "client_id": "", "timestamp": _now(), "sequence_num": number, "events": events}
        await client.send(json.dumps(message))

    @staticmethod
    def _book(kind: str, price: int, gone: int | None = None) -> Mapping[str, Any]:
        levels = [_level("bid", price, "1.5"), _level("offer", price + 1, "2.5")]
        if gone is not None and gone != price:
            levels = [
                _level("bid", gone, "0"),
                *([_level("offer", gone + 1, "0")] if gone + 1 != price + 1 else []),
                *levels,
            ]
        return _event(kind, levels)


def _event(kind: str, levels: list[dict[str, str]]) -> dict[str, Any]:
    return {"type": kind, "product_id": "BTC-USD", "updates": levels}


def _level(side: str, price: int, quantity: str) -> dict[str, str]:
    return {"side": side, "event_time": _now(), "price_level": f"{price}.00", "new_quantity": quantity}


def _binance(stream: str, data: Mapping[str, Any]) -> str:
    return json.dumps({"stream": f"btcusdt@{stream}", "data": data})


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


@contextlib.asynccontextmanager
async def moving(server: VenueServer) -> AsyncIterator[None]:
    """The price moves all the while."""

    async def move() -> None:
        while True:
            await server.move()
            await asyncio.sleep(0.005)

    task = asyncio.create_task(move())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

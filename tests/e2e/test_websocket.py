"""WebSocket through Envoy on the whole exchange: every channel, every death, and the document's dialogues."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from exchange.websocket.channels import CHANNELS
from exchange.websocket.states import checksum
from tests.edge_http import call
from tests.integration.websocket.speaker import Speaker, speaking
from tests.unit.docs.tables import document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.stack_fixture import ExchangeStack

_NUMBERS = count(1)
_DIALOGUE = re.compile(r"^<!-- dialogue: ([a-z]+) -->\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIALOGUES = dict(_DIALOGUE.findall(document("docs/WEBSOCKET.md")))


def url(stack: ExchangeStack) -> str:
    return f"ws://{stack.edge_address}/ws"


def place(stack: ExchangeStack, side: str, price: str, quantity: str = "0.001") -> None:
    """Over REST, as somebody else would; again and again until the edge has found out who is there."""
    body = {"symbol": "BTCUSD", "side": side, "order_type": "LIMIT", "quantity": quantity, "price": price}
    text = json.dumps({**body, "client_order_id": f"ws-{next(_NUMBERS)}-{time.time_ns()}"})
    headers = {"content-type": "application/json", "x-pincex-account": "maker"}
    answer = call(f"{stack.edge_url}/api/v1/orders", "POST", text, headers)
    while answer.status == 503:
        time.sleep(0.02)
        answer = call(f"{stack.edge_url}/api/v1/orders", "POST", text, headers)
    assert answer.status == 200, answer.text


@asynccontextmanager
async def back(stack: ExchangeStack) -> AsyncIterator[Speaker]:
    """A client that connects again, as soon as it is let in."""
    while True:
        try:
            async with connect(url(stack), open_timeout=10, close_timeout=1) as socket:
                yield Speaker(socket)
                return
        except (InvalidStatus, ConnectionRefusedError):
            await asyncio.sleep(0.02)


class Book:
    """What a client that trusts nobody keeps: it fails at a gap, and at a checksum that is not its own."""

    def __init__(self) -> None:
        self.sides: dict[str, dict[str, dict[str, Any]]] = {"bids": {}, "asks": {}}
        self.sequence = "0"
        self.token = ""
        self.snapshots = 0

    def apply(self, data: dict[str, Any]) -> None:
        if "snapshot" in data:
            self.sides = {"bids": {}, "asks": {}}
            self.snapshots += 1
        else:
            assert data["prev_sequence"] == self.sequence, "a gap that nobody told of"
        content = data.get("snapshot") or data.get("delta") or {}
        for name, side in self.sides.items():
            for level in content.get(name, ()):
                if float(level["quantity"]):
                    side[level["price"]] = level
                else:
                    del side[level["price"]]
        bids = sorted(self.sides["bids"].values(), key=lambda one: -float(one["price"]))
        asks = sorted(self.sides["asks"].values(), key=lambda one: float(one["price"]))
        assert checksum(bids, asks) == data["checksum"]
        self.sequence, self.token = data["sequence"], data["resume_token"]


async def until_seen(client: Speaker, book: Book, price: str) -> None:
    """Follow until the book has a level at this price."""
    while not any(price in side for side in book.sides.values()):
        book.apply(await client.update("book", heartbeats=True))


async def test_every_channel_begins_and_orders_are_seen_on_them(exchange_stack: ExchangeStack) -> None:
    async with speaking(url(exchange_stack)) as client:
        for name, channel in CHANNELS.items():
            fields = {"symbol": "BTCUSD"} if "symbol" in channel.required else {}
            assert (await client.subscribe(name, **fields))["prev_sequence"] == "0"
        conflated = await client.subscribe("book", symbol="BTCUSD", depth=10, interval_ms=100)
        assert conflated["prev_sequence"] == "0"
        sell = {"symbol": "BTCUSD", "side": "SELL", "order_type": "LIMIT", "quantity": "0.002", "price": "50000"}
        assert (await client.ask("place", request=sell))["type"] == "result"
        await asyncio.to_thread(place, exchange_stack, "BUY", "50000", "0.002")
        wanted = {("trades", "trades"), ("orders", "fill"), ("ticker", "tickers"), ("candles", "candles")}
        wanted |= {("balances", "changed"), ("book-orders", "delta")}
        while wanted:
            message = await client.until(lambda one: one["type"] == "update")
            wanted -= {(message["channel"], content) for content in message["data"]}


async def test_a_connection_survives_what_is_behind_it_and_its_book_has_no_gap(exchange_stack: ExchangeStack) -> None:
    stack = exchange_stack
    book = Book()
    async with speaking(url(stack)) as client:
        book.apply(await client.subscribe("book", symbol="BTCUSD"))
        for number, victim in enumerate(("trading-engine-1", "market-data-1")):
            await asyncio.to_thread(stack.restart, victim)
            price = f"49123.{40 + number}"
            await asyncio.to_thread(place, stack, "BUY", price)
            await until_seen(client, book, price)
        assert (await client.ask("ping"))["type"] == "pong"
        assert not [one for one in client.seen if one["type"] in {"ended", "error"}]
        # The edge takes the connection with it.
        await asyncio.to_thread(stack.restart, "envoy")
        await client.closed()
    async with back(stack) as client:
        # What came after the token follows, if anything did.
        answer = await client.ask("subscribe", channel="book", symbol="BTCUSD", resume_token=book.token)
        assert answer["type"] == "subscribed", answer
        await asyncio.to_thread(place, stack, "BUY", "49123.42")
        await until_seen(client, book, "49123.42")
        # So does the process itself.
        await asyncio.to_thread(stack.restart, "websocket-1")
        await client.closed()
    async with back(stack) as client:
        answer = await client.ask("subscribe", channel="book", symbol="BTCUSD", resume_token=book.token)
        assert answer["type"] == "subscribed", answer
        await asyncio.to_thread(place, stack, "BUY", "49123.43")
        await until_seen(client, book, "49123.43")


async def test_the_edge_refuses_a_bad_token_in_the_handshake(exchange_stack: ExchangeStack) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with speaking(url(exchange_stack), additional_headers={"authorization": "Bearer x.y.z"}):
            pass
    assert refused.value.response.status_code == 401
    assert b"TOKEN_REFUSED" in refused.value.response.body


def difference(wanted: Any, found: Any) -> str:
    """Where a message is not what the document shows; empty where it is."""
    if wanted == "...":
        return ""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return next((f".{key}{at}" for key in wanted if (at := difference(wanted[key], found.get(key)))), "")
    return "" if wanted == found else f": {found!r}, not {wanted!r}"


@pytest.mark.parametrize("name", sorted(DIALOGUES))
async def test_the_document_s_dialogues_are_what_is_said(exchange_stack: ExchangeStack, name: str) -> None:
    async with speaking(url(exchange_stack)) as client:
        for line in DIALOGUES[name].splitlines():
            direction, _, text = line.partition(" ")
            message = json.loads(text)
            if direction == ">":
                await client.send(**message)
                continue
            kind = message["type"]
            found = await client.until(
                lambda one, kind=kind: one["type"] == kind and "heartbeat" not in one.get("data", {})  # type: ignore[misc]
            )
            assert difference(message, found) == "", line


def test_the_document_has_its_dialogues_and_a_wrong_answer_is_seen() -> None:
    assert {"book", "errors", "orders", "priority"} == DIALOGUES.keys()
    assert difference({"a": {"b": "...", "c": 1}}, {"a": {"b": 7, "c": 1, "d": 2}}) == ""
    assert difference({"a": {"c": 1}}, {"a": {"c": 2}}) == ".a.c: 2, not 1"
    assert difference({"a": 1}, {}) == ".a: None, not 1"

"""Many WebSocket clients of one process: what is delivered, how old it is, and what the process needs for it.

The process serves CLIENTS clients that follow one book, which changes RATE times a second; a script in it takes the exchange's place, so
that nothing but WebSocket is measured. Age is from the making of an update to its arrival, by one clock; the clients run in a process of
their own. Once compressed and once not. Left out: Envoy, and the stream of the exchange.
"""

from __future__ import annotations

import asyncio
import base64
import json
import multiprocessing
import os
import resource
import time
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from exchange.websocket.counts import Counts
from exchange.websocket.feed import Feeds
from exchange.websocket.limits import Limits
from exchange.websocket.server import WebSocketServer
from tests.integration.websocket.scripted import ScriptedExchange, book, book_change, level

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from tests.bench.report import Report

pytestmark = pytest.mark.bench

CLIENTS = int(os.environ.get("BENCH_WEBSOCKET_CLIENTS", "1000"))
RATE = int(os.environ.get("BENCH_WEBSOCKET_RATE", "100"))
SECONDS = float(os.environ.get("BENCH_WEBSOCKET_SECONDS", "10"))
CONNECTING_AT_ONCE = 50
TITLE = f"WebSocket: {CLIENTS:,} clients, {RATE} updates a second to each"
# As many levels as a busy moment of a real book changes.
CHANGED = [level(f"{106 - number}.00", "1.00000") for number in range(6)]


class _Client(asyncio.Protocol):
    """One client, that does no more than to find where messages begin and end: what a library does besides, for a thousand of
    them in one process, would be measured instead of the server.
    """

    def __init__(self, number: int, ages: list[float], ready: asyncio.Semaphore, *, compressed: bool) -> None:
        self.count = 0
        self._number = number
        self._compressed = compressed
        self._ages = ages
        self._ready = ready
        self._follows = False
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if self._compressed else ""
        key = base64.b64encode(b"0123456789abcdef").decode()
        transport.write(
            f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offer}"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        text = json.dumps({"op": "subscribe", "channel": "book", "symbol": "BTCUSD"}).encode()
        # A mask of zeros changes nothing.
        transport.write(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        at = 0
        if data.startswith(b"HTTP"):
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self._data = data
                return
            assert data.startswith(b"HTTP/1.1 101"), data
        while len(data) >= at + 4:
            length, head = data[at + 1], 2
            if length == 126:
                length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            assert length < 65_536
            if len(data) < at + head + length:
                break
            self._message(data[at], data[at + head : at + head + length])
            at += head + length
        self._data = data[at:]

    def _message(self, first_byte: int, content: bytes) -> None:
        if self._follows:
            self.count += 1
            # Reading JSON would be the clients' own time: every hundredth tells enough.
            if self.count % 100 == self._number % 100:
                made = int(_json(first_byte, content)["data"]["resume_token"].removeprefix("t"))
                self._ages.append((time.monotonic_ns() - made) / 1e9)
        elif _json(first_byte, content)["type"] == "update":
            self._follows = True
            self._ready.release()


def _json(first_byte: int, content: bytes) -> Any:
    """The message of a frame; the second bit says that it is compressed (RFC 7692)."""
    if first_byte & 0x40:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content + b"\x00\x00\xff\xff")
    return json.loads(content)


def _clients(port: int, compression: str | None, told: Connection) -> None:
    """In a process of its own: ages in seconds, sampled, and how many messages came."""
    uvloop.run(_follow_all(port, told, compressed=compression is not None))


async def _follow_all(port: int, told: Connection, *, compressed: bool) -> None:
    ages: list[float] = []
    ready = asyncio.Semaphore(0)
    clients = [_Client(number, ages, ready, compressed=compressed) for number in range(CLIENTS)]
    loop = asyncio.get_running_loop()
    transports = []
    for number, client in enumerate(clients):
        transports.append((await loop.create_connection(lambda client=client: client, "127.0.0.1", port))[0])  # type: ignore[misc]
        if number >= CONNECTING_AT_ONCE:
            await ready.acquire()
    for _ in range(min(CLIENTS, CONNECTING_AT_ONCE)):
        await ready.acquire()
    told.send("ready")
    await asyncio.to_thread(told.recv)
    for transport in transports:
        transport.abort()
    told.send((sum(client.count for client in clients), ages))


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_many_clients_of_one_book(report: Report, compression: str | None) -> None:
    uvloop.run(_measure(report, compression))


async def _measure(report: Report, compression: str | None) -> None:
    exchange = ScriptedExchange()
    exchange.on_open = lambda script: script.say(book(1, CHANGED, []))
    limits, counts = Limits(), Counts()
    server = WebSocketServer(exchange, Feeds(exchange.source, limits, counts), limits, counts, instance="bench")
    port = await server.start()
    here, there = multiprocessing.Pipe()
    clients = multiprocessing.get_context("spawn").Process(
        target=_clients, args=(port, compression, there), daemon=True
    )
    clients.start()
    # So that its death is heard.
    there.close()
    try:
        assert await asyncio.to_thread(here.recv) == "ready"
        before_cpu, before = time.process_time(), time.monotonic()
        sent = await _publish(exchange)
        took, cpu = time.monotonic() - before, time.process_time() - before_cpu
        # What is under way arrives.
        await asyncio.sleep(1.0)
        here.send("enough")
        delivered, ages = await asyncio.to_thread(here.recv)
    finally:
        await server.stop()
        clients.terminate()
        await asyncio.to_thread(clients.join)
    _tell(report, compression, {"sent": sent, "delivered": delivered, "seconds": took, "cpu": cpu / took}, ages, counts)


async def _publish(exchange: ScriptedExchange) -> int:
    """Changes at the rate, each with the time of its making as its token; returns how many."""
    (script,) = exchange.opened["book"]
    start = time.monotonic()
    last, number = 1, 0
    while time.monotonic() - start < SECONDS:
        change = book_change(last + 1, last, CHANGED, 0)
        token = f"t{time.monotonic_ns()}"
        change.body["resume_token"] = token
        script.say(change)
        last, number = last + 1, number + 1
        await asyncio.sleep(max(0.0, start + number / RATE - time.monotonic()))
    return number


def _tell(report: Report, compression: str | None, found: dict[str, Any], ages: list[float], counts: Counts) -> None:
    ages.sort()
    p50, p99 = (ages[int(share * (len(ages) - 1))] * 1e3 for share in (0.5, 0.99))
    kind = "compressed" if compression else "not compressed"
    wanted = found["sent"] * CLIENTS
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = found["delivered"] / found["seconds"]
    report.add(TITLE, f"{kind}: delivered", f"{rate:,.0f}/s", f"{found['delivered'] / wanted:.1%} of {wanted:,}")
    report.add(TITLE, f"{kind}: age", f"{p50:.1f} ms", f"p50; p99 {p99:.1f} ms")
    per_message = counts.bytes_out / max(counts.messages_out, 1)
    remark = (
        f"{memory:,.0f} MB with the test, {per_message:.0f} bytes a message, longest queue {counts.queue_high_water}"
    )
    report.add(TITLE, f"{kind}: processor", f"{found['cpu']:.0%}", remark)
    figures = {**found, "age_p50_ms": p50, "age_p99_ms": p99, "memory_mb": memory, "closed": dict(counts.closed)}
    report.keep(f"websocket_{kind.replace(' ', '_')}", figures)

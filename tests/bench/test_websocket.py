"""Many WebSocket clients of one process: what is delivered, how old it is, and what the process needs for it.

The process serves CLIENTS clients that follow one book, which changes RATE times a second; a script in it takes the exchange's place, so
that nothing but WebSocket is measured. Age is from the making of an update to its arrival, by one clock; the clients run in a process of
their own. Once compressed and once not. Left out: Envoy, and the stream of the exchange.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import resource
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from websockets.asyncio.client import connect

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


def _clients(port: int, compression: str | None, told: Connection) -> None:
    """In a process of its own: ages in seconds, sampled, and how many messages came."""
    uvloop.run(_follow_all(port, compression, told))


async def _follow_all(port: int, compression: str | None, told: Connection) -> None:
    ages: list[float] = []
    counts = [0] * CLIENTS
    gate = asyncio.Semaphore(CONNECTING_AT_ONCE)
    ready = asyncio.Semaphore(0)

    async def one(number: int) -> None:
        async with gate:
            socket = await connect(f"ws://127.0.0.1:{port}/ws", compression=compression, max_queue=None)
            await socket.send(json.dumps({"op": "subscribe", "channel": "book", "symbol": "BTCUSD"}))
            while b'"update"' not in await socket.recv(decode=False):
                pass
        ready.release()
        async for message in socket:
            counts[number] += 1
            # Reading JSON would be the clients' own time: every hundredth tells enough.
            if counts[number] % 100 == number % 100:
                made = int(json.loads(message)["data"]["resume_token"].removeprefix("t"))
                ages.append((time.monotonic_ns() - made) / 1e9)

    tasks = [asyncio.create_task(one(number)) for number in range(CLIENTS)]
    for _ in range(CLIENTS):
        await ready.acquire()
    told.send("ready")
    await asyncio.to_thread(told.recv)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    told.send((sum(counts), ages))


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

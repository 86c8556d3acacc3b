"""Customers who follow one market's book with the SDK, in a process of their own: each verifies every message, and holds its book.

Talked to over a pipe: it says "ready" once all hold a book, is told the last sequence, and answers with one `Followed` each.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvloop

from pincex_client import BookStream, ExchangeClient

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

    from pincex_client.models import Level

# Connections: streams share them, as behind an edge.
CONNECTIONS = 8
DEADLINE_S = 300.0


@dataclass(frozen=True, slots=True)
class Followed:
    """What one of them holds in the end, and how it went; `arrivals` are of the machine's monotonic clock, with the sequence."""

    depth: int
    interval_ms: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    checksum: int
    arrivals: list[tuple[float, int]]
    wrong: int
    connections: int


def follow_all(target: str, symbol: str, kinds: Sequence[tuple[int, int]], told: Connection) -> None:
    """Of each kind, (depth, interval in ms), one."""
    uvloop.run(_follow_all(target, symbol, kinds, told))


async def _follow_all(target: str, symbol: str, kinds: Sequence[tuple[int, int]], told: Connection) -> None:
    # Each its own connection, which gRPC would share.
    options = (("grpc.use_local_subchannel_pool", 1),)
    clients = [ExchangeClient(target, channel_options=options) for _ in range(min(len(kinds), CONNECTIONS))]
    streams: list[BookStream] = []
    arrivals: list[list[tuple[float, int]]] = [[] for _ in kinds]
    ready = asyncio.Semaphore(0)

    async def one(number: int, stream: BookStream) -> None:
        async for book in stream:
            if not arrivals[number]:
                ready.release()
            arrivals[number].append((time.monotonic(), book.sequence))

    for number, (depth, interval_ms) in enumerate(kinds):
        client = clients[number % len(clients)]
        streams.append(client.book_stream(symbol, depth=depth, interval_ms=interval_ms))
    tasks = [asyncio.create_task(one(number, stream)) for number, stream in enumerate(streams)]
    async with asyncio.timeout(DEADLINE_S):
        for _ in streams:
            await ready.acquire()
        told.send("ready")
        last = await asyncio.to_thread(told.recv)
        await asyncio.gather(*(stream.reached(last) for stream in streams))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    told.send(
        [
            Followed(
                depth,
                interval_ms,
                stream.book.bids(),
                stream.book.asks(),
                stream.book.checksum(),
                # Without the snapshot that it began with.
                arrived[1:],
                stream.gaps + stream.mismatches,
                stream.reconnects + 1,
            )
            for (depth, interval_ms), stream, arrived in zip(kinds, streams, arrivals, strict=True)
        ]
    )
    for client in clients:
        await client.close()

"""The processes that the market-data benchmark measures: books and streams behind an engine, and a bare grpcio stream that sends
the same bytes.

    python -m tests.bench.feed_process books PORT ENGINE_OPS_PORT
    python -m tests.bench.feed_process bare PORT FILE PACE     (FILE: messages, each behind its length; PACE: a second, 0: none)
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from exchange.market_data.service.parts import BookPart
from exchange.runtime import process
from exchange.runtime.clock import SystemClock
from exchange.runtime.drain import Drain
from exchange.runtime.grpc_server import GrpcServer
from exchange.runtime.internal_client import InternalClient
from exchange.runtime.logging import configure_logging
from exchange.runtime.metrics import GrpcMetrics, new_registry
from exchange.runtime.principal import DevelopmentResolver
from pincex.trading.v1 import market_service_pb2_grpc
from tests.bench.engine_process import ROOT, START_DEADLINE_S, free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

BARE = "pincex.bench.Feed"
STREAM_METHOD = f"/{BARE}/Stream"
BEGIN_METHOD = f"/{BARE}/Begin"


@contextlib.contextmanager
def running_feed(*arguments: str) -> Iterator[tuple[int, str]]:
    """One of the two, as (pid, target)."""
    port = free_ports(1)[0]
    kind, *more = arguments
    argv = [sys.executable, "-m", "tests.bench.feed_process", kind, str(port), *more]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL) as child:
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                grpc.channel_ready_future(channel).result(START_DEADLINE_S)
            yield child.pid, f"127.0.0.1:{port}"
        finally:
            child.terminate()
            child.wait(10)


async def _serve_books(port: int, engine_ops_port: int) -> None:
    configure_logging(service="market-data", instance="bench", level="WARNING")
    registry, drain = new_registry(service="market-data", instance="bench", version="0"), Drain()
    client = InternalClient(f"127.0.0.1:{engine_ops_port}", "market-data", None)
    part = BookPart(client, SystemClock(), drain, registry)
    tasks = [asyncio.create_task(task) for task in part.tasks()]
    assert await part.follower.reached(1, START_DEADLINE_S)
    server = GrpcServer(f"127.0.0.1:{port}", resolver=DevelopmentResolver(), metrics=GrpcMetrics(registry), drain=drain)
    server.add(market_service_pb2_grpc.add_MarketServiceServicer_to_server, part.market)
    await server.start()
    await process.stop_signal().wait()
    await server.stop(0.1)
    for task in tasks:
        task.cancel()
    await client.close()


class _Bare:
    """Each message at its time to all who listen, or all of them at once."""

    def __init__(self, messages: list[bytes], pace: float) -> None:
        self._messages = messages
        self._pace = pace
        self._begun = asyncio.Event()
        self._at = 0.0

    async def begin(self, _request: bytes, _context: Any) -> bytes:
        """Answers the moment of the first message, in microseconds of the machine's monotonic clock."""
        self._at = time.monotonic() + 0.1
        self._begun.set()
        self._begun = asyncio.Event()
        return str(int(self._at * 1e6)).encode()

    async def stream(self, _request: bytes, _context: Any) -> AsyncIterator[bytes]:
        if not self._pace:
            for message in self._messages:
                yield message
            return
        yield self._messages[0]
        await self._begun.wait()
        for number, message in enumerate(self._messages):
            wait = self._at + number / self._pace - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            yield message


async def _serve_bare(port: int, file: str, pace: float) -> None:
    packed, messages, place = await asyncio.to_thread(Path(file).read_bytes), [], 0
    while place < len(packed):
        size = int.from_bytes(packed[place : place + 4])
        messages.append(packed[place + 4 : place + 4 + size])
        place += 4 + size
    bare = _Bare(messages, pace)
    handlers = {
        "Stream": grpc.unary_stream_rpc_method_handler(bare.stream),
        "Begin": grpc.unary_unary_rpc_method_handler(bare.begin),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(BARE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await process.stop_signal().wait()
    await server.stop(0)


def _main(kind: str, port: str, *more: str) -> None:
    async def run() -> None:
        if kind == "books":
            await _serve_books(int(port), int(more[0]))
        else:
            await _serve_bare(int(port), more[0], float(more[1]))

    process.run(run)


if __name__ == "__main__":
    _main(*sys.argv[1:])

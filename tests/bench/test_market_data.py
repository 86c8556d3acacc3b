"""One book to many subscribers: market data beside a bare grpcio stream that sends the same bytes in the same run.

Books, streams, tokens, checksums, guards and metrics on, in a process of its own behind a real engine (in memory), on one core;
engine, publisher and all subscribers share the other. Left out: Envoy, candles and venues. `paced`: orders at a rate, each an
update of the book; age is from the order's request to the update at a subscriber, so it has the engine's time in it, for the bare stream
from the moment at which the message was due. An update that came merged with later ones counts as delivered with them. `highest`: every subscriber takes a full ring as fast as it gets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
import uvloop

from pincex.trading.v1 import market_service_pb2 as pb
from pincex.trading.v1 import market_service_pb2_grpc, types_pb2
from tests.bench.engine_process import cpu_seconds, memory_mib, running_engine
from tests.bench.feed_process import BEGIN_METHOD, STREAM_METHOD, running_feed
from tests.bench.loads import without_pauses_of_its_own
from tests.integration.trading.engine_app import BUY, Client

if TYPE_CHECKING:
    from tests.bench.report import Report

pytestmark = pytest.mark.bench

SUBSCRIBERS = (1, 10, 100, 500)
PACE = 100
SECONDS = 5
RING = 2_000
# Channels: streams share connections, as behind an edge.
CONNECTIONS = 8
# Subscribers whose every message is looked at.
KEEPERS = 4
STALLED = 20
TITLE = "Market data: one book to many subscribers (target: 0.8 of a bare grpcio stream)"


class Readers:
    """Subscribers of one stream; the first of them keep when they got which message."""

    def __init__(self, target: str, count: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels: list[Any] = [
            grpc.aio.insecure_channel(target, options=options) for _ in range(min(count, CONNECTIONS))
        ]
        self.count = count
        self.delivered = 0
        self.got: list[tuple[float, int, bytes]] = []
        self.last: list[bytes] = [b""] * count
        self._tasks: list[asyncio.Task[None]] = []
        self.begun = 0

    def open(self, bare: bool, request: Any = b"") -> None:  # noqa: FBT001 - which of the two
        """Open all streams; the first message of each is not counted."""
        for number in range(self.count):
            channel = self.channels[number % len(self.channels)]
            method = STREAM_METHOD if bare else "/pincex.trading.v1.MarketService/StreamOrderBook"
            encoded = request if bare else request.SerializeToString()
            call = channel.unary_stream(method)(encoded)
            self._tasks.append(asyncio.create_task(self._read(call, number, keeps=number < KEEPERS)))

    async def _read(self, call: Any, number: int, *, keeps: bool) -> None:
        first = True
        async for message in call:
            if first:
                first = False
                self.begun += 1
                continue
            self.delivered += 1
            self.last[number] = message
            if keeps:
                self.got.append((time.monotonic(), number, message))

    async def wait(self, delivered: int, deadline_s: float = 60.0) -> None:
        """Until so many messages have come."""
        ends = time.monotonic() + deadline_s
        while self.delivered < delivered:
            assert time.monotonic() < ends, f"{self.delivered} of {delivered} came"
            await asyncio.sleep(0.002)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self.channels:
            await channel.close()


def test_market_data_beside_a_bare_stream(report: Report) -> None:
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {(os.cpu_count() or 2) - 1})
    try:
        with (
            running_engine(None) as engine,
            running_feed("books", engine.ops_target.rpartition(":")[2]) as books,
            tempfile.TemporaryDirectory() as folder,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            without_pauses_of_its_own(),
        ):
            os.sched_setaffinity(books[0], {0})
            runner.run(_measure(report, engine.target, books, Path(folder)))
    finally:
        os.sched_setaffinity(0, mine)


class Stalled:
    """Subscribers that read their first message and nothing after it."""

    def __init__(self, target: str, count: int) -> None:
        # With no larger window than HTTP/2 begins with, little is on its way to them.
        self._channel: Any = grpc.aio.insecure_channel(target, options=[("grpc.http2.bdp_probe", 0)])
        self._calls: list[Any] = []
        self._count = count

    async def open(self, request: Any) -> None:
        """Subscribe with all of them."""
        method = self._channel.unary_stream("/pincex.trading.v1.MarketService/StreamOrderBook")
        self._calls = [method(request.SerializeToString()) for _ in range(self._count)]
        for call in self._calls:
            await call.read()

    async def close(self) -> None:
        for call in self._calls:
            call.cancel()
        await self._channel.close()


async def _measure(report: Report, engine: str, books: tuple[int, str], folder: Path) -> None:
    figures: dict[str, Any] = {}
    async with grpc.aio.insecure_channel(engine) as channel:
        client = Client(channel, "demo")
        messages = await _record(client, books[1])
        file = folder / "messages"
        file.write_bytes(b"".join(len(one).to_bytes(4) + one for one in messages))
        for count in SUBSCRIBERS:
            ours = await _paced(client, books, count)
            with running_feed("bare", str(file), str(PACE)) as bare:
                os.sched_setaffinity(bare[0], {0})
                beside = await _paced_bare(bare, count, len(messages))
            for name, figure in (("market data", ours), ("bare stream", beside)):
                line = f"p50 {figure['p50_ms']:.1f} ms, p99 {figure['p99_ms']:.1f} ms, CPU {figure['cpu']:.0%}, {figure['mib']:.0f} MiB"
                if name == "market data":
                    line += f"; {figure['updates_per_second']:,.0f} updates/s: who is behind gets several as one"
                report.add(TITLE, f"{count} at {PACE}/s, {name}: messages/s", f"{figure['per_second']:,.0f}", line)
            figures[f"paced_{count}"] = {"ours": ours, "bare": beside}
        alone, among = figures["paced_100"]["ours"], await _paced(client, books, 100, stalled=STALLED)
        line = (
            f"p50 {among['p50_ms']:.1f} ms, p99 {among['p99_ms']:.1f} ms, CPU {among['cpu']:.0%}, {among['mib']:.0f} MiB;"
            f" without them p99 {alone['p99_ms']:.1f} ms, {alone['mib']:.0f} MiB"
        )
        report.add(
            TITLE, f"100 at {PACE}/s beside {STALLED} that do not read: messages/s", f"{among['per_second']:,.0f}", line
        )
        figures["paced_100_stalled"] = among
        token = await _fill_ring(client, books[1])
        await _caught_up(client, books[1])
        for count in SUBSCRIBERS:
            ours = await _highest(books, count, token)
            with running_feed("bare", str(file), "0") as bare:
                os.sched_setaffinity(bare[0], {0})
                beside = await _highest(bare, count, None, len(messages) - 1)
            ratio = ours["per_second"] / beside["per_second"]
            line = f"bare {beside['per_second']:,.0f}/s; CPU a message {ours['cpu_us']:.0f} us, bare {beside['cpu_us']:.0f} us; {ours['mib']:.0f} MiB"
            report.add(TITLE, f"{count} at the highest rate: delivered/s", f"{ours['per_second']:,.0f}", line)
            report.add(TITLE, "  of the bare stream", f"{ratio:.2f}")
            figures[f"highest_{count}"] = {"ours": ours, "bare": beside, "ratio": ratio}
    report.keep("market_data", figures)


async def _order(client: Client, number: int) -> int:
    order = await client.place(
        BUY, "0.00100", f"{40_000 + number % 500}.{number % 100:02d}", self_trade_prevention=types_pb2.NONE
    )
    return int(order.sequence)


async def _order_and_back(client: Client, number: int) -> None:
    await client.cancel(str(await _order(client, number)))


async def _caught_up(client: Client, target: str) -> None:
    """Until market data has all that the engine has done: nothing from before is measured."""
    sequence = await _order(client, 0)
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = market_service_pb2_grpc.MarketServiceStub(channel)  # type: ignore[no-untyped-call, unused-ignore]
        request = pb.GetOrderBookRequest(symbol="BTCUSD", depth=1, min_sequence=sequence)
        for _ in range(30):
            # Each waits up to two seconds for it.
            with contextlib.suppress(grpc.aio.AioRpcError):
                await stub.GetOrderBook(request)
                return
    raise AssertionError("market data does not catch up")


async def _record(client: Client, target: str) -> list[bytes]:
    """Some updates as market data sends them, for the bare stream."""
    readers = Readers(target, 1)
    readers.open(False, pb.StreamOrderBookRequest(symbol="BTCUSD", depth=10))
    await _until(lambda: readers.begun == 1)
    for number in range(PACE * SECONDS):
        await _order(client, number)
    await readers.wait(PACE * SECONDS // 2)
    messages = [message for _, _, message in readers.got]
    await readers.close()
    return messages


async def _paced(client: Client, books: tuple[int, str], count: int, stalled: int = 0) -> dict[str, float]:
    await _caught_up(client, books[1])
    readers, beside = Readers(books[1], count), Stalled(books[1], stalled)
    request = pb.StreamOrderBookRequest(symbol="BTCUSD", depth=0)
    readers.open(False, request)
    await beside.open(request)
    await _until(lambda: readers.begun == count)
    cpu, begun = cpu_seconds(books[0]), time.monotonic()
    sent: dict[int, float] = {}
    for number in range(PACE * SECONDS):
        wait = begun + number / PACE - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        at = time.monotonic()
        sent[await _order(client, number)] = at
    last = max(sent)
    await _until(lambda: all(_sequence(message) >= last for message in readers.last))
    seconds = time.monotonic() - begun
    ages, waiting = [], [sorted(sent) for _ in range(KEEPERS)]
    for at, reader, message in readers.got:
        update = pb.OrderBookUpdate.FromString(message)
        while update.HasField("delta") and waiting[reader] and waiting[reader][0] <= update.sequence:
            ages.append(at - sent[waiting[reader].pop(0)])
    found = _figures(readers, seconds, cpu_seconds(books[0]) - cpu, ages, books[0])
    await readers.close()
    await beside.close()
    return found | {"updates_per_second": count * len(sent) / seconds}


def _sequence(message: bytes) -> int:
    return pb.OrderBookUpdate.FromString(message).sequence


async def _paced_bare(bare: tuple[int, str], count: int, messages: int) -> dict[str, float]:
    readers = Readers(bare[1], count)
    readers.open(True)
    await _until(lambda: readers.begun == count)
    cpu, begun = cpu_seconds(bare[0]), time.monotonic()
    first = int(await readers.channels[0].unary_unary(BEGIN_METHOD)(b"")) / 1e6
    await readers.wait(count * messages)
    seconds = time.monotonic() - begun
    # Of each of those who keep: messages come in order.
    times = sorted(at for at, _, _ in readers.got)
    kept = min(count, KEEPERS)
    ages = [at - (first + number // kept / PACE) for number, at in enumerate(times)]
    found = _figures(readers, seconds, cpu_seconds(bare[0]) - cpu, ages, bare[0])
    await readers.close()
    return found


async def _fill_ring(client: Client, target: str) -> str:
    """Have as many updates kept, and answer the token before the first of them."""
    readers = Readers(target, 1)
    readers.open(False, pb.StreamOrderBookRequest(symbol="BTCUSD", depth=50))
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = market_service_pb2_grpc.MarketServiceStub(channel)  # type: ignore[no-untyped-call, unused-ignore]
        call = stub.StreamOrderBook(pb.StreamOrderBookRequest(symbol="BTCUSD", depth=50))
        token: str = (await call.read()).resume_token
        for first in range(0, 4 * RING, 16):
            # Taken back at once: an account may not have as many open orders.
            await asyncio.gather(*(_order_and_back(client, first + one) for one in range(16)))
            if readers.delivered >= RING:
                break
        call.cancel()
    await readers.close()
    return token


async def _highest(
    server: tuple[int, str], count: int, token: str | None, messages: int | None = None
) -> dict[str, float]:
    readers = Readers(server[1], count)
    cpu, begun = cpu_seconds(server[0]), time.monotonic()
    request = pb.StreamOrderBookRequest(symbol="BTCUSD", depth=50, resume_token=token) if token else b""
    readers.open(token is None, request)
    if messages is None:
        # What the ring has: the first subscriber tells, for it is alone in waiting for more.
        last = -1
        while last != readers.delivered or not last:
            last = readers.delivered
            await asyncio.sleep(0.25)
        seconds = max(at for at, _, _ in readers.got) - begun
    else:
        await readers.wait(count * messages)
        seconds = time.monotonic() - begun
    found = _figures(readers, seconds, cpu_seconds(server[0]) - cpu, [0.0], server[0])
    await readers.close()
    return found


def _figures(readers: Readers, seconds: float, cpu_s: float, ages: list[float], pid: int) -> dict[str, float]:
    ordered = sorted(ages)
    return {
        "per_second": readers.delivered / seconds,
        "p50_ms": ordered[len(ordered) // 2] * 1e3,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3,
        "cpu": cpu_s / seconds,
        "cpu_us": cpu_s / max(readers.delivered, 1) * 1e6,
        "mib": memory_mib(pid),
    }


async def _until(condition: Any) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.005)

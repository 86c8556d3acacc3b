"""The order path against DESIGN section 8: an engine on real PostgreSQL, a client process, an empty echo beside it.

All features on: journal, metrics, guard, client order ids. Left out: Envoy, followers, a synchronous standby. The
client shares the two cores with the engine and PostgreSQL.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import grpc
import pytest
import uvloop

from tests.bench.engine_process import EngineProcess, cpu_seconds, running_echo, running_engine
from tests.bench.loads import (
    Orders,
    Outcome,
    echo_call,
    paced_unary,
    place_call,
    prepare,
    session,
    session_batches,
    unary,
    without_pauses_of_its_own,
)
from tests.bench.report import Report
from tests.postgres_fixture import running_postgres

pytestmark = pytest.mark.bench

SECONDS = 4.0
ROUNDS = 3
BATCH = 100
STREAMS = 2
OUTSTANDING = 4


def on_engine(load: Callable[[EngineProcess, str], Awaitable[None]]) -> None:
    """Run a load against a fresh engine, with an echo beside it."""
    with running_postgres() as server, running_engine(server.create_database()) as engine, running_echo() as echo:

        async def main() -> None:
            await prepare(engine.ops_target)
            await load(engine, echo)

        with without_pauses_of_its_own(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())


def test_unary_orders_beside_an_empty_echo(report: Report) -> None:
    async def load(engine: EngineProcess, echo: str) -> None:
        title = "PlaceOrder, one order a call, durable (target: 0.65 of the echo at 16 in flight, aim 0.8)"
        async with grpc.aio.insecure_channel(engine.target) as channel, grpc.aio.insecure_channel(echo) as empty:
            ratios: list[float] = []
            orders = Outcome()
            for number in range(ROUNDS):
                base = await unary(echo_call(empty), Orders("echo"), in_flight=16, seconds=SECONDS)
                used = cpu_seconds(engine.pid)
                orders = await unary(place_call(channel), Orders(f"u{number}"), in_flight=16, seconds=SECONDS)
                micros = (cpu_seconds(engine.pid) - used) / orders.count * 1e6
                ratios.append(orders.rate / base.rate)
                line = f"echo {base.rate:,.0f}/s; p50 {orders.percentile(0.5):.2f} ms, p99 {orders.percentile(0.99):.2f} ms"
                report.add(title, f"round {number + 1}: orders/s", f"{orders.rate:,.0f}", line)
                report.add(title, "  engine CPU per order", f"{micros:.0f} us")
            ratio = sorted(ratios)[len(ratios) // 2]
            report.add(title, "ratio to the echo, median", f"{ratio:.2f}")
            one = await unary(place_call(channel), Orders("one"), in_flight=1, seconds=SECONDS)
            report.add(title, "one in flight: p50", f"{one.percentile(0.5):.2f} ms", "target below 1 ms")
            paced = await paced_unary(place_call(channel), Orders("paced"), per_second=2000, seconds=SECONDS)
            report.add(title, "2,000/s: p95", f"{paced.percentile(0.95):.2f} ms", "target below 10 ms")
            report.keep("unary", {"ratio": ratio, "one": one.summary(), "paced_2000": paced.summary()})
            assert orders.count > 0
            assert one.count > 0

    on_engine(load)


def test_order_sessions_in_batches_of_100(report: Report) -> None:
    async def load(engine: EngineProcess, _echo: str) -> None:
        title = (
            "OrderSession, batches of 100, durable (target: 80,000 orders/s on 2 cores, client included; aim 150,000)"
        )
        rates = []
        for number in range(ROUNDS):
            used, own = cpu_seconds(engine.pid), os.times()
            outcomes, seconds = await _sessions(engine.target, f"s{number}", count=800, per_second=0.0)
            done = sum(outcome.count for outcome in outcomes)
            micros = (cpu_seconds(engine.pid) - used) / done * 1e6
            client = (os.times().user + os.times().system - own.user - own.system) / done * 1e6
            rates.append(done / seconds)
            line = f"p50 {_worst(outcomes, 0.5):.1f} ms, p99 {_worst(outcomes, 0.99):.1f} ms a batch"
            report.add(title, f"round {number + 1}: orders/s", f"{done / seconds:,.0f}", line)
            report.add(title, "  CPU per order", f"{micros:.1f} us", f"engine; client {client:.1f} us")
            assert not any(outcome.refused for outcome in outcomes)
        paced, _ = await _sessions(engine.target, "paced", count=1000, per_second=25_000)
        report.add(title, "50,000/s: p99 a batch", f"{_worst(paced, 0.99):.1f} ms", "target below 6 ms")
        report.keep("session", {"per_second": sorted(rates)[len(rates) // 2], "paced_p99_ms": _worst(paced, 0.99)})

    on_engine(load)


async def _sessions(target: str, name: str, *, count: int, per_second: float) -> tuple[list[Outcome], float]:
    """STREAMS sessions at one engine; see `sessions_at`."""
    return await sessions_at([target] * STREAMS, name, count=count, per_second=per_second)


async def sessions_at(targets: list[str], name: str, *, count: int, per_second: float) -> tuple[list[Outcome], float]:
    """A session at each engine named, on a connection of its own, of `count` batches at `per_second` orders each (0: as
    fast as it goes); answers what they did and how many seconds all took.
    """
    batches = [session_batches(Orders(f"{name}-{stream}"), count=count, size=BATCH) for stream in range(len(targets))]
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(target, options=options) for target in targets]
    loop = asyncio.get_running_loop()
    started = loop.time()
    outcomes = await asyncio.gather(
        *(
            session(
                channel,
                f"{name}-{stream}",
                batches=batches[stream],
                outstanding=OUTSTANDING if not per_second else 40,
                per_second=per_second,
            )
            for stream, channel in enumerate(channels)
        )
    )
    seconds = loop.time() - started
    for channel in channels:
        await channel.close(None)
    return list(outcomes), seconds


def _worst(outcomes: list[Outcome], share: float) -> float:
    return max(outcome.percentile(share) for outcome in outcomes)

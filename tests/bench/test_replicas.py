"""Three replicas beside one, fail-over, and memory: what `docs/REPLICAS.md` costs.

All engines, PostgreSQL and the client share the same two cores: three replicas apply every command three times, so the
figures say what replication costs here, not what three machines would carry.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop

from pincex.trading.v1 import order_commands_pb2, types_pb2
from tests.bench.engine_process import EngineProcess, cpu_seconds, running_engine
from tests.bench.loads import Orders, place_call, prepare, unary, without_pauses_of_its_own
from tests.bench.report import Report
from tests.bench.test_order_path import BATCH, sessions_at
from tests.postgres_fixture import running_postgres

pytestmark = pytest.mark.bench

SECONDS = 4.0
FAIL_OVERS = 5
MILLION = 1_000_000


@contextlib.contextmanager
def engines(count: int) -> Iterator[list[EngineProcess]]:
    """So many engines on one database; the first leads."""
    with running_postgres() as server, contextlib.ExitStack() as stack:
        database = server.create_database()
        yield [
            stack.enter_context(running_engine(database, PINCEX_INSTANCE=f"engine-{number}")) for number in range(count)
        ]


def measure(load: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a load as the other benchmarks do."""
    with without_pauses_of_its_own(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(load())


def resident_mib(pid: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def throughput(found: list[EngineProcess], report: Report, title: str, name: str) -> dict[str, float]:
    """Orders a second of sessions and of single calls, spread over the engines."""
    targets = [engine.target for engine in found]
    spread = [targets[number % len(targets)] for number in range(max(2, len(targets)))]
    used = [cpu_seconds(engine.pid) for engine in found]
    outcomes, seconds = await sessions_at(spread, f"{name}-s", count=500, per_second=0.0)
    done = sum(outcome.count for outcome in outcomes)
    cpu = [(cpu_seconds(engine.pid) - before) / done * 1e6 for engine, before in zip(found, used, strict=True)]
    assert not any(outcome.refused for outcome in outcomes)
    latency = max(outcome.percentile(0.99) for outcome in outcomes)
    each = ", ".join(f"{micros:.1f}" for micros in cpu)
    report.add(title, f"{name}, sessions: orders/s", f"{done / seconds:,.0f}", f"p99 {latency:.1f} ms; CPU us: {each}")
    calls = []
    async with contextlib.AsyncExitStack() as stack:
        for number, target in enumerate(targets):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
            orders = Orders(f"{name}-u{number}")
            calls.append(unary(place_call(channel), orders, in_flight=max(1, 16 // len(targets)), seconds=SECONDS))
        single = await asyncio.gather(*calls)
    rate = sum(outcome.rate for outcome in single)
    p50 = sum(outcome.percentile(0.5) for outcome in single) / len(single)
    report.add(title, f"{name}, single calls: orders/s", f"{rate:,.0f}", f"p50 {p50:.2f} ms, 16 in flight in all")
    return {"sessions_per_second": done / seconds, "unary_per_second": rate}


def test_three_replicas_beside_one(report: Report) -> None:
    title = "Replicas: clients spread over all engines, everything on 2 cores"
    for name, count in (("leader alone", 1), ("three replicas", 3)):
        with engines(count) as found:

            async def load(found: list[EngineProcess] = found, name: str = name) -> None:
                await prepare(found[0].ops_target)
                figures = await throughput(found, report, title, name.replace(" ", "-"))
                report.keep(f"replicas_{len(found)}", figures)

            measure(load)


async def interruption(engine: EngineProcess, victim: EngineProcess, number: int) -> float:
    """Seconds from a SIGKILL of the leader to the first answer to an order that was sent after it."""
    async with grpc.aio.insecure_channel(engine.target) as channel:
        call = place_call(channel)
        await call(one_order(f"before-{number}"))
        os.kill(victim.pid, signal.SIGKILL)
        killed = time.perf_counter()
        await call(one_order(f"after-{number}"))
        return time.perf_counter() - killed


def one_order(client_order_id: str) -> order_commands_pb2.PlaceOrderRequest:
    """Something small."""
    return order_commands_pb2.PlaceOrderRequest(
        symbol="BTCUSD", side=types_pb2.BUY, order_type=types_pb2.LIMIT, quantity="0.001", price="40000",
        client_order_id=client_order_id,
    )  # fmt: skip


def test_a_follower_s_client_waits_for_the_next_leader(report: Report) -> None:
    title = "Fail-over: SIGKILL of the leader, a client of a follower (target: below 3 s)"
    waits: list[float] = []
    for number in range(FAIL_OVERS):
        with engines(3) as found:

            async def load(found: list[EngineProcess] = found, number: int = number) -> None:
                waits.append(await interruption(found[1], found[0], number))

            measure(load)
    waits.sort()
    report.add(
        title, "to the next answer", f"{waits[len(waits) // 2]:.2f} s", f"most {waits[-1]:.2f} s of {len(waits)}"
    )
    report.keep("fail_over_seconds", waits)


def test_memory_after_a_million_orders(report: Report) -> None:
    title = (
        f"Memory of a leader after {MILLION:,} orders through sessions (200,000 finished ones and 1,000,000 ids kept)"
    )
    with engines(1) as (engine,):

        async def load() -> None:
            await prepare(engine.ops_target)
            report.add(title, "before", f"{resident_mib(engine.pid):,.0f} MiB")
            for part in range(4):
                count = MILLION // 4 // 2 // BATCH
                outcomes, _ = await sessions_at([engine.target] * 2, f"million-{part}", count=count, per_second=0.0)
                assert sum(outcome.count for outcome in outcomes) == MILLION // 4
            report.add(title, "after", f"{resident_mib(engine.pid):,.0f} MiB")
            report.keep("memory_mib_after_a_million", resident_mib(engine.pid))

        measure(load)

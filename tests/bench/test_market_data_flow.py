"""The real order flow at full speed into many verifying customers of market data, every book equal to the engine's at the end.

Engine and market data as processes on one PostgreSQL, candles and all, durable. The flow goes through one order session of the SDK; the
customers are the SDK's too, in a process of their own, and share the machine's cores with everything. Left out: Envoy and venues.
The flow is played before and after in the same way with nobody following: that is what its speed is compared with. Age is from the
moment at which the sender had the command's result to its arrival at a customer. That the books are equal is asserted, no time is.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import uvloop

from pincex_client import ExchangeClient, NotFound
from pincex_client.replay.compare import compare_book
from pincex_client.replay.flow import read_book, read_commands
from pincex_client.replay.plan import make_plan, prepare
from pincex_client.replay.player import Played, play
from tests.bench.book_followers import Followed, follow_all
from tests.bench.engine_process import (
    EngineProcess,
    ServiceProcess,
    cpu_seconds,
    memory_mib,
    running_engine,
    running_service,
)
from tests.bench.loads import without_pauses_of_its_own
from tests.postgres_fixture import running_postgres

if TYPE_CHECKING:
    from pathlib import Path

    from pincex_client.models import Book
    from pincex_client.replay.flow import FlowBook, FlowCommand
    from tests.bench.report import Report

pytestmark = pytest.mark.bench

FULL = 32_060
COMMANDS = min(int(os.environ.get("COMMANDS") or FULL), FULL)
"""A smaller number is for trying the benchmark itself."""
# Depth (0: all levels) and interval in ms (0: each change) of the customers, a quarter each.
KINDS = ((0, 0), (10, 0), (50, 0), (10, 100))
SUBSCRIBERS = 100
ALL_LEVELS = 5_000
TITLE = f"Market data: the real order flow at full speed into {SUBSCRIBERS} verifying subscribers"


@dataclass(frozen=True, slots=True)
class Run:
    """One play of the flow; `results_at` is when the sender had the result of which sequence."""

    played: Played
    results_at: dict[int, float]
    began: float
    book: Book

    @property
    def per_second(self) -> float:
        """Commands a second."""
        return len(self.played.results) / self.played.elapsed


class Player:
    """Plays the flow again and again, each time in a market of its own."""

    def __init__(self, engine: EngineProcess, commands: list[FlowCommand], expected: FlowBook | None) -> None:
        self._engine = engine
        self._commands = commands
        self._expected = expected
        self._following = multiprocessing.get_context("spawn")

    async def run(self, market_data: ServiceProcess, subscribers: int) -> tuple[Run, list[Followed]]:
        """With so many subscribers; what they hold once all of them are at the last sequence."""
        run_id = uuid.uuid4().hex[:8]
        plan = make_plan(self._commands, symbol=f"F{run_id.upper()}", run_id=run_id)
        async with ExchangeClient(
            self._engine.target, ops_target=self._engine.ops_target, account=plan.account
        ) as client:
            await prepare(client, plan)
            await known(market_data.target, plan.symbol)
            here, there = self._following.Pipe()
            kinds = tuple(KINDS[number % len(KINDS)] for number in range(subscribers))
            followers = self._following.Process(
                target=follow_all, args=(market_data.target, plan.symbol, kinds, there), daemon=True
            )
            if subscribers:
                followers.start()
                # So that its death is heard.
                there.close()
                assert await asyncio.to_thread(here.recv) == "ready"
            try:
                at: list[float] = []
                began = time.monotonic()
                async with client.session() as session:
                    played = await play(session, self._commands, plan, progress=lambda _: at.append(time.monotonic()))
                followed: list[Followed] = []
                if subscribers:
                    here.send(played.last_sequence)
                    followed = await asyncio.to_thread(here.recv)
            finally:
                if subscribers:
                    followers.terminate()
                    await asyncio.to_thread(followers.join)
            assert not any(result.refused for result in played.results.values())
            book = await client.get_order_book(plan.symbol, depth=ALL_LEVELS, min_sequence=played.last_sequence)
        assert self._expected is None or compare_book(self._expected, book) == []
        # Results come in the order of their commands.
        sequences = [result.sequence for result in played.results.values()]
        return Run(played, dict(zip(sequences, at, strict=True)), began, book), followed


async def known(target: str, symbol: str) -> None:
    """Until market data has heard of a market."""
    async with ExchangeClient(target) as client, asyncio.timeout(30):
        while True:
            try:
                await client.get_market(symbol)
            except NotFound:
                await asyncio.sleep(0.02)
            else:
                return


def test_the_real_flow_into_many_subscribers_leaves_every_book_equal(report: Report, recorded_flow: Path) -> None:
    commands = read_commands(recorded_flow / "es-part-a.commands.csv")[:COMMANDS]
    expected = read_book(recorded_flow / "es-part-a.book.json") if len(commands) == FULL else None
    with running_postgres() as server:
        database = server.create_database()
        url = server.url(database.name, "market_data_user")
        with (
            running_engine(database) as engine,
            running_service(
                "market_data", engine, PINCEX_MARKET_DATA_DATABASE_URL=url, PINCEX_VENUES="none"
            ) as market_data,
            without_pauses_of_its_own(),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            market_data.wait_ready()
            player = Player(engine, commands, expected)
            before, _ = runner.run(player.run(market_data, 0))
            used = cpu_seconds(market_data.pid)
            run, followed = runner.run(player.run(market_data, SUBSCRIBERS))
            used = cpu_seconds(market_data.pid) - used
            memory, closed = memory_mib(market_data.pid), market_data.metric("pincex_market_data_slow_closed_total")
            differed = market_data.metric("pincex_market_data_books_differed_total")
            after, _ = runner.run(player.run(market_data, 0))
    assert len(followed) == SUBSCRIBERS
    for one in followed:
        levels = one.depth or ALL_LEVELS
        assert (one.bids, one.asks) == (run.book.bids[:levels], run.book.asks[:levels]), one.depth
        assert (one.checksum, one.wrong) == (run.book.checksum, 0)
    assert differed == 0
    figures = {"cpu_s": used, "mib": memory, "closed": closed}
    _tell(report, run, followed, (before.per_second + after.per_second) / 2, figures)


def _tell(report: Report, run: Run, followed: list[Followed], alone: float, found: dict[str, float]) -> None:
    arrivals = [at for one in followed for at, _ in one.arrivals]
    seconds = max(arrivals) - run.began
    each = [len(one.arrivals) for one in followed if one.depth == 10 and not one.interval_ms]
    merged = [len(one.arrivals) for one in followed if one.interval_ms]
    conflated = sum(each) / len(each) - sum(merged) / len(merged)
    report.add(TITLE, "the flow", f"{run.played.elapsed:.2f} s", f"{len(run.played.results):,} commands")
    report.add(TITLE, "commands/s", f"{run.per_second:,.0f}", f"{alone:,.0f}/s with no subscriber")
    report.add(TITLE, "  of that with no subscriber", f"{run.per_second / alone:.2f}")
    remark = f"{len(arrivals):,} in {seconds:.2f} s, each verified; every book equal to the engine's"
    report.add(TITLE, "updates delivered/s", f"{len(arrivals) / seconds:,.0f}", remark)
    figures: dict[str, object] = {
        **found,
        "seconds": run.played.elapsed,
        "commands_per_s": run.per_second,
        "alone_per_s": alone,
        "ratio": run.per_second / alone,
        "delivered": len(arrivals),
        "delivered_per_s": len(arrivals) / seconds,
        "conflated": conflated,
    }
    for name, interval_ms in (("each change", 0), ("at most one in 100 ms", 100)):
        ages = sorted(
            max(0.0, at - run.results_at[sequence]) * 1e3
            for one in followed
            if one.interval_ms == interval_ms
            for at, sequence in one.arrivals
            if sequence in run.results_at
        )
        p50, p99 = (ages[int(share * (len(ages) - 1))] for share in (0.5, 0.99))
        report.add(TITLE, f"age, {name}", f"{p50:.0f} ms", f"p50; p99 {p99:.0f} ms")
        figures[f"age_ms_{interval_ms}"] = {"p50": p50, "p99": p99}
    again = sum(one.connections - 1 for one in followed)
    remark = f"of {sum(each) / len(each):,.0f} for each who asked for an interval; closed as too slow {found['closed']:.0f}, connected again {again}"
    report.add(TITLE, "conflated", f"{conflated:,.0f}", remark)
    remark = f"{found['cpu_s'] / len(arrivals) * 1e6:.0f} us a message; {found['mib']:.0f} MiB"
    report.add(TITLE, "processor of market data", f"{found['cpu_s']:.2f} s", remark)
    report.keep("market_data_flow", figures)

"""The recorded flow and a made-up one through an engine that is killed again and again: equal fills and book."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pincex_client.replay.flow import read_book, read_commands, read_fills
from pincex_client.replay.plan import make_plan
from pincex_client.replay.run import Flow, Replay, Report, RunOptions
from tests.integration.journal.waiting import until
from tests.integration.recovery.engine_process import EngineProcess, engine_on
from tests.unit.client.recorded import write_flow

pytestmark = pytest.mark.long

KILLS = 5


async def replay(engine: EngineProcess, flow: Flow, symbol: str, kills: int, rng: random.Random) -> Report:
    """Play a flow, killing the engine after random shares of it."""
    plan = make_plan(list(flow.commands), symbol=symbol, run_id=f"r{rng.randrange(10**6)}")
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count

    exchange = engine.client(plan.account, deadline=60.0)
    async with exchange:
        run = asyncio.create_task(Replay(exchange, plan, flow, RunOptions()).run(advance))
        marks = sorted(rng.randrange(len(flow.commands) // 10, len(flow.commands) * 9 // 10) for _ in range(kills))
        for mark in marks:
            await until(lambda mark=mark: done >= mark or run.done(), 120.0)  # type: ignore[misc]
            engine.kill()
            await engine.start()
        return await run


def check(report: Report, flow: Flow) -> None:
    assert report.differences == []
    assert flow.fills is not None
    assert (report.fills, report.refused) == (len(flow.fills), 0)
    assert report.reconnects >= 1


async def test_a_made_up_flow_with_ticks_of_a_cent_is_equal_under_kills(
    database, free_port: Callable[[], int], seed: int, tmp_path: Path
):
    files = write_flow(tmp_path, 5_000, seed)
    flow = Flow(read_commands(files.commands), read_fills(files.fills), read_book(files.book))
    async with engine_on(database, free_port) as engine:
        check(await replay(engine, flow, "AAPL", KILLS, random.Random(seed)), flow)


async def test_the_recorded_flow_is_equal_under_kills(
    database, free_port: Callable[[], int], seed: int, repository: Path
):
    folder = Path(os.environ.get("PINCEX_SHARED", repository.parent / "shared")) / "data" / "real-order-flow"
    if not folder.is_dir():
        pytest.skip(f"the recorded order flow is not there: {folder}")
    part = "es-part-a"
    flow = Flow(
        read_commands(folder / f"{part}.commands.csv"),
        read_fills(folder / f"{part}.fills.csv"),
        read_book(folder / f"{part}.book.json"),
    )
    async with engine_on(database, free_port, PINCEX_SNAPSHOT_EVERY="5000") as engine:
        check(await replay(engine, flow, "ESH4", KILLS, random.Random(seed)), flow)

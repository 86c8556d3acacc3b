"""A recorded flow through an engine that is killed on the way."""

from __future__ import annotations

import asyncio
import random

from pincex_client.replay.plan import make_plan
from pincex_client.replay.run import Flow, Replay, Report, RunOptions
from tests.integration.journal.waiting import until
from tests.integration.recovery.engine_process import EngineProcess


async def replay(
    engine: EngineProcess, flow: Flow, symbol: str, kills: int, rng: random.Random, rate: float | None = None
) -> Report:
    """Play a flow, killing the engine after random shares of it."""
    plan = make_plan(list(flow.commands), symbol=symbol, run_id=f"r{rng.randrange(10**6)}")
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count

    exchange = engine.client(plan.account, deadline=60.0)
    async with exchange:
        run = asyncio.create_task(Replay(exchange, plan, flow, RunOptions(rate=rate)).run(advance))
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

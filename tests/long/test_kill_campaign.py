"""The long campaign of kills of a single engine; writes its section of docs/reliability-report.md when all of it has held."""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from exchange.trading import recovery
from exchange.trading.journal.postgres import PostgresJournal
from tests.integration.journal.waiting import until
from tests.integration.recovery.engine_process import engine_on
from tests.integration.recovery.load import Load
from tests.integration.recovery.proof import Proved, prove
from tests.integration.recovery.rounds import Rounds, kill_rounds
from tests.long.report import ONE_ENGINE, spread, write_section
from tests.postgres_fixture import running_postgres

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("ROUNDS") or 50)
DATABASE_KILLS = 5
SNAPSHOT_EVERY = 2_000
PAUSE_S = 0.002


async def database_kills(server: Any, load: Load, rng: random.Random) -> list[float]:
    """Kill PostgreSQL under load; seconds from its return to the first answer, each time."""
    resumed = []
    for _ in range(DATABASE_KILLS):
        answered = load.answered
        await until(lambda answered=answered: load.answered > answered + 50)  # type: ignore[misc]
        await asyncio.to_thread(server.kill)
        down_until = time.monotonic() + rng.uniform(0.2, 4.0)
        await until(lambda end=down_until: time.monotonic() > end)  # type: ignore[misc]
        load.note_kill()
        await asyncio.to_thread(server.start)
        back = time.monotonic()
        await until(lambda: load.resumed_at > 0.0)
        resumed.append(max(0.0, load.resumed_at - back))
        load.check()
    return resumed


@pytest.mark.timeout(3_000)
async def test_many_kills_lose_nothing_and_double_nothing(free_port, seed, repository):
    rng = random.Random(f"{seed}-campaign")
    began = time.monotonic()
    with running_postgres(durable=True) as server:
        database = server.create_database()
        async with engine_on(database, free_port, PINCEX_SNAPSHOT_EVERY=str(SNAPSHOT_EVERY)) as engine:
            load = Load(engine, seed, pause_s=PAUSE_S)
            await load.start()
            kills = await kill_rounds(engine, load, KILLS, seed)
            outages = await database_kills(server, load, rng)
            await load.stop()
            unanswered = len(load.unanswered)
            proved = await prove(engine, load)
            started = time.monotonic()
            journal = await PostgresJournal.open(database.trading_url)
            replayed = await recovery.recover(journal, from_genesis=True)
            replay_s = time.monotonic() - started
            newest = await journal.latest_snapshot()
            await journal.close()
    assert proved.epochs >= KILLS + 1
    assert newest is not None, "snapshots were made and used on the way"
    rate = replayed.replayed_commands / replay_s
    elapsed = time.monotonic() - began
    write_report(repository, kills, outages, proved, unanswered, load, rate, elapsed)


def write_report(
    repository: Path,
    kills: Rounds,
    outages: list[float],
    proved: Proved,
    unanswered: int,
    load: Load,
    rate: float,
    elapsed: float,
) -> None:
    rounds = kills.rounds
    failures = ", ".join(f"{name} {count}" for name, count in sorted(load.failures.items())) or "none"
    facts = {
        "seed": f'{kills.seed} (`make test-long ARGS="tests/long/test_kill_campaign.py --seed {kills.seed}"`)',
        "duration": f"{elapsed:.0f} s",
        "kills of the engine": len(rounds),
        "kills of PostgreSQL": len(outages),
        "commands asked for": f"{proved.answers:,}",
        "without an answer at first": f"{unanswered:,} ({failures}); asked again at the end",
        "session: connections, commands sent again": f"{load.session.reconnects + 1:,}, {load.session.resent:,}",
        "commands in the journal, frames, epochs": f"{proved.commands:,}, {proved.frames:,}, {proved.epochs}",
        "orders, trades": f"{proved.orders:,}, {proved.trades:,}",
        "SIGKILL to serving again: median / p95 / most, s": spread([one.serving_after_s for one in rounds]),
        "SIGKILL to the first new answer: median / p95 / most, s": spread([one.answering_after_s for one in rounds]),
        "PostgreSQL back to the first new answer: median / p95 / most, s": spread(outages),
        "replay from frame one, read, verified and compared": f"{rate:,.0f} commands/s",
    }
    write_section(repository, ONE_ENGINE, facts, TEXT)


TEXT = """
One engine process, two traders with one call in flight each, a pipelined order session with up to 64 commands in flight, and credits,
straight to the engine. SIGKILLs of the engine at random moments, then of PostgreSQL, every process of it. Callers ask once, with a
second's patience. What held, for every command that was asked for:

- each answer is the one that the journal's replay gives, and asking again gives the very same;
- each id and each number of a session was applied exactly once, those without an answer too;
- the hash chain of all frames is whole, and no frame of a killed engine stands in the way of the next;
- the book, the balances and all else of the running engine equal a replay from frame one (`state_hash`);
- all accounts together hold what was credited, each credit once.

PostgreSQL's deaths left the engine the same process under the same epoch.
"""

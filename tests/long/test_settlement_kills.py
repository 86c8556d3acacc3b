"""The long campaign of kills of settlement; writes its section of docs/reliability-report.md when all of it has held."""

from __future__ import annotations

import os
import random
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pincex.settlement.v1 import settlement_service_pb2 as pb
from tests.integration.recovery.engine_process import engine_on
from tests.integration.recovery.load import Load
from tests.integration.settlement.kills import Kills, kill_rounds
from tests.integration.settlement.settlement_app import (
    Settlement,
    assert_whole,
    environment,
    rows,
    running_settlement,
    tables,
)
from tests.integration.trading.engine_app import ENVIRONMENT, eventually
from tests.long.report import SETTLEMENT, spread, write_section
from tests.postgres_fixture import running_postgres

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("ROUNDS") or 100)
PAUSE_S = 0.002
LONGEST_S = 3.0
"""Within so long after its first batch it is killed."""
CATCH_UP_S = 120.0


async def caught_up(settlement: Settlement, sequence: int) -> None:
    """All that the engine has done stands in the ledger."""
    await eventually(lambda: settlement.app.settler.offset.sequence >= sequence, "it catches up", CATCH_UP_S)


@pytest.mark.timeout(3_000)
async def test_a_hundred_kills_of_settlement_lose_no_posting_and_double_none(
    monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int], seed: int, repository: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    with running_postgres(durable=True) as server:
        database, other = server.create_database(), server.create_database()
        async with engine_on(database, free_port, JWT_SECRET=ENVIRONMENT["JWT_SECRET"]) as engine:
            beside: Any = SimpleNamespace(app=SimpleNamespace(ops=SimpleNamespace(port=engine._ops)))
            load = Load(engine, seed, pause_s=PAUSE_S)
            await load.start()
            variables = environment(beside, database, str(tmp_path))
            rng = random.Random(f"{seed}-settlement")
            kills = await kill_rounds(variables, database, repository, KILLS, rng, load.check, longest_s=LONGEST_S)
            await load.stop()
            async with engine.client() as client:
                head = (await client.admin.engine_state()).sequence
            behind = head - kills.sequences[-1]
            async with running_settlement(monkeypatch, beside, database) as settlement:
                await caught_up(settlement, head)
                report = await settlement.ask("Reconcile", pb.ReconcileRequest(reason="campaign"))
                assert report.whole, report
            started = time.monotonic()
            async with running_settlement(monkeypatch, beside, other) as settlement:
                await caught_up(settlement, head)
            replay_s = time.monotonic() - started
        assert_whole(database)
        assert tables(other) == tables(database), "killed or not, the same rows"
        (counts,) = rows(database, "SELECT posting_id, trade_count FROM settlement_offset")
    assert kills.sequences == sorted(kills.sequences), "never back"
    write_report(repository, kills, seed, head, behind, counts, replay_s, time.monotonic() - began)


def write_report(
    repository: Path,
    kills: Kills,
    seed: int,
    head: int,
    behind: int,
    counts: tuple[int, int],
    replay_s: float,
    elapsed: float,
) -> None:
    command = f'make test-long ARGS="tests/long/test_settlement_kills.py --seed {seed}"'
    facts = {
        "seed": f"{seed} (`{command}`)",
        "duration": f"{elapsed:.0f} s",
        "kills of settlement, on their way to the first batch": f"{len(kills.sequences)}, {kills.early}",
        "events settled": f"{head:,}, of which {behind:,} after the last kill",
        "postings, trades": f"{counts[0]:,}, {counts[1]:,}",
        "start to the first batch: median / p95 / most, s": spread(kills.settling_after_s),
        "replay from zero": f"{head / replay_s:,.0f} events/s, {counts[1] / replay_s:,.0f} trades/s, start and all",
    }
    write_section(repository, SETTLEMENT, facts, TEXT)


TEXT = """
One engine on PostgreSQL under the load of the first campaign, and one process of settlement beside it, killed by SIGKILL a moment after
it has settled something, or while it starts. What held, after each kill and at the end:

- offset and rows agree: postings and trades are numbered without a gap, none is missing and none doubled;
- every transaction sums to zero in every asset, and every balance is the sum of its postings;
- engine and ledger agree for all accounts at one sequence;
- a settlement that was never killed, from zero into an empty database, wrote the same rows.
"""

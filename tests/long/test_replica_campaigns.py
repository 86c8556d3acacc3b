"""The long campaigns on several engines behind the edge; each writes its section of docs/reliability-report.md when all of it has
held. The short forms: tests/e2e/test_replicas_under_fire.py.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.monkey import Options, run
from tests.chaos.scaling import scale_under_load
from tests.chaos.summary import findings, table
from tests.e2e.real_flow import COMMANDS, FILLS, assert_whole, engine_sequence, started, whole_flow
from tests.integration.journal.waiting import until
from tests.integration.recovery.edge import AtTheEdge
from tests.integration.recovery.load import Load
from tests.integration.recovery.proof import prove
from tests.integration.recovery.rounds import leader_rounds
from tests.long.report import CHAOS, LEADERS, REAL_FLOW, SCALING, spread, write_section
from tests.stack_fixture import running_stack, stack_folder, temporary_home

pytestmark = [pytest.mark.long, pytest.mark.timeout(3_000)]

ROUNDS = int(os.environ.get("ROUNDS") or 50)
CHAOS_SECONDS = float(os.environ.get("CHAOS_SECONDS") or 600)
CHAOS_SEED = 8412
ENGINES = 3
MOST_ENGINES = 6
FAIL_OVER_S = 3.0
PAUSE_S = 0.05
FLOW_RATE = 1_500
FLOW_KILLS = 4
HERE = "tests/long/test_replica_campaigns.py"


@contextmanager
def edge(*options: str) -> Iterator[AtTheEdge]:
    with temporary_home() as home, running_stack(stack_folder(home), *options) as stack:
        yield AtTheEdge(stack)


async def test_many_kills_of_the_leader_lose_nothing_and_double_nothing(seed: int, repository: Path) -> None:
    began = time.monotonic()
    with edge() as exchange:
        await exchange.scale(ENGINES)
        await exchange.until_whole(ENGINES)
        load = Load(exchange, seed, pause_s=PAUSE_S, patient=True, sessions=2)
        await load.start()
        done = await leader_rounds(exchange, load, ROUNDS, seed, ENGINES)
        await load.stop()
        compared = await exchange.compared(ENGINES)
        proved = await prove(exchange, load)
    fail_overs = [one.answering_after_s for one in done.rounds]
    assert proved.epochs > ROUNDS
    assert max(fail_overs) < FAIL_OVER_S
    facts = {
        "seed": f'{seed} (`make test-long ARGS="{HERE} -k many_kills --seed {seed}"`)',
        "duration": f"{time.monotonic() - began:.0f} s",
        "kills of the leader": f"{ROUNDS}, some of them followed at once by the kill of its successor",
        "commands asked for, all answered, none with an error": f"{proved.answers:,}",
        "sessions: attached again, commands sent again": (
            f"{sum(one.reconnects for one in load.opened):,}, {sum(one.resent for one in load.opened):,}"
        ),
        "commands in the journal, frames, epochs": f"{proved.commands:,}, {proved.frames:,}, {proved.epochs}",
        "orders, trades": f"{proved.orders:,}, {proved.trades:,}",
        "SIGKILL to the first new answer: median / p95 / most, s": spread(fail_overs),
        "longest wait of any caller at a kill: median / p95 / most, s": spread(
            [one.longest_wait_s for one in done.rounds]
        ),
        "SIGKILL to three engines again: median / p95 / most, s": spread([one.serving_after_s for one in done.rounds]),
        "state of the three at the end": f"identical at {compared['sequence']}: {compared['replicas'][0]['state_hash'][:16]}",
    }
    write_section(
        repository,
        LEADERS,
        facts,
        """
Two traders with one call in flight each, two pipelined order sessions with up to 64 commands in flight each, and credits, all over the SDK
through the edge. They place, cancel and replace, and leave time-outs, repeats and attaching again to the SDK: any error that had reached one of
them would have failed the campaign. No acknowledged order was lost and none was doubled; the rest is as with one engine.
""",
    )


async def test_the_real_flow_makes_equal_fills_while_leaders_are_killed(
    seed: int, recorded_flow: Path, repository: Path
) -> None:
    rng = random.Random(f"{seed}-flow")
    with edge() as exchange:
        await exchange.scale(ENGINES)
        await exchange.until_whole(ENGINES)
        before = engine_sequence(exchange.stack)
        command = whole_flow(recorded_flow, "--symbol", "ESH4", "--rate", str(FLOW_RATE))
        with started(exchange.stack, command) as flow:
            for kill in range(FLOW_KILLS):
                mark = before + int(COMMANDS * (0.3 + 0.6 * (kill + rng.random()) / FLOW_KILLS))
                await until(lambda mark=mark: flow.ended or engine_sequence(exchange.stack) > mark, 100.0)  # type: ignore[misc]
                assert not flow.ended
                await until(exchange.leader)  # type: ignore[arg-type]  # a name is as good as True
                exchange.stack.kill(await exchange.leader())
            report = flow.report()
        assert_whole(report)
        await exchange.until_whole(ENGINES)
        compared = await exchange.compared(ENGINES)
    latency = report["latency_ms"]
    facts = {
        "seed": f'{seed} (`make test-long ARGS="{HERE} -k real_flow --seed {seed}"`)',
        "command": f"`pincex replay --rate {FLOW_RATE}`, {COMMANDS:,} commands of a real venue",
        "kills of the leader meanwhile": FLOW_KILLS,
        "fills, all equal to the venue's in its order": f"{FILLS:,}",
        "session: attached again, commands sent again": f"{report['reconnects']}, {report['resent']}",
        "latency of a command: median / p99 / most, ms": f"{latency['p50']} / {latency['p99']} / {latency['max']}",
    }
    text = f"The final book is the venue's too, and the state of the three engines is one at {compared['sequence']}."
    write_section(repository, REAL_FLOW, facts, text)


async def test_scaling_to_six_engines_and_back_shows_no_error_to_anybody(seed: int, repository: Path) -> None:
    with edge() as exchange:
        done = await scale_under_load(exchange, seed, most=MOST_ENGINES, answers=500, pause_s=PAUSE_S)
    assert done.moved > 0, "connections were at engines that went away"
    feeds = ", ".join(f"{name} {one.reconnects}" for name, one in done.streams.items())
    facts = {
        "seed": f'{seed} (`make test-long ARGS="{HERE} -k scaling --seed {seed}"`)',
        "engines": f"1 -> {MOST_ENGINES} -> 1 in {done.elapsed_s:.0f} s",
        "commands asked for, all answered, none with an error": f"{done.answers:,}",
        "longest wait of any caller, s": f"{done.longest_wait_s:.2f}",
        "sessions: attached again, commands sent again": f"{done.attached_again:,}, {done.resent:,}",
        "feeds: connected again": f"{feeds}; gaps {sum(one.resets for one in done.streams.values())}",
    }
    text = (
        "Load and proof are those of the kills of the leader; as many callers again begin while there are six engines."
    )
    write_section(repository, SCALING, facts, text)


async def test_ten_minutes_of_chaos_break_no_promise(repository: Path) -> None:
    with edge("--standby") as exchange:
        outcome = await run(exchange, Options(CHAOS_SECONDS, CHAOS_SEED, ENGINES), lambda line: print(line, flush=True))
    facts = {
        "command": f"`bash scripts/chaos_monkey.sh --seconds {CHAOS_SECONDS:.0f} --seed {CHAOS_SEED} --standby`",
        "faults": len(outcome.struck),
    }
    lines = "\n".join(table(outcome))
    held = "\n".join(f"- {line}" for line in findings(outcome))
    write_section(repository, CHAOS, facts, f"```\n{lines}\n```\n\n{held}")

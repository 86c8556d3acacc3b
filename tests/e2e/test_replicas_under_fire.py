"""Several engines behind the edge, under load, while they are killed and scaled: no caller of the SDK sees an error, nothing
is lost or doubled. The short forms of the campaigns in tests/long.
"""

from __future__ import annotations

import os
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.chaos.monkey import Options, fresh_run, run
from tests.chaos.scaling import scale_under_load
from tests.chaos.summary import text
from tests.e2e.real_flow import DEADLINE_S, assert_whole, engine_sequence, started, whole_flow
from tests.integration.journal.waiting import until
from tests.integration.recovery.edge import AtTheEdge
from tests.integration.recovery.load import Load
from tests.integration.recovery.proof import prove
from tests.integration.recovery.rounds import leader_rounds
from tests.stack_fixture import running_stack, stack_folder, temporary_home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENGINES = 3
KILLS = 3
FAIL_OVER_S = 3.0
PAUSE_S = 0.1


@pytest.fixture(scope="module")
def exchange() -> Iterator[AtTheEdge]:
    with temporary_home() as home, running_stack(stack_folder(home)) as stack:
        yield AtTheEdge(stack)


async def test_leaders_killed_under_load_lose_nothing_and_no_caller_sees_an_error(
    exchange: AtTheEdge, seed: int
) -> None:
    await exchange.scale(ENGINES)
    await exchange.until_whole(ENGINES)
    load = Load(exchange, seed, pause_s=PAUSE_S, patient=True, sessions=2, run=fresh_run())
    await load.start()
    done = await leader_rounds(exchange, load, KILLS, seed, ENGINES)
    await load.stop()
    print(done)
    assert load.read_back > 0
    assert max(one.answering_after_s for one in done.rounds) < FAIL_OVER_S

    compared = await exchange.compared(ENGINES)
    assert len(compared["replicas"]) == ENGINES
    proved = await prove(exchange, load)
    assert proved.epochs > KILLS
    assert proved.trades > 0


async def test_scaling_up_and_down_under_load_shows_no_error_to_anybody(exchange: AtTheEdge, seed: int) -> None:
    done = await scale_under_load(exchange, seed, most=ENGINES, answers=100, pause_s=PAUSE_S)
    print(done)
    assert done.moved > 0, "connections were at engines that went away"


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_chaos_breaks_no_promise(exchange: AtTheEdge, seed: int) -> None:
    outcome = await run(exchange, Options(seconds=20.0, seed=seed, pause_s=PAUSE_S), print)
    print(text(outcome))
    assert outcome.proved is not None
    assert outcome.proved.answers == outcome.commands > 0
    assert outcome.replicas == ENGINES


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_the_real_flow_makes_equal_fills_while_leaders_are_killed(
    exchange: AtTheEdge, seed: int, recorded_flow: Path
) -> None:
    await exchange.scale(ENGINES)
    await exchange.until_whole(ENGINES)
    rng = random.Random(f"{seed}-flow")
    before = engine_sequence(exchange.stack)
    with started(exchange.stack, whole_flow(recorded_flow, "--symbol", f"ES{seed % 1_000}", "--rate", "1500")) as flow:
        for share in (0.4, 0.7):
            mark = before + int(32_000 * (share + rng.uniform(0.0, 0.1)))
            await until(lambda mark=mark: flow.ended or engine_sequence(exchange.stack) > mark, DEADLINE_S)  # type: ignore[misc]
            assert not flow.ended
            exchange.stack.kill(await exchange.leader())
            await exchange.until_whole(ENGINES)
        report = flow.report()
    assert_whole(report)
    assert (await exchange.compared(ENGINES))["identical"]


def test_the_script_attacks_the_exchange_that_runs_in_the_home_that_it_is_given(
    exchange: AtTheEdge, repository: Path
) -> None:
    environment = {**os.environ, "PINCEX_HOME": str(exchange.stack.home)}
    command = ["bash", "scripts/chaos_monkey.sh", "--seconds", "5", "--seed", "3", "--engines", "1"]
    done = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every promise was kept" in done.stdout
    assert exchange.stack.status()["state"] == "running", "it belongs to somebody else"

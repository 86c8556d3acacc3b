"""The same commands give the same events and the same state: under any hash seed, compiled or interpreted."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from exchange.trading import core_loader
from tests.bench import workload
from tests.unit.core.digests import Player, flow

SEED = "20260"


def digests(repository: Path, hash_seed: str, pure: str) -> list[str]:
    """[mode, digest of events, state hash, trades] of a run in a process of its own."""
    environment = dict(os.environ, PYTHONHASHSEED=hash_seed, PINCEX_PURE=pure)
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.core.digests", SEED],
        env=environment,
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.fixture(scope="module")
def interpreted(repository: Path) -> list[str]:
    return digests(repository, "1", "1")


@pytest.mark.core
def test_a_run_under_another_hash_seed_is_the_same(repository: Path, interpreted: list[str]) -> None:
    assert interpreted[0] == "pure"
    assert int(interpreted[3]) > 500, "trades"
    assert digests(repository, "2", "1") == interpreted


def test_a_compiled_run_is_the_same_as_an_interpreted_one(repository: Path, interpreted: list[str]) -> None:
    compiled = digests(repository, "3", "0")
    if compiled[0] != "compiled":
        assert os.environ.get("PINCEX_REQUIRE_COMPILED") != "1", "CI must have compiled the core"
        pytest.skip("the core is not compiled from these sources: `make install`")
    assert compiled[1:] == interpreted[1:]


@pytest.mark.core
def test_this_process_runs_the_mode_that_was_asked_for(repository: Path, interpreted: list[str]) -> None:
    player = Player()
    player.play(flow(int(SEED)))
    assert [player.digest.hexdigest(), player.engine.state_hash()] == interpreted[1:3]
    if os.environ.get("PINCEX_PURE") == "1":
        assert core_loader.mode() == "pure"


@pytest.mark.core
def test_orders_that_ended_leave_no_reference_cycles() -> None:
    maker = workload.Workload(seed=3)
    setup, listed = maker.setup, maker.take(8_000)
    engine = workload.play(setup)
    engine.state.max_finished_orders = 100
    gc.collect()
    gc.disable()
    try:
        workload.play(listed, engine)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.core
def test_the_benchmarks_workload_is_what_it_says() -> None:
    maker = workload.Workload(seed=5, identified=True)
    listed = maker.take(20_000)
    kinds = [command[0] for command in listed]
    assert 0.50 < kinds.count(1) / 20_000 < 0.60, "new and aggressive orders"
    assert 0.38 < kinds.count(2) / 20_000 < 0.42, "cancels"
    assert 0.04 < kinds.count(4) / 20_000 < 0.06, "replaces"
    shape = maker.shape()
    assert 9_000 < shape["resting"] < 11_500
    assert 900 < shape["levels"] < 1_100
    assert workload.Workload(seed=5, identified=True).take(100) == listed[:100]

"""Seeds that must pass: fifty each time, thousands in the long campaign, and those that once failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.faults import KINDS
from tests.simulation.regressions import REGRESSIONS
from tests.simulation.world import World

SEEDS = 50
BLOCK = 10
LONG_SEEDS = 3_000


@pytest.mark.parametrize("first", range(1, SEEDS + 1, BLOCK))
def test_every_promise_is_kept(first: int):
    for seed in range(first, first + BLOCK):
        World(seed).run()


@pytest.mark.parametrize(("seed", "steps"), [(seed, steps) for seed, steps, _ in REGRESSIONS])
def test_a_seed_that_failed_once_passes(seed: int, steps: int):
    World(seed, steps).run()


@pytest.mark.long
def test_every_promise_is_kept_in_thousands_of_new_worlds(seed: int):
    for each in range(seed, seed + LONG_SEEDS):
        World(each).run()


def test_the_same_seed_makes_the_same_run_whatever_python_hashes(repository: Path):
    def run(hash_seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "tests.simulation", "7", "6000"],
            cwd=repository,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
            timeout=100,
        ).stdout.rpartition("; ")[2]

    one, other = run("1"), run("4242")
    assert one == other
    assert len(one.strip()) == 16


def test_worlds_of_different_seeds_differ():
    digests = set()
    for seed in (1, 2, 3):
        world = World(seed, 2_000)
        world.run()
        digests.add(world.digest)
    assert len(digests) == 3


def test_faults_of_every_kind_are_made():
    made: set[str] = set()
    for seed in range(1, 13):
        world = World(seed, 4_000)
        world.run()
        made |= set(world.faults.made)
    assert made == set(KINDS)

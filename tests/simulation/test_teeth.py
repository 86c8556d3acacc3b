"""The simulation finds what it is there for: each planted bug, within a number of seeds."""

from __future__ import annotations

import pytest

from tests.simulation.planted import PLANTED
from tests.simulation.world import SimulationFailed, World


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str):
    planted = PLANTED[name]
    for seed in range(1, planted.within_seeds + 1):
        try:
            World(seed, planted=planted.plant, kinds=planted.kinds).run()
        except SimulationFailed as failure:
            print(f"{name}: found after {seed} seeds: {failure}")
            return
    pytest.fail(f"{name} was not found in {planted.within_seeds} seeds")


def test_a_failure_says_how_to_see_it_again():
    with pytest.raises(SimulationFailed, match=r"make sim SEED=1 STEPS=12000$"):
        World(1, planted=PLANTED["answer before the commit"].plant).run()

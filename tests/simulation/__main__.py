"""`python -m tests.simulation SEED [STEPS]`: one world, or with `SEED-SEED` several, until one fails."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.world import DEFAULT_STEPS, SimulationFailed, World


def main() -> int:
    parser = argparse.ArgumentParser(prog="make sim")
    parser.add_argument("seeds", help="a seed, or the first and the last of several: 1-500")
    parser.add_argument("steps", type=int, nargs="?", default=DEFAULT_STEPS, help="callbacks with faults")
    parser.add_argument("--verbose", action="store_true", help="print what happens")
    parser.add_argument("--keep-going", action="store_true", help="go on after a seed that fails")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    failed = 0
    for seed in range(int(first), int(last or first) + 1):
        world = World(seed, arguments.steps, verbose=arguments.verbose)
        started = time.perf_counter()
        try:
            world.run()
        except SimulationFailed as failure:
            failed += 1
            print(f"seed {seed}: {failure}")
            if not arguments.keep_going:
                return 1
        else:
            auditor = world.auditor
            print(
                f"seed {seed}: kept; {auditor.head[0]} commands, epoch {world.database.epoch}, "
                f"{auditor.acknowledgements} acknowledged, {auditor.reads} reads, {auditor.hashes_compared} hashes compared, "
                f"{auditor.lost_frames} frames lost in fail-overs; {world.loop.turns} steps, {world.loop.time():.1f} s simulated "
                f"in {time.perf_counter() - started:.2f} s; {world.digest[:16]}"
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

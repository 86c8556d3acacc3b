"""The core alone: commands a second and latency of one `apply`, interpreted and compiled.

Workload, and what it leaves out: `tests/bench/workload.py`. Targets of DESIGN section 8: 600,000 commands/s interpreted,
1,200,000 compiled. A busy machine gives less; `best_slice_per_s` is
what it gave when they left it alone for a twentieth of the run.
"""

from __future__ import annotations

import pytest

from tests.bench.workload import Mode, measure_core

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

FLOORS: dict[Mode, int] = {"pure": 150_000, "compiled": 400_000}
"""What even a crowded machine must reach: below it something is broken, not slow."""


@pytest.mark.parametrize("identified", [False, True], ids=["plain", "with client order ids"])
@pytest.mark.parametrize("mode", ["pure", "compiled"])
def test_the_core_alone(mode: Mode, identified) -> None:
    measured = measure_core(1_000_000, mode, identified=identified)
    print()
    for name, value in measured.items():
        print(f"  {name:18} {value}")
    if measured["mode"] != mode:
        pytest.skip("the core is not compiled from these sources: `make install`")
    assert measured["best_slice_per_s"] > FLOORS[mode]

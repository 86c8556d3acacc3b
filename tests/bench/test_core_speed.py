"""The core alone: commands a second and latency of one `apply`, interpreted and compiled.

Workload, and what it leaves out: `tests/bench/workload.py`. Targets of DESIGN section 8: 600,000 commands/s interpreted,
1,200,000 compiled. A busy machine gives less; the best slice is what it gave when it was left alone for a twentieth of
the run. The yardstick, a tuple of eight fields made by the same Python in the same minute, tells machines apart: it took
22 ns where those targets were set.
"""

from __future__ import annotations

import pytest

from tests.bench.report import Report
from tests.bench.workload import Mode, measure_core

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

COMMANDS = 1_000_000


@pytest.mark.parametrize("ids", ["plain", "with client order ids"])
@pytest.mark.parametrize("mode", ["pure", "compiled"])
def test_the_core_alone(mode: Mode, ids: str, report: Report) -> None:
    identified = ids != "plain"
    measured = measure_core(COMMANDS, mode, identified=identified)
    if measured["mode"] != mode:
        pytest.skip("the core is not compiled from these sources: `make install`")
    title = "Core alone, 1,000,000 commands of the full mix (targets: 600,000/s interpreted, 1,200,000/s compiled)"
    what = f"{mode}, {ids}: commands/s"
    latency = f"p50 {measured['p50_us']:.2f} us, p99 {measured['p99_us']:.1f} us, p99.9 {measured['p999_us']:.0f} us"
    best = f"best slice {measured['best_slice_per_s']:,.0f}"
    yardstick = f"a tuple of eight fields {measured['tuple_ns']:.0f} ns"
    report.add(title, what, f"{measured['commands_per_s']:,.0f}", f"{best}; {latency}; {yardstick}")
    report.keep(f"core_{mode}{'_identified' if identified else ''}", measured)
    assert measured["commands"] == COMMANDS

"""The report of the campaigns keeps what other campaigns have written."""

from __future__ import annotations

from pathlib import Path

from tests.long.report import CHAOS, LEADERS, ONE_ENGINE, spread, write_section


def test_a_section_takes_its_place_and_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    report = tmp_path / "docs" / "reliability-report.md"
    write_section(tmp_path, CHAOS, {"faults": 3}, "first\n\n- held")
    write_section(tmp_path, ONE_ENGINE, {"kills": 50}, "of one engine")
    write_section(tmp_path, LEADERS, {"kills": 50}, "of leaders")
    once = report.read_text()
    write_section(tmp_path, CHAOS, {"faults": 4}, "second\n\n- held")
    twice = report.read_text()

    titles = [line[3:] for line in twice.splitlines() if line.startswith("## ")]
    assert titles == [ONE_ENGINE, LEADERS, CHAOS]
    assert twice.partition(f"## {CHAOS}")[0] == once.partition(f"## {CHAOS}")[0]
    assert "| faults | 4 |" in twice
    assert "| faults | 3 |" not in twice
    assert "of one engine" in twice
    assert "first" not in twice


def test_a_spread_is_the_median_the_95th_and_the_most() -> None:
    assert spread([float(number) for number in range(100, 0, -1)]) == "50.50 / 96.00 / 100.00"

"""The baseline keeps the first figure of a machine and compares later ones with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.bench import baseline
from tests.bench.baseline import Baseline

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_first_figure_stays_and_later_ones_are_compared_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "perf-baseline.json"
    assert Baseline(file).compare("speed", 50.0, keep=False) == "no baseline of this machine"
    assert not file.exists()
    assert "from now on" in Baseline(file).compare("speed", 200.0)
    assert Baseline(file).compare("speed", 100.0) == "0.50 of the baseline's 200"
    monkeypatch.setattr(baseline, "machine", lambda: "another")
    assert "from now on" in Baseline(file).compare("speed", 7.0)
    assert sorted(one["speed"] for one in json.loads(file.read_text()).values()) == [7.0, 200.0]

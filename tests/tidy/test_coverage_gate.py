"""The coverage gate counts branches, and branches only, of each part by itself."""

from typing import Any

import pytest

from scripts.coverage_gate import branch_share, gate, part_of


def summary(branches: int, covered: int) -> dict[str, Any]:
    counts = {"num_branches": branches, "covered_branches": covered, "missing_branches": branches - covered}
    return {"summary": {**counts, "percent_covered": 99.0}}


REPORT = {
    "files": {
        "services/exchange/trading/a.py": summary(900, 900),
        "services/exchange/auth/b.py": summary(100, 80),
        "services/exchange/auth/gate/c.py": summary(100, 90),
        "services/exchange/authority/d.py": summary(1_000, 1_000),
    }
}


def test_the_share_is_of_branches_whatever_the_lines() -> None:
    assert branch_share({"num_branches": 200, "covered_branches": 181, "percent_covered": 99.0}) == 90.5


def test_code_without_branches_lacks_none() -> None:
    assert branch_share({"num_branches": 0, "covered_branches": 0}) == 100.0


def test_no_part_is_carried_by_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(REPORT, "services/exchange/trading", 100)
    assert gate(REPORT, "services/exchange/auth", 85)
    assert not gate(REPORT, "services/exchange/auth", 85.1)
    assert "branch coverage of services/exchange/auth: 85.0 % (at least 85.1 %)" in capsys.readouterr().out


def test_a_part_that_nobody_measured_does_not_pass() -> None:
    with pytest.raises(ValueError, match="no file of services/exchange/wallet"):
        part_of(REPORT, "services/exchange/wallet")

"""The coverage gate counts branches, and branches only."""

from scripts.coverage_gate import branch_share


def test_the_share_is_of_branches_whatever_the_lines() -> None:
    assert branch_share({"num_branches": 200, "covered_branches": 181, "percent_covered": 99.0}) == 90.5


def test_code_without_branches_lacks_none() -> None:
    assert branch_share({"num_branches": 0, "covered_branches": 0}) == 100.0

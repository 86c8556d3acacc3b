"""Fails when too few branches of a part were taken.

    python -m scripts.coverage_gate services/exchange/trading=90 services/exchange/auth=90.1

coverage.py's own `--fail-under` compares lines and branches together, of all parts at once; the promise is about branches, of
each part.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

WORST_SHOWN = 12


def branch_share(totals: Mapping[str, Any]) -> float:
    """Per cent of the branches that were taken; 100 where there are none."""
    branches: int = totals["num_branches"]
    return 100.0 if branches == 0 else 100.0 * totals["covered_branches"] / branches


def measured() -> dict[str, Any]:
    """The data of the last runs, combined, as coverage.py reports them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", str(path)], check=True)  # noqa: S603
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def part_of(report: Mapping[str, Any], folder: str) -> dict[str, Mapping[str, int]]:
    """The summaries of the files below a folder. Raises ValueError where there are none: nothing would be gated."""
    files = {name: file["summary"] for name, file in report["files"].items() if PurePath(name).is_relative_to(folder)}
    if not files:
        raise ValueError(f"no file of {folder} was measured")
    return files


def total_of(files: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """The branches of all files together."""
    return {key: sum(file[key] for file in files.values()) for key in ("num_branches", "covered_branches")}


def gate(report: Mapping[str, Any], folder: str, least: float) -> bool:
    """Print the share of a part and its files that lack most; whether the share suffices."""
    files = part_of(report, folder)
    for name, summary in sorted(files.items(), key=lambda file: -file[1]["missing_branches"])[:WORST_SHOWN]:
        if summary["missing_branches"]:
            print(f"  {branch_share(summary):5.1f} %  {summary['missing_branches']:3} branches missed  {name}")
    share = branch_share(total_of(files))
    print(f"branch coverage of {folder}: {share:.1f} % (at least {least:g} %)")
    return share >= least


def main(arguments: list[str]) -> int:
    """Gate each FOLDER=LEAST; exit status 1 where one is below its least share."""
    report = measured()
    asked = [argument.partition("=") for argument in arguments]
    passed = [gate(report, folder, float(least)) for folder, _, least in asked]
    return 0 if passed and all(passed) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

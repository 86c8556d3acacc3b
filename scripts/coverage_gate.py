"""Fails when too few branches of the trading engine were taken: `python -m scripts.coverage_gate 90`.

coverage.py's own `--fail-under` compares lines and branches together; the promise is about branches.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WORST_SHOWN = 12


def branch_share(totals: dict[str, Any]) -> float:
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


def main(arguments: list[str]) -> int:
    """Print the share and the files that lack most; exit status 1 below the least share."""
    least = float(arguments[0])
    report = measured()
    share = branch_share(report["totals"])
    missing = sorted(report["files"].items(), key=lambda file: -file[1]["summary"]["missing_branches"])
    for name, file in missing[:WORST_SHOWN]:
        summary = file["summary"]
        if summary["missing_branches"]:
            print(f"  {branch_share(summary):5.1f} %  {summary['missing_branches']:3} branches missed  {name}")
    print(f"branch coverage of the trading engine: {share:.1f} % (at least {least:g} %)")
    return 0 if share >= least else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

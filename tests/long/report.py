"""docs/reliability-report.md: a section for each campaign, written by it when all of it has held."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from exchange.trading import core_loader

ONE_ENGINE: Final = "One engine, killed"
LEADERS: Final = "Three engines, the leader killed"
CHAOS: Final = "Chaos"
REAL_FLOW: Final = "The real flow while leaders are killed"
SCALING: Final = "Scaling under load"
SETTLEMENT: Final = "Settlement, killed"
WALLET: Final = "The wallet, killed"
VERIFIED: Final = "Market data, verified through faults"
SOAK: Final = "Market data, a soak"
_ORDER: Final = (ONE_ENGINE, LEADERS, CHAOS, REAL_FLOW, SCALING, SETTLEMENT, WALLET, VERIFIED, SOAK)

_INTRO: Final = """# Reliability report

Each section is written by its campaign (`make test-long`), and only after everything in that campaign held; one that finds a
defect fails and leaves the section as it was. The campaigns run real processes: the engines, a real PostgreSQL
(`synchronous_commit=on`, flushing to disk), and where several engines run, Envoy in front of them, all on one machine. What is in none
of them: loss of a machine or of power, a disk that lies. The network between an engine and the database is cut in
`tests/integration/recovery/test_partition.py`.
"""


def write_section(repository: Path, title: str, facts: Mapping[str, object], text: str) -> None:
    """Put a section into the report, in its place: a table of what was done and measured, then what held."""
    path = repository / "docs" / "reliability-report.md"
    found = _sections(path.read_text()) if path.exists() else {}
    table = "\n".join(f"| {name} | {value} |" for name, value in {**_surroundings(), **facts}.items())
    found[title] = f"| | |\n|---|---|\n{table}\n\n{text.strip()}\n"
    written = [f"## {name}\n\n{found[name]}" for name in _ORDER if name in found]
    path.write_text("\n".join([_INTRO, *written]))


def _sections(report: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)\n\n", report, flags=re.MULTILINE)
    return {title: body.rstrip() + "\n" for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def _surroundings() -> dict[str, str]:
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": (
            f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, core {core_loader.mode()}"
        ),
    }


def spread(seconds: list[float]) -> str:
    """Median, 95th of 100, and the most."""
    ordered = sorted(seconds)
    return f"{median(ordered):.2f} / {ordered[int(len(ordered) * 0.95)]:.2f} / {ordered[-1]:.2f}"

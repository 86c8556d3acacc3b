"""Figures of this machine from an earlier run, to compare with: `perf-baseline.json`, whose first entry a run writes itself.

Another processor, another count of cores or another Python is another machine. To begin anew, remove its entry.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).resolve().parent.parent.parent / "perf-baseline.json"


class Baseline:
    """The entry of this machine; figures that it lacks are added, what is there stays."""

    def __init__(self, file: Path = FILE) -> None:
        self._file = file
        self._all: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.exists() else {}
        self._mine = self._all.setdefault(machine(), {})

    def compare(self, name: str, value: float, *, keep: bool = True) -> str:
        """How a figure stands to that of the baseline, such as "1.04 of the baseline's 12,000"; the first one is kept."""
        known = self._mine.get(name)
        if known is not None:
            return f"{value / known:.2f} of the baseline's {known:,.4g}"
        if not keep:
            return "no baseline of this machine"
        self._mine[name] = value
        self._file.write_text(json.dumps(self._all, indent=2, sort_keys=True) + "\n")
        return "the baseline of this machine from now on"


def machine() -> str:
    """What makes figures comparable."""
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _processor() -> str:
    info: Any = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

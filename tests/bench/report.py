"""Collects what the benchmarks measured, and writes `perf.log` (for people) and `perf.json` (for programs)."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = ROOT / "perf.log"
JSON = ROOT / "perf.json"

LIMITS = {
    "Core alone": "making tuples and objects, and cache misses; this CPython was built without its optimisations",
    "PlaceOrder": "two thirds of the engine's time is inside grpc.aio and the event loop (sampled by py-spy)",
    "OrderSession": "protobuf fields read and set one by one in Python; the compiled core is a fifth",
    "Recovery": "applying the commands; reading and verifying them is about a seventh",
    "Replicas": "each replica applies every command, and here all share two cores",
    "Fail-over": "two refused connections, 0.05 s apart, then the lease, the journal's tail, and the links anew",
    "Signed requests": "aiohttp and the event loop; then nonces on their way to PostgreSQL, and a line of the log for each use",
    "Memory": "ids and finished orders that are kept: their counts are configured",
}
"""What limits each section now, by the beginning of its title."""


@dataclass(slots=True)
class Report:
    """Sections in the order in which they were measured: a title, and lines of (what, figure, remark)."""

    sections: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, section: str, what: str, figure: str, remark: str = "") -> None:
        """One line of the text."""
        self.sections.setdefault(section, []).append((what, figure, remark))

    def keep(self, name: str, value: Any) -> None:
        """One figure, or several, for programs."""
        self.figures[name] = value

    def write(self) -> None:
        """Write both files, if anything was measured."""
        if not self.sections:
            return
        machine = {
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "load_before": self.figures.get("load_before"),
        }
        lines = [
            "PinCEX: measured by `make bench`. Ratios hold within one run; absolute figures only for this machine.",
            "  ".join(f"{name} {value}" for name, value in machine.items()),
        ]
        for title, rows in self.sections.items():
            lines += ["", title]
            width = max(len(what) for what, _, _ in rows)
            lines += [f"  {what:<{width}}  {figure:>14}  {remark}".rstrip() for what, figure, remark in rows]
            lines += [f"  limit now: {limit}" for beginning, limit in LIMITS.items() if title.startswith(beginning)]
        TEXT.write_text("\n".join(lines) + "\n")
        JSON.write_text(json.dumps({"machine": machine, **self.figures}, indent=2, sort_keys=True) + "\n")

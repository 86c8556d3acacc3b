"""Collects what the benchmarks measured, and writes `perf.log` (for people) and `perf.json` (for programs)."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = ROOT / "perf.log"
JSON = ROOT / "perf.json"

HEADING = "PinCEX: measured by `make bench`. Ratios hold within one run; absolute figures only for this machine."

LIMITS = {
    "Core alone": "making tuples and objects, and cache misses; this CPython was built without its optimisations",
    "PlaceOrder": "two thirds of the engine's time is inside grpc.aio and the event loop (sampled by py-spy)",
    "OrderSession": "protobuf fields read and set one by one in Python; the compiled core is a fifth",
    "Recovery": "applying the commands; reading and verifying them is about a seventh",
    "Replicas": "each replica applies every command, and here all share two cores",
    "Fail-over": "two refused connections, 0.05 s apart, then the lease, the journal's tail, and the links anew",
    "Signed requests": "aiohttp and the event loop; then nonces on their way to PostgreSQL, and a line of the log for each use",
    "Market data: one book": "grpc.aio's write for each message and subscriber, as for the bare stream; with 500 also the subscribers on the other core",
    "Market data: the real": "a few large frames: the engine and 100 subscribers that check each level share all cores with market data",
    "WebSocket": "one process has one core: a write to a socket for each message and client",
    "Settlement of": "PostgreSQL: most of a trade is rows of the ledger with their indexes (see the bare COPY)",
    "Settlement while": "nothing at this rate: what is behind is what one commit of settlement takes",
    "Wallet and ledger": "of what moves money: durable steps one after the other (the wallet's row, the engine's command, the outcome), by processes that share all cores",
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
        """Write both files, if anything was measured. What this run has not measured stays as it was, with its own date."""
        if not self.sections:
            return
        date = time.strftime("%Y-%m-%d", time.gmtime())
        blocks = _blocks(TEXT.read_text() if TEXT.exists() else "")
        for title, rows in self.sections.items():
            width = max(len(what) for what, _, _ in rows)
            blocks[title] = [
                *(f"  {what:<{width}}  {figure:>14}  {remark}".rstrip() for what, figure, remark in rows),
                *(f"  limit now: {limit}" for beginning, limit in LIMITS.items() if title.startswith(beginning)),
                f"  measured {date}, load before {self.figures.get('load_before')}",
            ]
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        lines = [HEADING, "  ".join(f"{name} {value}" for name, value in machine.items())]
        for title, block in blocks.items():
            lines += ["", title, *block]
        TEXT.write_text("\n".join(lines) + "\n")
        old = json.loads(JSON.read_text()) if JSON.exists() else {}
        found = {**old, "machine": {**machine, "date": date}, **self.figures}
        JSON.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")


def _blocks(text: str) -> dict[str, list[str]]:
    """The sections of an earlier report by their titles; one that names no date has that of its heading."""
    heading, *parts = text.split("\n\n")
    date = re.search(r"date (\S+)", heading)
    found = {}
    for part in parts:
        title, *lines = part.strip("\n").split("\n")
        dated = any(line.startswith("  measured ") for line in lines)
        found[title] = lines if dated or date is None else [*lines, f"  measured {date[1]}"]
    return found

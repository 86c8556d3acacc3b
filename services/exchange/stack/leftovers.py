"""Who runs, as it is kept for whoever comes after a supervisor that was killed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from exchange.stack.files import read_json
from exchange.stack.processes import ProcessId, end

if TYPE_CHECKING:
    from pathlib import Path

STATE_FILE = "state.json"


def end_leftovers(home: Path) -> int:
    """Ends what a supervisor that was killed left running, the services before their stores; returns how many."""
    state = read_json(home / STATE_FILE)
    running = state.get("running")
    ranks: dict[int, list[tuple[ProcessId, signal.Signals]]] = {}
    for entry in running if isinstance(running, list) else []:
        process = ProcessId.from_json(entry.get("process"))
        if process is not None and process.is_alive():
            ranks.setdefault(int(entry["rank"]), []).append((process, signal.Signals[entry["signal"]]))
    for rank in sorted(ranks):
        end(ranks[rank])
    return sum(len(processes) for processes in ranks.values())

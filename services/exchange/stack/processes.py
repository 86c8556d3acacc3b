"""Processes of this machine, known by pid and start time, so that a reused pid is never taken for ours."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessId:
    """`start` is the kernel's start time in clock ticks since boot; `boot` names the boot."""

    pid: int
    start: int
    boot: str

    def to_json(self) -> dict[str, object]:
        """For the state file."""
        return {"pid": self.pid, "start": self.start, "boot": self.boot}

    @classmethod
    def from_json(cls, value: object) -> ProcessId | None:
        """Reads what `to_json` wrote; None if it is not that."""
        match value:
            case {"pid": int(pid), "start": int(start), "boot": str(boot)}:
                return cls(pid, start, boot)
        return None

    def is_alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        return identify(self.pid) == self


def identify(pid: int) -> ProcessId | None:
    """The identity of the process that has this pid now, None if there is none."""
    try:
        # The name in parentheses may hold anything; the fields after the last one are: state, ppid, ...
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, start = fields[0], int(fields[19])
    return None if state in {"Z", "X"} else ProcessId(pid, start, boot)


def end(processes: list[tuple[ProcessId, signal.Signals]], timeout_s: float = 15.0) -> None:
    """Ends leftovers of a supervisor that is gone: each by its own signal, by SIGKILL if it does not go in time."""
    alive = [(process, number) for process, number in processes if process.is_alive()]
    for process, number in alive:
        _send(process, number)
    deadline = time.monotonic() + timeout_s
    while any(process.is_alive() for process, _ in alive) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process, _ in alive:
        if process.is_alive():
            _send(process, signal.SIGKILL)


def _send(process: ProcessId, number: signal.Signals) -> None:
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return

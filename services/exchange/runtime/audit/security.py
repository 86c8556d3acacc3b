"""security.log: one JSON line for each refused credential and whatever else a guard should see, bounded in rate."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from exchange.runtime.audit.contract import SecurityEvent
from exchange.runtime.audit.line_file import LineFile
from exchange.runtime.audit.records import Writer, clean, iso_time, json_line
from exchange.runtime.logging import redact_text

MAX_LINES_PER_MINUTE: Final = 120
"""Of one kind, by one process; what comes beyond it is counted."""
WINDOW_S: Final = 60.0
MAX_KINDS: Final = 64
"""Kinds that are counted apart; more share one count."""
MAX_NAMED: Final = 32
"""Credentials, and addresses, that are counted by name in a minute; more are `others`."""

_OTHERS: Final = "others"
_MAX_TEXT: Final = 512


@dataclass(slots=True)
class _Window:
    """One kind in the minute that runs now."""

    began: float
    lines: int = 0
    unwritten: int = 0
    by_credential: Counter[str] = field(default_factory=Counter)
    by_address: Counter[str] = field(default_factory=Counter)
    timer: asyncio.TimerHandle | None = None


class FileSecurityLog:
    """Writes security.log (`contract.SecurityLog`).

    Of each kind the first lines of a minute are written as they come. The others are counted, in all and by credential
    and address, and one line tells the counts at the end of that minute: nobody fills the disk, or hides in the noise of
    another kind. A line that cannot be written is told in the service's own log, once a minute.
    """

    def __init__(self, file: LineFile, writer: Writer, *, max_lines: int = MAX_LINES_PER_MINUTE) -> None:
        self._file = file
        self._writer = writer
        self._max_lines = max_lines
        self._windows: dict[str, _Window] = {}
        self._failure_told = float("-inf")
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("security-log")

    def note(self, event: SecurityEvent) -> None:
        """Write or count it. Never raises."""
        kind = clean(event.kind, 64)
        if kind not in self._windows and len(self._windows) >= MAX_KINDS:
            kind = _OTHERS
        now = time.monotonic()
        window = self._windows.get(kind)
        if window is None or now >= window.began + WINDOW_S:
            if window is not None:
                self._close(kind, window)
            window = self._windows[kind] = _Window(now)
        if window.lines < self._max_lines:
            window.lines += 1
            self._write(self._fields(event))
            return
        if not window.unwritten:
            self._tell_later(kind, window, now)
        window.unwritten += 1
        _count(window.by_credential, clean(event.credential, _MAX_TEXT))
        _count(window.by_address, clean(event.address, _MAX_TEXT))

    def close(self) -> None:
        """Write the counts that wait, and close the file."""
        for kind, window in self._windows.items():
            self._close(kind, window)
        self._windows.clear()
        self._file.close()

    def _tell_later(self, kind: str, window: _Window, now: float) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Outside a loop the next event of this kind, or close(), tells.
            return
        window.timer = loop.call_later(window.began + WINDOW_S - now, self._close, kind, window)

    def _close(self, kind: str, window: _Window) -> None:
        if window.timer is not None:
            window.timer.cancel()
        if window.unwritten:
            self._write(
                {
                    "time": iso_time(time.time_ns() // 1_000),
                    "kind": kind,
                    "service": self._writer.service,
                    "instance": self._writer.instance,
                    "unwritten": window.unwritten,
                    "by_credential": dict(window.by_credential),
                    "by_address": dict(window.by_address),
                }
            )
        window.unwritten = 0
        window.by_credential.clear()
        window.by_address.clear()
        # What still comes before the minute is over is counted anew.
        window.timer = None

    def _fields(self, event: SecurityEvent) -> dict[str, Any]:
        return {
            "time": iso_time(time.time_ns() // 1_000),
            "kind": clean(event.kind, 64),
            "outcome": clean(event.outcome, 128),
            "service": self._writer.service,
            "instance": self._writer.instance,
            "actor": clean(event.actor, _MAX_TEXT),
            "credential": clean(event.credential, _MAX_TEXT),
            "address": clean(event.address, _MAX_TEXT),
            # A query may carry what only its caller should know.
            "action": clean(event.action.partition("?")[0], _MAX_TEXT),
            "request_id": clean(event.request_id, 128),
            "details": clean(redact_text(event.details), _MAX_TEXT),
        }

    def _write(self, fields: dict[str, Any]) -> None:
        try:
            self._file.write(json_line(fields))
        except OSError as error:
            now = time.monotonic()
            if now >= self._failure_told + WINDOW_S:
                self._failure_told = now
                self._log.error("the security log cannot be written", file=str(self._file.path), error=str(error))


def _count(counts: Counter[str], name: str) -> None:
    if name:
        counts[name if name in counts or len(counts) < MAX_NAMED else _OTHERS] += 1

"""audit.log: every record as a JSON line; and the trail that is nothing but that file, for an engine in memory."""

from __future__ import annotations

import time
from typing import Final

import structlog

from exchange.runtime.audit.contract import ACTION_DONE, ACTION_REFUSED, OK, AuditEntry, SecurityEvent, SecurityLog
from exchange.runtime.audit.line_file import LineFile
from exchange.runtime.audit.metrics import AuditMetrics
from exchange.runtime.audit.records import BEGUN, ENDED, HAPPENED, AuditRecord, Writer, safe_details
from exchange.runtime.errors import ErrorReason, ServiceError

_TELL_EVERY_S: Final = 60.0
# The contracts whose every audited action bears on security: locks, revocations, roles, passwords.
_OF_SECURITY: Final = "pincex.auth."


class AuditFile:
    """audit.log of one process; what it cannot take is counted and told."""

    def __init__(self, file: LineFile, metrics: AuditMetrics) -> None:
        self._file = file
        self._metrics = metrics
        self._told = float("-inf")
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("audit")

    def write(self, record: AuditRecord, sequence: int | None = None, digest: bytes = b"") -> bool:
        """Append a record, with number and hash where the database gave them; False where it could not be."""
        return self.write_line(record.line(sequence, digest))

    def write_line(self, line: bytes) -> bool:
        """Append a line. Never raises."""
        try:
            self._file.write(line)
        except OSError as error:
            self._metrics.file_failures.inc()
            now = time.monotonic()
            if now >= self._told + _TELL_EVERY_S:
                self._told = now
                self._log.error("the audit log cannot be written", file=str(self._file.path), error=str(error))
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class FilesTrail:
    """The trail without a database (`contract.AuditTrail`): lines of audit.log, no chain."""

    def __init__(self, file: AuditFile, security: SecurityLog, writer: Writer, metrics: AuditMetrics) -> None:
        self._file = file
        self._security = security
        self._writer = writer
        self._metrics = metrics

    async def begun(self, entry: AuditEntry) -> None:
        """Raises ServiceError AUDIT_UNAVAILABLE where the file takes no line."""
        self._metrics.records.labels(BEGUN).inc()
        if not self._file.write(self._writer.record(BEGUN, entry, "")):
            self._metrics.refused.inc()
            raise ServiceError(ErrorReason.AUDIT_UNAVAILABLE)

    async def ended(self, entry: AuditEntry, outcome: str) -> None:
        """Never raises."""
        self._metrics.records.labels(ENDED).inc()
        self._file.write(self._writer.record(ENDED, entry, outcome))
        note_end(self._security, entry, outcome)

    async def happened(self, entry: AuditEntry, outcome: str = OK) -> None:
        """Never raises."""
        self._metrics.records.labels(HAPPENED).inc()
        self._file.write(self._writer.record(HAPPENED, entry, outcome))
        note_happening(self._security, entry, outcome)


def note_end(security: SecurityLog, entry: AuditEntry, outcome: str) -> None:
    """Tell the security log of an action that was refused, and of what was done to users, keys and sessions."""
    if outcome != OK:
        security.note(_event(ACTION_REFUSED, entry, outcome))
    elif entry.action.startswith(_OF_SECURITY):
        security.note(_event(ACTION_DONE, entry, outcome))


def note_happening(security: SecurityLog, entry: AuditEntry, outcome: str) -> None:
    """Tell the security log what happened; its kind is the name of it."""
    security.note(_event(entry.action, entry, outcome))


def _event(kind: str, entry: AuditEntry, outcome: str) -> SecurityEvent:
    return SecurityEvent(
        kind=kind,
        outcome=outcome,
        actor=entry.actor,
        credential=entry.credential,
        address=entry.address,
        action=entry.action,
        request_id=entry.request_id,
        # What was asked holds the reason too.
        details=safe_details(entry.details),
    )

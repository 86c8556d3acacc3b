"""Looks at the trail all the time: what was appended follows, and what was seen is still there."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from exchange.admin.chain import Head, known_problem, verify
from exchange.admin.reader import RecordReader
from exchange.runtime.audit.contract import SecurityEvent, SecurityLog
from exchange.runtime.errors import ServiceError

AUDIT_BROKEN: Final = "audit.broken"


class TrailWatch:
    """Every `interval_s`: proves the records since the last look, and tells the head.

    The head stands in the log and in metrics, outside the database: with it a later verification finds a trail that was
    cut or written anew. It begins with the head that it finds at its start; the past is proved by VerifyAudit.
    """

    def __init__(
        self, reader: RecordReader, security: SecurityLog, registry: CollectorRegistry, *, interval_s: float
    ) -> None:
        self._reader = reader
        self._security = security
        self._interval_s = interval_s
        self._head: Head | None = None
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("audit-watch")
        self._sequence = Gauge("pincex_audit_head_sequence", "Number of the newest audit record.", registry=registry)
        self._intact = Gauge(
            "pincex_audit_intact", "1 while every record that was looked at follows the one before.", registry=registry
        )
        self._proved = Counter("pincex_audit_proved_records", "Records proved as they came.", registry=registry)
        self._intact.set(1)

    @property
    def has_looked(self) -> bool:
        """Whether the trail has been read."""
        return self._head is not None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except ServiceError as error:
                self._log.warning("the audit trail cannot be read", error=error.message)
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """Look once. Raises ServiceError AUDIT_UNAVAILABLE."""
        newest = await self._reader.newest()
        found = Head(newest.sequence, newest.hash) if newest is not None else Head()
        last = self._head
        if last is None:
            self._tell(found)
            return
        anchor = await self._reader.anchor()
        if anchor is not None and anchor.last.sequence > last.sequence:
            last = anchor.last
        elif last.sequence:
            problem = await known_problem(self._reader, last, found.sequence)
            if problem:
                self._broken(last.sequence, problem)
                return
        verdict = await verify(self._reader, found.sequence, last)
        self._proved.inc(verdict.records)
        if verdict.broken:
            self._broken(verdict.broken, verdict.problem)
        elif verdict.head != last:
            self._tell(verdict.head)

    def _tell(self, head: Head) -> None:
        self._head = head
        self._sequence.set(head.sequence)
        self._log.info("head of the audit trail", sequence=head.sequence, hash=head.digest.hex())

    def _broken(self, sequence: int, problem: str) -> None:
        """Told at each look until somebody has restarted the watch: it is not mended by time."""
        self._intact.set(0)
        self._log.error("the audit trail is broken", sequence=sequence, problem=problem)
        self._security.note(
            SecurityEvent(AUDIT_BROKEN, "DATA_LOSS", actor="system", details=f"record {sequence}: {problem}")
        )

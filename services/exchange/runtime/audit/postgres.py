"""The trail in PostgreSQL: a chain that the database appends to, one record after the other, in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

import asyncpg
import structlog

from exchange.runtime import postgres
from exchange.runtime.audit.contract import OK, AuditEntry, SecurityLog
from exchange.runtime.audit.files import AuditFile, note_end, note_happening
from exchange.runtime.audit.metrics import AuditMetrics
from exchange.runtime.audit.records import BEGUN, ENDED, HAPPENED, AuditRecord, Writer
from exchange.runtime.errors import ErrorReason, ServiceError

MAX_BATCH: Final = 64
"""Records that one statement stores; of details alone at most 1 MiB."""
MAX_WAITING: Final = 4_096
"""Records that wait for the database. Beyond half of it no action begins; beyond all of it records stay in audit.log."""
BEGIN_WAIT_S: Final = 2.0
"""How long an action waits for its first record."""
END_WAIT_S: Final = 1.0
"""How long its answer waits for its last record, while the database answers at all."""
APPEND_TIMEOUT_S: Final = 5.0
"""A statement that takes longer is given up with its connection; its records are sent again and stand once."""
RETRY_S: Final = 0.25
CLOSE_WAIT_S: Final = 2.0
"""How long a process that ends still tries to store what waits."""

# A refusal of the server too: until somebody mends it, the trail is away.
_FAILURES: Final[tuple[type[Exception], ...]] = (asyncpg.PostgresError, *postgres.CONNECTION_ERRORS)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# One after the other in the order of the arrays, one commit for all: what takes the time is the commit.
_APPEND: Final = """
    SELECT stored_sequence, stored_hash
    FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::text[], $10::text[], $11::text[], $12::text[], $13::text[])
        WITH ORDINALITY AS r (c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, place),
        audit_append(c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13)
    ORDER BY place
"""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A record in the queue; `stored` gets its number and hash."""

    record: AuditRecord
    stored: asyncio.Future[tuple[int, bytes]]
    sent: bool = False


class PostgresTrail:
    """Writes records of one process in the order in which they were made (`contract.AuditTrail`).

    One connection and one task append: a statement stores what has come while the one before it ran, MAX_BATCH at most, all
    of it or nothing. What has not been stored stays in the queue, and is sent again with the same id after whatever failure.
    Lines of audit.log are written at once, those of `begun` with number and hash. Make it inside the running loop, `start` it,
    `close` it at the end. `url` is of a role that may call audit_append.
    """

    def __init__(self, url: str, file: AuditFile, security: SecurityLog, writer: Writer, metrics: AuditMetrics) -> None:
        self._url = url
        self._file = file
        self._security = security
        self._writer = writer
        self._metrics = metrics
        self._queue: deque[_Waiting] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._away = False
        self._task: asyncio.Task[None] | None = None
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("audit")

    def start(self) -> None:
        """Begin to store."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Store what waits, for CLOSE_WAIT_S at most, and end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WAIT_S):
                await self._emptied.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._queue:
            self._log.error("records stand in the audit log's file only", records=len(self._queue))

    async def begun(self, entry: AuditEntry) -> None:
        """Return once the record is durable. Raises ServiceError AUDIT_UNAVAILABLE after BEGIN_WAIT_S at the latest."""
        self._metrics.records.labels(BEGUN).inc()
        record = self._writer.record(BEGUN, entry, "")
        if len(self._queue) >= MAX_WAITING // 2:
            raise self._refusal(entry)
        waiting = self._enqueue(record)
        try:
            async with asyncio.timeout(BEGIN_WAIT_S):
                sequence, digest = await asyncio.shield(waiting.stored)
        except TimeoutError:
            self._take_back(waiting, entry, "AUDIT_UNAVAILABLE")
            raise self._refusal(entry) from None
        except asyncio.CancelledError:
            # The caller is gone: nothing will be carried out.
            self._take_back(waiting, entry, "CANCELLED")
            raise
        self._file.write(record, sequence, digest)

    async def ended(self, entry: AuditEntry, outcome: str) -> None:
        """Return once the record is durable, or waits in the queue of a database that is away. Never raises."""
        note_end(self._security, entry, outcome)
        await self._keep(self._writer.record(ENDED, entry, outcome))

    async def happened(self, entry: AuditEntry, outcome: str = OK) -> None:
        """As `ended`."""
        note_happening(self._security, entry, outcome)
        await self._keep(self._writer.record(HAPPENED, entry, outcome))

    async def _keep(self, record: AuditRecord) -> None:
        waiting = self._keep_in_order(record)
        if waiting is not None and not self._away:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_WAIT_S):
                    await asyncio.shield(waiting.stored)

    def _keep_in_order(self, record: AuditRecord) -> _Waiting | None:
        """Write the line and queue the record; None where the queue is full."""
        self._metrics.records.labels(record.phase).inc()
        self._file.write(record)
        if len(self._queue) >= MAX_WAITING:
            self._metrics.dropped.inc()
            self._log.error("too many audit records wait for the database", record_id=record.record_id)
            return None
        return self._enqueue(record)

    def _enqueue(self, record: AuditRecord) -> _Waiting:
        waiting = _Waiting(record, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._changed()
        return waiting

    def _take_back(self, waiting: _Waiting, entry: AuditEntry, outcome: str) -> None:
        """Of an action that did not begin after all: its record goes, or where it may be stored is followed by its end."""
        if waiting.sent:
            self._keep_in_order(self._writer.record(ENDED, entry, outcome))
        else:
            self._queue.remove(waiting)
            self._changed()

    def _refusal(self, entry: AuditEntry) -> ServiceError:
        self._metrics.refused.inc()
        note_end(self._security, entry, "AUDIT_UNAVAILABLE")
        return ServiceError(ErrorReason.AUDIT_UNAVAILABLE)

    def _changed(self) -> None:
        self._metrics.waiting.set(len(self._queue))
        for event, is_so in ((self._filled, bool(self._queue)), (self._emptied, not self._queue)):
            if is_so:
                event.set()
            else:
                event.clear()

    async def _run(self) -> None:
        while True:
            try:
                connection = await postgres.connect(self._url, application_name="pincex-audit")
            except _FAILURES as error:
                self._say_away(error)
                await asyncio.sleep(RETRY_S)
                continue
            try:
                await self._store_all(connection)
            except _FAILURES as error:
                self._say_away(error)
                await asyncio.sleep(RETRY_S)
            finally:
                connection.terminate()

    async def _store_all(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        while True:
            await self._filled.wait()
            batch = list(islice(self._queue, MAX_BATCH))
            for waiting in batch:
                waiting.sent = True
            rows = await connection.fetch(
                _APPEND, *zip(*(_values(waiting.record) for waiting in batch), strict=True), timeout=APPEND_TIMEOUT_S
            )
            assert len(rows) == len(batch), "a row for each record"
            if self._away:
                self._away = False
                self._log.info("audit records are stored again", waiting=len(self._queue))
            for waiting, row in zip(batch, rows, strict=True):
                # Nobody takes back what was sent, so it is still the first.
                self._queue.popleft()
                if not waiting.stored.cancelled():
                    waiting.stored.set_result((row["stored_sequence"], row["stored_hash"]))
            self._changed()

    def _say_away(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            self._log.error("audit records cannot be stored", error=repr(error), waiting=len(self._queue))


def _values(record: AuditRecord) -> tuple[object, ...]:
    """In the order of audit_append's parameters."""
    return (
        record.record_id,
        _EPOCH + timedelta(microseconds=record.micros),
        record.phase,
        record.service,
        record.instance,
        record.action,
        record.actor,
        record.credential,
        record.address,
        record.details,
        record.reason,
        record.request_id,
        record.outcome,
    )

"""The audit trail and the security log of a process, made from its configuration."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from exchange.runtime.audit.contract import AuditTrail
from exchange.runtime.audit.files import AuditFile, FilesTrail
from exchange.runtime.audit.line_file import AUDIT_LOG, SECURITY_LOG, LineFile
from exchange.runtime.audit.metrics import AuditMetrics
from exchange.runtime.audit.postgres import PostgresTrail
from exchange.runtime.audit.records import Writer
from exchange.runtime.audit.security import FileSecurityLog
from exchange.runtime.config import RuntimeConfig


class Audit:
    """Both of them; `start` once the loop runs, `close` after the last call has ended.

    Without `database_url` (an engine in memory) records go to the file alone.
    """

    def __init__(self, config: RuntimeConfig, registry: CollectorRegistry, database_url: str | None) -> None:
        writer = Writer(config.service, config.instance)
        metrics = AuditMetrics(registry)
        self._file = AuditFile(LineFile(config.log_dir / AUDIT_LOG), metrics)
        self.security = FileSecurityLog(LineFile(config.log_dir / SECURITY_LOG), writer)
        self._stored: PostgresTrail | None = None
        self.trail: AuditTrail
        if database_url is None:
            self.trail = FilesTrail(self._file, self.security, writer, metrics)
        else:
            self.trail = self._stored = PostgresTrail(database_url, self._file, self.security, writer, metrics)

    def start(self) -> None:
        """Begin to store records."""
        if self._stored is not None:
            self._stored.start()

    async def close(self) -> None:
        """Store what waits, for a moment, and close the files."""
        if self._stored is not None:
            await self._stored.close()
        self.security.close()
        self._file.close()

"""What the audit trail counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class AuditMetrics:
    """One a process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Counter("pincex_audit_records", "Records made, by phase.", ["phase"], registry=registry)
        self.waiting = Gauge("pincex_audit_waiting", "Records that are not in the database yet.", registry=registry)
        self.dropped = Counter(
            "pincex_audit_dropped", "Records that stand in audit.log only: too many waited.", registry=registry
        )
        self.refused = Counter(
            "pincex_audit_refused", "Actions refused since the trail could not be written.", registry=registry
        )
        self.file_failures = Counter(
            "pincex_audit_file_failures", "Lines that audit.log could not take.", registry=registry
        )

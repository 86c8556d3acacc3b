"""The series of the audit trail are those of docs/METRICS.md."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

from exchange.admin.retention import Retention
from exchange.admin.watch import TrailWatch
from exchange.runtime.audit.metrics import AuditMetrics
from tests.unit.docs.tables import document, table


def test_what_is_served_is_what_is_documented() -> None:
    registry = CollectorRegistry()
    AuditMetrics(registry).records.labels("BEGUN")
    nothing: Any = None
    TrailWatch(nothing, nothing, registry, interval_s=1.0)
    Retention(nothing, registry, days=0, service="", instance="")
    served = {}
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        served[name] = (family.type, ", ".join(sorted(labels)))
    documented = {
        name.strip("`"): (kind, labels)
        for name, kind, labels, _ in table(document("docs/METRICS.md"), "audit metrics")[1:]
    }
    assert served == documented

"""The series of the auth service are those of docs/METRICS.md."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from exchange.auth.metrics import AuthMetrics
from tests.unit.docs.tables import document, table


def test_what_is_served_is_what_is_documented() -> None:
    registry = CollectorRegistry()
    AuthMetrics(registry)
    served = {}
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        # Those of a series that nothing has counted yet.
        collector = registry._names_to_collectors[name]
        served[name] = (family.type, ", ".join(collector._labelnames))  # type: ignore[attr-defined]  # every metric has it
    documented = {
        name.strip("`"): (kind, labels)
        for name, kind, labels, _ in table(document("docs/METRICS.md"), "auth metrics")[1:]
    }
    assert served == documented

"""The series of settlement are those of docs/METRICS.md."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from exchange.settlement.metrics import SettlementMetrics
from tests.unit.docs.tables import document, table


def test_what_is_served_is_what_is_documented() -> None:
    registry = CollectorRegistry()
    SettlementMetrics(registry, lambda: 7, lambda: 0.5)
    served = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in registry.collect()
    }
    documented = {
        name.strip("`"): kind for name, kind, _, _ in table(document("docs/METRICS.md"), "settlement metrics")[1:]
    }
    assert served == documented
    assert registry.get_sample_value("pincex_settlement_sequence") == 7
    assert registry.get_sample_value("pincex_settlement_lag_seconds") == 0.5

"""The series of the history are documented, and tell what is the case."""

from __future__ import annotations

from types import SimpleNamespace

from prometheus_client import CollectorRegistry

from exchange.market_data.metrics import HistoryMetrics
from tests.unit.docs.tables import document, table


def test_every_series_of_the_history_is_documented_and_tells_what_is_the_case() -> None:
    registry = CollectorRegistry()
    HistoryMetrics(registry, SimpleNamespace(sequence=7, lag_s=0.5, is_writer=True))
    families = {family.name: family for family in registry.collect()}
    rows = table(document("docs/METRICS.md"), "market history metrics")[1:]
    assert {name: family.type for name, family in families.items()} == {row[0].strip("`"): row[1] for row in rows}
    assert {name: family.samples[0].value for name, family in families.items()} == {
        "pincex_market_history_sequence": 7,
        "pincex_market_history_lag_seconds": 0.5,
        "pincex_market_history_writing": 1,
    }

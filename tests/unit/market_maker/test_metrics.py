"""The series of the market maker are those of docs/METRICS.md."""

from __future__ import annotations

from decimal import Decimal

from prometheus_client import CollectorRegistry

from exchange.market_maker.decision import QUOTING
from exchange.market_maker.metrics import MarketMakerMetrics
from exchange.market_maker.position import Position
from exchange.market_maker.store import Report
from tests.unit.docs.tables import document, table


def test_what_is_served_is_what_is_documented() -> None:
    registry = CollectorRegistry()
    metrics = MarketMakerMetrics(registry)
    report = Report("BTCUSD", QUOTING, Decimal(50_000), Decimal(49_900), Decimal(50_100), 10, Decimal("-1.5"))
    metrics.reported([report], [Position("BTCUSD", inventory=Decimal("0.2"))], QUOTING)
    served = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in registry.collect()
    }
    documented = {
        name.strip("`"): kind for name, kind, _, _ in table(document("docs/METRICS.md"), "market maker metrics")[1:]
    }
    assert served == documented
    of_market = {"symbol": "BTCUSD"}
    assert registry.get_sample_value("pincex_market_maker_quoting", of_market) == 1
    assert registry.get_sample_value("pincex_market_maker_inventory", of_market) == 0.2
    assert registry.get_sample_value("pincex_market_maker_profit_today", of_market) == -1.5

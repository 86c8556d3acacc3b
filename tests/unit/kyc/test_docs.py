"""docs/KYC.md and docs/METRICS.md say what the code does."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from exchange.kyc.metrics import KycMetrics
from exchange.kyc.tiers import DEFAULTS
from tests.unit.docs.tables import document, table


def test_the_table_of_tiers_is_the_default() -> None:
    rows = table(document("docs/KYC.md"), "kyc tiers")[1:]
    said = [(row[0], row[2], row[3], row[4]) for row in rows]
    assert said == [
        (
            str(one.tier),
            ", ".join(f"{amount:f} {asset}" for asset, amount in one.daily.items()) or "none",
            one.trading_tier,
            f"{one.valid_days} days" if one.valid_days else "",
        )
        for one in DEFAULTS
    ]


def test_every_series_is_documented_and_no_other() -> None:
    registry = CollectorRegistry()
    KycMetrics(registry)
    documented = {name.strip("`"): kind for name, kind, _, _ in table(document("docs/METRICS.md"), "kyc metrics")[1:]}
    found = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in registry.collect()
    }
    assert found == documented

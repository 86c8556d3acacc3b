"""The series of the wallet are those of docs/METRICS.md."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from exchange.wallet.metrics import WalletMetrics
from exchange.wallet.withdrawal_metrics import WithdrawalMetrics
from exchange.wallet.worker import State, Worker
from tests.unit.docs.tables import document, table


def test_what_is_served_is_what_is_documented() -> None:
    registry = CollectorRegistry()
    worker = Worker("postgresql://nowhere", "under-test", [])
    WalletMetrics(registry).watch(worker)
    WithdrawalMetrics(registry)
    served = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in registry.collect()
    }
    rows = table(document("docs/METRICS.md"), "wallet metrics")[1:]
    assert served == {name.strip("`"): kind for name, kind, _, _ in rows}
    assert registry.get_sample_value("pincex_wallet_driving") == 0
    worker.state = State.RUNNING
    assert registry.get_sample_value("pincex_wallet_driving") == 1

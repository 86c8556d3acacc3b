"""What Prometheus sees of settlement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class SettlementMetrics:
    """Progress, lag, batches and comparisons of one instance."""

    def __init__(self, registry: CollectorRegistry, sequence: Callable[[], int], lag: Callable[[], float]) -> None:
        settled = Gauge(
            "pincex_settlement_sequence", "Engine sequence up to which the ledger is written", registry=registry
        )
        settled.set_function(lambda: float(sequence()))
        behind = Gauge(
            "pincex_settlement_lag_seconds", "Age of the oldest event that is not settled", registry=registry
        )
        behind.set_function(lag)
        self.trades = Counter("pincex_settlement_trades_total", "Trades settled by this instance", registry=registry)
        self.postings = Counter("pincex_settlement_postings_total", "Lines written to the ledger", registry=registry)
        self.write_seconds = Histogram(
            "pincex_settlement_write_seconds", "Time of a transaction", registry=registry, buckets=_SECONDS
        )
        self.restarts = Counter(
            "pincex_settlement_restarts_total", "Times that the books were read anew", registry=registry
        )
        self.breaks = Counter(
            "pincex_settlement_breaks", "Things that did not agree in comparisons with the engine", registry=registry
        )
        self.open_incidents = Gauge(
            "pincex_settlement_open_incidents", "Breaks on record that nobody has resolved", registry=registry
        )
        self.reconciled_time = Gauge(
            "pincex_settlement_reconciled_timestamp_seconds",
            "When engine and ledger were last found to agree",
            registry=registry,
        )

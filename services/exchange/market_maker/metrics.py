"""What Prometheus sees of the market maker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import CollectorRegistry

    from exchange.market_maker.position import Position
    from exchange.market_maker.store import Report

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class MarketMakerMetrics:
    """Of one instance; what is said by market is said by the one that quotes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.leading = Gauge("pincex_market_maker_leading", "1 while this instance quotes", registry=registry)
        self.quoting = Gauge(
            "pincex_market_maker_quoting", "1 while quotes stand in the market", ["symbol"], registry=registry
        )
        self.open_orders = Gauge("pincex_market_maker_open_orders", "Orders on the book", ["symbol"], registry=registry)
        self.inventory = Gauge(
            "pincex_market_maker_inventory", "Base asset beyond what it began with", ["symbol"], registry=registry
        )
        self.profit = Gauge(
            "pincex_market_maker_profit_today", "Of the day, in the quote asset", ["symbol"], registry=registry
        )
        self.placed = Counter("pincex_market_maker_orders_placed_total", "Orders placed", registry=registry)
        self.cancelled = Counter("pincex_market_maker_orders_cancelled_total", "Orders taken back", registry=registry)
        self.refused = Counter(
            "pincex_market_maker_refusals_total", "Orders that the exchange refused", ["reason"], registry=registry
        )
        self.failures = Counter(
            "pincex_market_maker_failures_total", "Rounds that ended without an outcome", registry=registry
        )
        self.round_seconds = Histogram(
            "pincex_market_maker_round_seconds",
            "From looking at the exchange to all changes made",
            registry=registry,
            buckets=_SECONDS,
        )

    def reported(self, reports: Iterable[Report], positions: Iterable[Position], quoting: str) -> None:
        """Show what is reported; `quoting` is the state in which quotes stand."""
        for report in reports:
            self.quoting.labels(report.symbol).set(report.state == quoting)
            self.open_orders.labels(report.symbol).set(report.open_orders)
            self.profit.labels(report.symbol).set(float(report.profit_today))
        for position in positions:
            self.inventory.labels(position.symbol).set(float(position.inventory))

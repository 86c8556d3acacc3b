"""What the trading engine counts and measures, beside what every gRPC server does."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exchange.runtime.metrics import LATENCY_BUCKETS
from exchange.trading.sequencer import Sequencer


class EngineMetrics(Collector):
    """The journal's latency and sizes as they happen; the state of queue, books and streams when scraped."""

    def __init__(self, registry: CollectorRegistry, leader: Callable[[], Sequencer | None]) -> None:
        self._leader = leader
        self.append = Histogram(
            "journal_commit_latency_seconds",
            "From a frame sealed to its commit known.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.commands = Counter("journal_commands", "Commands that became durable.", registry=registry)
        self.frames = Counter("journal_frames", "Frames that became durable.", registry=registry)
        self.restarts = Counter("engine_leaderships", "Times this instance began to lead.", registry=registry)
        self.snapshot_failures = Counter("snapshot_failures", "Snapshots that could not be made.", registry=registry)
        registry.register(self)

    def appended(self, seconds: float, commands: int) -> None:
        """Count a durable frame."""
        self.append.observe(seconds)
        self.commands.inc(commands)
        self.frames.inc()

    def collect(self) -> Iterable[Metric]:
        """Gauges of the moment."""
        leader = self._leader()
        leading = GaugeMetricFamily("engine_leading", "1 while this instance leads.")
        leading.add_metric([], 1.0 if leader is not None else 0.0)
        yield leading
        if leader is None:
            return
        depth = GaugeMetricFamily("order_queue_depth", "Commands that have arrived and are not durable yet.")
        depth.add_metric([], leader.queue_depth)
        yield depth
        sequence = GaugeMetricFamily("engine_sequence", "The newest durable sequence.")
        sequence.add_metric([], leader.committed_sequence)
        yield sequence
        orders = GaugeMetricFamily("book_orders", "Open orders resting on a book.", labels=["symbol", "side"])
        levels = GaugeMetricFamily("book_depth_levels", "Prices with resting orders.", labels=["symbol", "side"])
        for market in leader.engine.state.markets:
            for name, side in (("buy", market.bids), ("sell", market.asks)):
                orders.add_metric([market.symbol, name], side.orders)
                levels.add_metric([market.symbol, name], len(side.keys))
        yield orders
        yield levels

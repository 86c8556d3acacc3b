"""What the trading engine counts and measures, beside what every gRPC server does."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exchange.runtime.metrics import LATENCY_BUCKETS
from exchange.trading.seat import Seat
from exchange.trading.sequencer import Sequencer


class EngineMetrics(Collector):
    """The journal's latency and sizes as they happen; the state of queue, books and streams when scraped."""

    def __init__(self, registry: CollectorRegistry, seat: Callable[[], Seat | None]) -> None:
        self._seat = seat
        self.append = Histogram(
            "journal_commit_latency_seconds",
            "From a frame sealed to its commit known.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.commands = Counter("journal_commands", "Commands that became durable.", registry=registry)
        self.frames = Counter("journal_frames", "Frames that became durable.", registry=registry)
        self.leaderships = Counter("engine_leaderships", "Times this instance began to lead.", registry=registry)
        self.snapshot_failures = Counter("snapshot_failures", "Snapshots that could not be made.", registry=registry)
        registry.register(self)

    def appended(self, seconds: float, commands: int) -> None:
        """Count a durable frame."""
        self.append.observe(seconds)
        self.commands.inc(commands)
        self.frames.inc()

    def collect(self) -> Iterable[Metric]:
        """Gauges of the moment."""
        seat = self._seat()
        leading = GaugeMetricFamily("engine_leading", "1 while this instance leads.")
        leading.add_metric([], 1.0 if isinstance(seat, Sequencer) else 0.0)
        yield leading
        if seat is None:
            return
        epoch = GaugeMetricFamily("engine_epoch", "Epoch of the leader as known here, 0 while none is.")
        epoch.add_metric([], seat.epoch)
        yield epoch
        depth = GaugeMetricFamily("order_queue_depth", "Commands that have arrived and are not durable yet.")
        depth.add_metric([], seat.queue_depth)
        yield depth
        sequence = GaugeMetricFamily("engine_sequence", "The newest durable sequence that is applied here.")
        sequence.add_metric([], seat.committed_sequence)
        yield sequence
        orders = GaugeMetricFamily("book_orders", "Open orders resting on a book.", labels=["symbol", "side"])
        levels = GaugeMetricFamily("book_depth_levels", "Prices with resting orders.", labels=["symbol", "side"])
        for market in seat.engine.state.markets:
            for name, side in (("buy", market.bids), ("sell", market.asks)):
                orders.add_metric([market.symbol, name], side.orders)
                levels.add_metric([market.symbol, name], len(side.keys))
        yield orders
        yield levels

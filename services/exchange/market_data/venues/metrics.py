"""What Prometheus sees of the feeds: read from them when it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from exchange.market_data.venues.feed import State

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from exchange.market_data.venues.board import Board
    from exchange.market_data.venues.shared import FeedView
    from exchange.runtime.clock import Clock

_COUNTERS: Final = {
    "pincex_feed_messages": ("Messages of a venue", "messages"),
    "pincex_feed_reconnects": ("Connections to a venue after the first", "reconnects"),
    "pincex_feed_gaps": ("Sequences of a venue that were missing", "gaps"),
    "pincex_feed_mismatches": ("Books that were not as their venue said", "mismatches"),
}
_QUANTILES: Final = {"0.5": "p50_ms", "0.99": "p99_ms"}


class VenueMetrics(Collector):
    """Of the instance that runs the feeds; another has no lines of them."""

    def __init__(
        self,
        registry: CollectorRegistry,
        feeds: Callable[[], list[FeedView]],
        board: Board,
        clock: Clock,
        refused: Callable[[], int],
    ) -> None:
        self._feeds = feeds
        self._board = board
        self._clock = clock
        self._refused = refused
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Counters by feed, and for each market how many venues count for its reference price."""
        feeds = self._feeds()
        live = GaugeMetricFamily("pincex_feed_live", "Whether a venue's books are whole", labels=["feed"])
        latency = GaugeMetricFamily(
            "pincex_feed_latency_seconds",
            "From the venue's time to ours over the last minute",
            labels=["feed", "quantile"],
        )
        for feed in feeds:
            live.add_metric([feed.name], float(feed.state == State.LIVE.value))
            for quantile, field in _QUANTILES.items():
                value = getattr(feed, field)
                if value is not None:
                    latency.add_metric([feed.name, quantile], value / 1e3)
        yield live
        yield latency
        for name, (what, field) in _COUNTERS.items():
            counter = CounterMetricFamily(name, what, labels=["feed"])
            for feed in feeds:
                counter.add_metric([feed.name], getattr(feed, field))
            yield counter
        yield CounterMetricFamily(
            "pincex_feed_ticks_refused", "What stood on market_data_queue and was no tick", value=self._refused()
        )
        venues = GaugeMetricFamily(
            "pincex_reference_price_venues", "Venues that count for the reference price", labels=["symbol"]
        )
        if feeds:
            now_ns = self._clock.time_ns()
            for symbol in self._board.markets:
                venues.add_metric([symbol], self._board.compare(symbol, now_ns).venue_count)
        yield venues

"""What Prometheus sees of market data's books and streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import CollectorRegistry, Metric

    from exchange.market_data.books import Books
    from exchange.market_data.follower import Follower


class History(Protocol):
    """How far candles and tickers are."""

    is_writer: bool

    @property
    def sequence(self) -> int:
        """What is published."""
        ...

    @property
    def lag_s(self) -> float:
        """How old that is, while there are newer events."""
        ...


class Streams(Protocol):
    """What is counted of streams, by kind."""

    @property
    def messages(self) -> Mapping[str, int]:
        """Messages that were made: each once, however many got it."""
        ...

    @property
    def slow_closed(self) -> Mapping[str, int]:
        """Streams closed because their client read too slowly."""
        ...

    def subscribers(self) -> Mapping[str, int]:
        """Streams that are open."""
        ...


class MarketDataMetrics(Collector):
    """Read whenever it is asked for: nothing is counted twice."""

    def __init__(self, registry: CollectorRegistry, follower: Follower, books: Books, streams: Streams) -> None:
        self._follower = follower
        self._books = books
        self._streams = streams
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """All series."""
        follower, books, streams = self._follower, self._books, self._streams
        behind = follower.head_sequence - follower.sequence
        yield _gauge("pincex_market_data_sequence", "Engine sequence that the books have", follower.sequence)
        yield _gauge("pincex_market_data_lag_sequences", "Durable sequences that the books lack", behind)
        yield _gauge(
            "pincex_market_data_lag_seconds",
            "Time since the books had all that was known to be durable",
            follower.lag_s,
        )
        yield _counter("pincex_market_data_restarts", "Times that books began with a snapshot", follower.restarts)
        yield _counter("pincex_market_data_books_verified", "Books compared with the engine's hash", books.verified)
        yield _counter("pincex_market_data_books_differed", "Books that were not the engine's", books.differed)
        subscribers = GaugeMetricFamily("pincex_market_data_subscribers", "Streams that are open", labels=["kind"])
        for kind, count in streams.subscribers().items():
            subscribers.add_metric([kind], count)
        yield subscribers
        for name, text, counts in (
            ("pincex_market_data_messages", "Messages made, each once for all its readers", streams.messages),
            ("pincex_market_data_slow_closed", "Streams closed because of a slow reader", streams.slow_closed),
        ):
            family = CounterMetricFamily(name, text, labels=["kind"])
            for kind, count in list(counts.items()):
                family.add_metric([kind], count)
            yield family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


class HistoryMetrics(Collector):
    """As MarketDataMetrics, of candles and tickers."""

    def __init__(self, registry: CollectorRegistry, history: History) -> None:
        self._history = history
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """All series."""
        history = self._history
        yield _gauge(
            "pincex_market_history_sequence", "Engine sequence that candles and tickers have", history.sequence
        )
        yield _gauge("pincex_market_history_lag_seconds", "Age of the last event taken", history.lag_s)
        yield _gauge("pincex_market_history_writing", "1 while this instance writes the candles", history.is_writer)

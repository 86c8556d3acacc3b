"""What Prometheus sees of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import CollectorRegistry, Metric

    from exchange.websocket.server import WebSocketServer


class WebSocketMetrics(Collector):
    """Reads the server's counts when it is asked: a message costs no call of the metrics library."""

    def __init__(self, registry: CollectorRegistry, server: WebSocketServer, streams: Callable[[], int]) -> None:
        """`streams` says how many streams of the exchange are open."""
        self._server = server
        self._streams = streams
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """All series."""
        server, counts = self._server, self._server.counts
        yield _gauge("connections", "Clients that are connected", len(server.clients))
        known = sum(bool(client.session.account) for client in server.clients.values())
        yield _gauge("authenticated_connections", "Clients that are connected and have logged in", known)
        yield _gauge("upstream_streams", "Streams of the exchange that are open", self._streams())
        yield _gauge("queue_high_water", "Longest queue of one client since the last scrape", counts.take_high_water())
        subscriptions = GaugeMetricFamily(
            "pincex_websocket_subscriptions", "Subscriptions by channel", labels=["channel"]
        )
        for channel, count in server.subscriptions.items():
            subscriptions.add_metric([channel], count)
        yield subscriptions
        yield _counter("messages_in", "Messages of clients", counts.messages_in)
        yield _counter("messages_out", "Messages to clients", counts.messages_out)
        yield _counter("bytes_out", "Bytes of the messages to clients, as framed and compressed", counts.bytes_out)
        yield _counter("conflated", "Messages that slow clients got no more, because newer ones came", counts.conflated)
        yield _counter("snapshots", "Snapshots that were made for who joined a channel", counts.snapshots)
        for name, text, label, found in (
            ("closed", "Connections that ended, by why", "why", counts.closed),
            ("refused", "Requests and handshakes that were refused, by reason", "reason", counts.refused),
            (
                "interrupted",
                "Streams of the exchange that could not be opened again at once",
                "channel",
                counts.interrupted,
            ),
        ):
            family = CounterMetricFamily(f"pincex_websocket_{name}", text, labels=[label])
            for value, count in found.items():
                family.add_metric([value], count)
            yield family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"pincex_websocket_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"pincex_websocket_{name}", text, value=value)

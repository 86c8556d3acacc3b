"""Prometheus metrics: one registry a process, buckets for latencies, and what every gRPC method counts.

The names are a contract with dashboards and alerts: `docs/METRICS.md` lists them, and a test compares.
"""

from typing import Final

import grpc
import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

# Seconds, 50 us to 10 s: the order path lives below 10 ms, a fail-over takes seconds.
LATENCY_BUCKETS: Final = (
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)

_UNKNOWN: Final = "unknown"


def new_registry(*, service: str, instance: str, version: str = "") -> CollectorRegistry:
    """Return a registry with the process's, the interpreter's and the garbage collector's own metrics.

    `pincex_build_info{service,instance,version}` is 1. Call it once a process.
    """
    # A `_created` series beside each counter and histogram would double what is scraped.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no hints
    registry = CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.PlatformCollector(registry=registry)
    prometheus_client.GCCollector(registry=registry)
    build = Gauge(
        "pincex_build_info",
        "Which service, instance and version this is.",
        ["service", "instance", "version"],
        registry=registry,
    )
    build.labels(service, instance, version).set(1)
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """Return the registry in Prometheus' text format, of content type `CONTENT_TYPE`."""
    return generate_latest(registry)


class GrpcMetrics:
    """What each gRPC method counts. One for a process: its servers share it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "grpc_requests",
            "Calls that ended, by status code; streams count when they end.",
            ["service", "method", "code"],
            registry=registry,
        )
        self.duration = Histogram(
            "grpc_request_duration_seconds",
            "From the first byte of the request read to the response made; calls without streams only.",
            ["service", "method"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.streams = Gauge(
            "grpc_streams_open", "Streams that are open now.", ["service", "method"], registry=registry
        )

    def of(self, service: str, method: str) -> "MethodMetrics":
        """Return the metrics of one method, its labels bound."""
        return MethodMetrics(self, service, method)

    def unknown_method(self) -> None:
        """Count a call of a method that is not served; its name would let callers make series at will."""
        self.requests.labels(_UNKNOWN, _UNKNOWN, grpc.StatusCode.UNIMPLEMENTED.name).inc()


class MethodMetrics:
    """One method's metrics with their labels bound: a call costs an increment and an observation."""

    __slots__ = ("_by_code", "_method", "_requests", "_service", "observe", "ok", "streams")

    def __init__(self, metrics: GrpcMetrics, service: str, method: str) -> None:
        self._requests = metrics.requests
        self._service = service
        self._method = method
        self.observe = metrics.duration.labels(service, method).observe
        self.streams = metrics.streams.labels(service, method)
        self._by_code: dict[grpc.StatusCode, Counter] = {}
        self.ok = self._of(grpc.StatusCode.OK).inc

    def ended(self, code: grpc.StatusCode) -> None:
        """Count a call that ended with `code`."""
        self._of(code).inc()

    def _of(self, code: grpc.StatusCode) -> Counter:
        child = self._by_code.get(code)
        if child is None:
            child = self._requests.labels(self._service, self._method, code.name)
            self._by_code[code] = child
        return child

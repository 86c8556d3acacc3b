"""Metrics: their names are what docs/METRICS.md says, and counting is right."""

import re
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from exchange.runtime.gc_schedule import GcSchedule
from exchange.runtime.metrics import LATENCY_BUCKETS, GrpcMetrics, new_registry, render


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = new_registry(service="s", instance="i", version="v")
    method = GrpcMetrics(registry).of("S", "M")
    method.ok()
    method.observe(0.001)
    method.streams.inc()
    GcSchedule(is_quiet=lambda: True, registry=registry)
    return registry


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    text = (Path(__file__).parents[3] / "docs/METRICS.md").read_text(encoding="utf-8")
    section = text[text.index("<!-- test: runtime -->") : text.index("<!-- end -->")]
    return {
        name: (kind, tuple(sorted(filter(None, labels.replace(" ", "").split(",")))))
        for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", section, re.MULTILINE)
    }


def test_what_is_served_is_what_is_documented(registry):
    served = {}
    for family in text_string_to_metric_families(render(registry).decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        served[name] = (family.type, tuple(sorted(labels)))
    assert served == documented()


def test_no_series_tells_when_it_was_made(registry):
    assert b"_created" not in render(registry)


def test_buckets_run_from_50_us_to_10_s():
    assert (LATENCY_BUCKETS[0], LATENCY_BUCKETS[-1]) == (0.00005, 10.0)
    assert list(LATENCY_BUCKETS) == sorted(LATENCY_BUCKETS)


def test_a_call_is_counted_under_its_code_and_bucket():
    registry = CollectorRegistry()
    metrics = GrpcMetrics(registry)
    method = metrics.of("S", "M")
    method.ok()
    method.ended(grpc.StatusCode.OK)
    method.ended(grpc.StatusCode.NOT_FOUND)
    method.observe(0.0003)
    metrics.unknown_method()

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"service": "S", "method": "M", **labels})

    assert value("grpc_requests_total", code="OK") == 2
    assert value("grpc_requests_total", code="NOT_FOUND") == 1
    assert value("grpc_request_duration_seconds_bucket", le="0.00025") == 0
    assert value("grpc_request_duration_seconds_bucket", le="0.0005") == 1
    assert registry.get_sample_value(
        "grpc_requests_total", {"service": "unknown", "method": "unknown", "code": "UNIMPLEMENTED"}
    )

"""Prometheus texts of several instances become one that a scraper can read."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from exchange.runtime.exposition import merged
from exchange.runtime.metrics import new_registry, render


def text_of(instance: str, orders: int) -> str:
    registry = new_registry(service="s", instance=instance, version="v")
    Counter("orders", "Orders.", ["side"], registry=registry).labels("buy").inc(orders)
    Histogram("latency_seconds", "Latency.", buckets=(0.1, 1.0), registry=registry).observe(0.5)
    return render(registry).decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels; fails where one stands twice."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, key
            found[key] = sample.value
    return found


def test_every_sample_of_every_instance_is_there_with_its_instance() -> None:
    texts = {"engine-1": text_of("engine-1", 3), "engine-2": text_of("engine-2", 5)}

    together = samples(merged(texts))

    for instance, text in texts.items():
        for (name, labels), value in samples(text).items():
            assert together[name, tuple(sorted({**dict(labels), "instance": instance}.items()))] == value
    assert len(together) == sum(len(samples(text)) for text in texts.values())


def test_a_family_stands_together_under_one_head() -> None:
    together = merged({name: text_of(name, 1) for name in ("engine-1", "engine-2", "engine-3")})

    names = [family.name for family in text_string_to_metric_families(together)]
    assert len(names) == len(set(names))
    heads = [line for line in together.splitlines() if line.startswith("# TYPE latency_seconds ")]
    assert heads == ["# TYPE latency_seconds histogram"]
    of_latency = [index for index, line in enumerate(together.splitlines()) if line.startswith("latency_seconds")]
    assert of_latency == list(range(of_latency[0], of_latency[0] + len(of_latency)))


def test_a_family_that_only_one_instance_has_is_kept() -> None:
    newer = "# HELP newer_total New.\n# TYPE newer_total counter\nnewer_total 2.0\n"

    together = merged({"old": "# TYPE x gauge\nx 1.0\n", "new": newer})

    assert samples(together)["newer_total", (("instance", "new"),)] == 2.0


def test_labels_of_any_content_survive() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("odd", "Odd.", ["db_instance", "text"], registry=registry)
    gauge.labels("primary", 'a{b} "c", instance="d"\\\n').set(1)

    together = samples(merged({'weird "name"\\': render(registry).decode()}))

    labels = {"db_instance": "primary", "text": 'a{b} "c", instance="d"\\\n', "instance": 'weird "name"\\'}
    assert together == {("odd", tuple(sorted(labels.items()))): 1.0}


def test_an_instance_that_says_nothing_adds_nothing() -> None:
    text = "# TYPE x gauge\nx 1.0\n"

    assert merged({"one": text, "two": ""}) == merged({"one": text})

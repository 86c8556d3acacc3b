"""The engine's own series are those of docs/METRICS.md, and the text of all instances holds each one's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from exchange.runtime.http_server import LOOPBACK, HttpServer, Readiness, status_routes
from exchange.trading import fleet_metrics
from exchange.trading.engine_metrics import EngineMetrics
from exchange.trading.fleet_metrics import FleetMetrics
from exchange.trading.replication.messages import FOLLOWER, ReplicaInfo
from tests.unit.docs.tables import document, table
from tests.unit.trading.sequencer_rig import Rig

METRICS = document("docs/METRICS.md")


async def test_what_is_served_is_what_is_documented() -> None:
    one = await Rig().start()
    registry = CollectorRegistry()
    EngineMetrics(registry, lambda: one.sequencer)
    served = {}
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        served[name] = (family.type, ", ".join(sorted(labels, reverse=True)))

    documented = {name.strip("`"): (kind, labels) for name, kind, labels, _ in table(METRICS, "engine metrics")[1:]}
    assert served == documented
    one.sequencer.stop()


@asynccontextmanager
async def instance(name: str, value: float) -> AsyncIterator[ReplicaInfo]:
    """Another instance as far as its metrics go."""
    registry = CollectorRegistry()
    Gauge("engine_sequence", "The newest.", registry=registry).set(value)
    server = HttpServer(status_routes(registry, ready=lambda: Readiness(ready=True)))
    await server.start()
    try:
        yield known(name, server.port)
    finally:
        await server.stop()


def known(name: str, port: int) -> ReplicaInfo:
    return ReplicaInfo(name, FOLLOWER, "", f"http://{LOOPBACK}:{port}/metrics", "v", "pure", 1)


def fleet(*others: ReplicaInfo) -> FleetMetrics:
    registry = CollectorRegistry()
    Gauge("engine_sequence", "The newest.", registry=registry).set(7)
    return FleetMetrics("engine-1", registry, "", lambda: list(others))


async def values(metrics: FleetMetrics, name: str) -> dict[str, float]:
    """The values of a series by instance."""
    text = (await metrics.text()).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {sample.labels["instance"]: sample.value for sample in families[name].samples}


async def test_one_text_has_the_series_of_all_instances() -> None:
    async with instance("engine-2", 8) as second, instance("engine-3", 9) as third:
        metrics = fleet(second, third)

        assert await values(metrics, "engine_sequence") == {"engine-1": 7, "engine-2": 8, "engine-3": 9}
        assert await values(metrics, "engine_answering") == {"engine-1": 1, "engine-2": 1, "engine-3": 1}


async def test_an_instance_that_hangs_fails_or_is_gone_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_metrics, "FETCH_TIMEOUT_S", 0.2)
    released = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        await released.wait()
        return web.Response(text="engine_sequence 1\n")

    async def fail(_request: web.Request) -> web.Response:
        return web.Response(status=500, text="a page that is no metrics")

    hanging = HttpServer({("GET", "/metrics"): hang})
    failing = HttpServer({("GET", "/metrics"): fail})
    gone = HttpServer({})
    for server in (hanging, failing, gone):
        await server.start()
    await gone.stop()
    try:
        metrics = fleet(known("hanging", hanging.port), known("failing", failing.port), known("gone", gone.port))

        assert await values(metrics, "engine_sequence") == {"engine-1": 7}
        expected = {"engine-1": 1, "hanging": 0, "failing": 0, "gone": 0}
        assert await values(metrics, "engine_answering") == expected
    finally:
        released.set()
        for server in (hanging, failing):
            await server.stop()

"""Metrics and probes over HTTP."""

import aiohttp
import pytest

from exchange.runtime.http_server import HttpServer, Readiness, status_routes
from exchange.runtime.metrics import new_registry


async def test_metrics_live_and_ready_answer():
    state = {"ready": Readiness(ready=False, why="the journal is away"), "live": Readiness(ready=True)}
    registry = new_registry(service="trading-engine", instance="trading-engine-0", version="1.2.3")
    server = HttpServer(status_routes(registry, ready=lambda: state["ready"], live=lambda: state["live"]))
    port = await server.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        metrics = await session.get("/metrics")
        assert metrics.headers["Content-Type"].startswith("text/plain; version=")
        text = await metrics.text()
        assert 'pincex_build_info{instance="trading-engine-0",service="trading-engine",version="1.2.3"} 1.0' in text
        assert "process_resident_memory_bytes" in text

        assert (await session.get("/livez")).status == 200
        unready = await session.get("/readyz")
        assert (unready.status, await unready.text()) == (503, "the journal is away\n")
        state["ready"] = Readiness(ready=True)
        ready = await session.get("/readyz")
        assert (ready.status, await ready.text()) == (200, "ok\n")
        assert (await session.get("/elsewhere")).status == 404
        assert (await session.post("/metrics")).status == 405
    await server.stop()


async def test_without_a_live_check_the_process_lives_as_long_as_it_answers():
    registry = new_registry(service="s", instance="i")
    server = HttpServer(status_routes(registry, ready=lambda: Readiness(ready=True)))
    port = await server.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        assert (await session.get("/livez")).status == 200
    with pytest.raises(OSError, match=str(port)):
        await HttpServer({}, port=port).start()
    await server.stop()

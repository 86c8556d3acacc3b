"""The debug port, read by the tool that operators use."""

import asyncio
import gc
import gzip
import os
import re
import shutil
import subprocess
import tempfile
import tracemalloc
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from exchange.runtime.config import Environment, RuntimeConfig
from exchange.runtime.debug import debug_routes, start_debug_server, start_tracing
from exchange.runtime.http_server import HttpServer
from exchange.runtime.pprof import MemorySample, encode_heap_profile

GO = shutil.which("go")
needs_go = pytest.mark.skipif(GO is None, reason="go is not installed: the profile cannot be read by go tool pprof")


@pytest.fixture(autouse=True)
def tracing_stops() -> Iterator[None]:
    yield
    tracemalloc.stop()


@pytest.fixture
async def debug() -> Any:
    server = HttpServer(debug_routes(frames=4))
    await server.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
        yield session
    await server.stop()


# Go builds its pprof when it is first asked for: a minute on a busy machine.
_GO_TIMEOUT_S = 240
pytestmark = pytest.mark.timeout(300)


async def pprof(*arguments: str) -> str:
    assert GO is not None
    process = await asyncio.create_subprocess_exec(
        GO,
        "tool",
        "pprof",
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PPROF_TMPDIR": tempfile.gettempdir()},
    )
    async with asyncio.timeout(_GO_TIMEOUT_S):
        out, _ = await process.communicate()
    text = out.decode()
    assert process.returncode == 0, text
    return text


@needs_go
async def test_go_tool_pprof_shows_the_line_that_holds_the_memory(debug):
    (await debug.get("/debug/pprof/heap")).raise_for_status()
    held = [bytes(100_000) for _ in range(100)]
    text = await pprof("-top", "-unit=MB", str(debug._base_url / "debug/pprof/heap"))
    assert len(held) == 100
    assert "Type: inuse_space" in text
    top = re.search(r"([0-9.]+)MB .* unit/runtime/test_debug.py:\d+", text)
    assert top is not None, text
    assert 9 < float(top.group(1)) < 11


@needs_go
async def test_the_first_answer_is_a_profile_too_and_says_that_it_starts_the_tracing(debug, tmp_path):
    assert not tracemalloc.is_tracing()
    response = await debug.get("/debug/pprof/heap")
    file = tmp_path / "heap.pb.gz"
    file.write_bytes(await response.read())
    assert tracemalloc.is_tracing()
    assert "was started by this request" in response.headers["X-PinCEX-Note"]
    assert "(not traced)" in await pprof("-top", str(file))
    assert "was started by this request" in await pprof("-comments", str(file))
    again = await debug.get("/debug/pprof/heap")
    assert "tracemalloc runs" in again.headers["X-PinCEX-Note"]


@needs_go
async def test_stacks_totals_and_odd_names_survive_the_encoding(tmp_path):
    samples = [
        MemorySample([("/a/b/inner.py", 7), ("/a/b/outer.py", 300)], 3, 2**40),
        MemorySample([("<frozen ünïcode>", 1)], 1, 2**20),
    ]
    file = tmp_path / "heap.pb.gz"
    file.write_bytes(encode_heap_profile(samples, time_ns=1_700_000_000_000_000_000))
    text = await pprof("-top", "-cum", "-unit=MB", "-nodefraction=0", str(file))
    assert "Time: 2023-11-14" in text
    assert re.search(r"1048576MB .* a/b/inner.py:7", text), text
    assert re.search(r" 0 .*1048576MB .* a/b/outer.py:300", text), text
    assert "[frozen ünïcode]:1" in text


def test_an_empty_profile_is_a_profile():
    assert gzip.decompress(encode_heap_profile([], time_ns=1))


async def test_tracing_is_stopped_on_request(debug):
    (await debug.get("/debug/pprof/heap")).raise_for_status()
    assert await (await debug.delete("/debug/pprof/heap")).json() == {"stopped": True}
    assert not tracemalloc.is_tracing()
    assert await (await debug.delete("/debug/pprof/heap")).json() == {"stopped": False}


async def test_the_loop_goes_on_while_the_profile_is_made(debug):
    """Turns of the loop happen between the request and its answer: the work is not done on it."""
    tracemalloc.start(4)
    held = [str(number) * 3 for number in range(5_000)]
    turns = 0
    request = asyncio.create_task(debug.get("/debug/pprof/heap"))
    while not request.done():
        await asyncio.sleep(0)
        turns += 1
    (await request).raise_for_status()
    assert len(held) == 5_000
    assert turns > 20


class Cycle:
    def __init__(self) -> None:
        self.me = self


async def test_gc_tells_its_statistics_and_collects_on_request(debug):
    gc.disable()
    try:
        for _ in range(100):
            Cycle()
        before = await (await debug.get("/debug/pprof/gc")).json()
        collected = await (await debug.post("/debug/pprof/gc")).json()
    finally:
        gc.enable()
    assert [set(generation) for generation in before["generations"]] == [
        {"collections", "collected", "uncollectable"}
    ] * 3
    assert collected["collected"] >= 100
    assert collected["pause_ms"] > 0
    assert collected["generations"][2]["collections"] > before["generations"][2]["collections"]


async def test_the_port_comes_from_the_environment_and_may_be_absent(tmp_path, free_port):
    def config(**values: str) -> RuntimeConfig:
        return RuntimeConfig.read(Environment(values), "trading-engine")

    assert await start_debug_server(config()) is None
    port = free_port()
    server = await start_debug_server(config(PINCEX_DEBUG_PORT=str(port), PINCEX_TRACEMALLOC_FRAMES="2"))
    assert server is not None
    assert server.port == port
    assert tracemalloc.get_traceback_limit() == 2
    await server.stop()


def test_tracing_from_the_start_is_off_by_default():
    start_tracing(0)
    assert not tracemalloc.is_tracing()

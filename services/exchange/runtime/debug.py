"""The debug port: what holds the memory, and the garbage collector, of a running service.

`GET /debug/pprof/heap` is a pprof profile (`go tool pprof -top http://localhost:6060/debug/pprof/heap`). Python keeps
no record of allocations unless tracemalloc runs, and that makes allocating two to three times as slow and memory half
as big again; so it starts with the first such request, or at process start with PINCEX_TRACEMALLOC_FRAMES=n, and
`DELETE /debug/pprof/heap` ends it. Memory from before the start shows as "(not traced)".
`GET /debug/pprof/gc` tells the collector's counts, `POST` makes it collect now: the process stands still meanwhile,
for about 0.3 s per million objects that are not frozen.

The profile is made in a thread. Copying the traces themselves holds the interpreter's lock (some 0.5 s per million
blocks), the rest of the work shares it.
"""

import asyncio
import gc
import os
import time
import tracemalloc
from pathlib import Path
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from exchange.runtime.config import RuntimeConfig
from exchange.runtime.http_server import LOOPBACK, Handler, HttpServer
from exchange.runtime.pprof import encode_heap_profile, samples_of

_DEFAULT_FRAMES: Final = 8
_STARTED: Final = (
    "tracemalloc was started by this request: memory that was allocated before shows as (not traced). Ask again "
    "later; PINCEX_TRACEMALLOC_FRAMES=8 starts it with the process, DELETE of this path stops it."
)
_RUNNING: Final = "tracemalloc runs and makes allocations slower; DELETE of this path stops it."


def start_tracing(frames: int) -> None:
    """Start tracemalloc with stacks of `frames` frames; for process start, before much is imported. 0 does nothing."""
    if frames > 0 and not tracemalloc.is_tracing():
        tracemalloc.start(frames)


def debug_routes(*, frames: int = _DEFAULT_FRAMES) -> dict[tuple[str, str], Handler]:
    """Return the handlers of /debug/pprof/heap and /debug/pprof/gc; `frames` is the depth of stacks."""
    endpoints = _Endpoints(frames)
    return {
        ("GET", "/debug/pprof/heap"): endpoints.heap,
        ("DELETE", "/debug/pprof/heap"): endpoints.stop_tracing,
        ("GET", "/debug/pprof/gc"): endpoints.gc_statistics,
        ("POST", "/debug/pprof/gc"): endpoints.collect,
    }


async def start_debug_server(config: RuntimeConfig) -> HttpServer | None:
    """Serve the debug port of PINCEX_DEBUG_PORT on loopback; None where it is not set. Raises OSError if it is taken."""
    start_tracing(config.tracemalloc_frames)
    if config.debug_port is None:
        return None
    server = HttpServer(
        debug_routes(frames=config.tracemalloc_frames or _DEFAULT_FRAMES), host=LOOPBACK, port=config.debug_port
    )
    await server.start()
    return server


class _Endpoints:
    def __init__(self, frames: int) -> None:
        self._frames = frames
        # One at a time: two profiles would hold two copies of every trace.
        self._busy = asyncio.Lock()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("debug")

    async def heap(self, _request: web.Request) -> web.Response:
        async with self._busy:
            note = _RUNNING
            if not tracemalloc.is_tracing():
                tracemalloc.start(self._frames)
                self._log.warning("tracemalloc started: allocations are slower until it is stopped")
                note = _STARTED
            body = await asyncio.to_thread(_heap_profile, note)
        return web.Response(
            body=body,
            content_type="application/octet-stream",
            headers={"Content-Disposition": 'attachment; filename="heap.pb.gz"', "X-PinCEX-Note": note},
        )

    async def stop_tracing(self, _request: web.Request) -> web.Response:
        async with self._busy:
            was = tracemalloc.is_tracing()
            tracemalloc.stop()
        if was:
            self._log.warning("tracemalloc stopped")
        return _json({"stopped": was})

    async def gc_statistics(self, _request: web.Request) -> web.Response:
        return _json(_statistics())

    async def collect(self, _request: web.Request) -> web.Response:
        before = _resident_bytes()
        started = time.perf_counter()
        collected = gc.collect()
        seconds = time.perf_counter() - started
        self._log.warning("collected garbage on request", objects=collected, ms=round(seconds * 1000, 3))
        return _json(
            {
                "collected": collected,
                "pause_ms": round(seconds * 1000, 3),
                "resident_bytes_before": before,
                "resident_bytes_after": _resident_bytes(),
                **_statistics(),
            }
        )


def _heap_profile(note: str) -> bytes:
    snapshot = tracemalloc.take_snapshot()
    own = tracemalloc.get_tracemalloc_memory()
    traced = tracemalloc.get_traced_memory()[0]
    return encode_heap_profile(
        samples_of(snapshot),
        time_ns=time.time_ns(),
        untraced_bytes=max(0, _resident_bytes() - traced - own),
        comments=(note, f"{own} bytes are tracemalloc's own"),
    )


def _statistics() -> dict[str, Any]:
    return {
        "enabled": gc.isenabled(),
        "counts": gc.get_count(),
        "thresholds": gc.get_threshold(),
        "frozen": gc.get_freeze_count(),
        "generations": gc.get_stats(),
    }


def _resident_bytes() -> int:
    """The process's resident memory; 0 where the system does not tell it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _json(value: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(value) + b"\n", content_type="application/json")

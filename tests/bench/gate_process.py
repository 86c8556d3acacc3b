"""The processes that the gate's benchmark measures, each on one core: the auth service, and a gate that verifies nothing.

As a program: `python -m tests.bench.gate_process PORT` is the latter.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from exchange.runtime import process
from tests.bench.engine_process import ROOT, START_DEADLINE_S, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgres_fixture import Database

SECRET = "a secret of thirty-two characters and more"
SHARED = "what the stack and the gate share"
# Timestamps are made before a run, not during it.
WINDOW_MS = 60_000


@dataclass(frozen=True, slots=True)
class GateProcess:
    """A running gate."""

    pid: int
    port: int


@contextlib.contextmanager
def running_auth_service(database: Database, core: int) -> Iterator[GateProcess]:
    """`python -m exchange.auth`, with all that it logs."""
    grpc_port, ops_port, gate_port, metrics_port = free_ports(4)
    home = tempfile.mkdtemp(prefix="pincex-bench-auth-")
    environment = {
        **os.environ,
        "PINCEX_INSTANCE": "bench-auth",
        "PINCEX_PROFILE": "production",
        "PINCEX_GRPC_PORT": str(grpc_port),
        "PINCEX_OPS_GRPC_PORT": str(ops_port),
        "PINCEX_GATE_PORT": str(gate_port),
        "PINCEX_METRICS_PORT": str(metrics_port),
        "PINCEX_AUTH_DATABASE_URL": database.auth_url,
        "PINCEX_AUTH_SECRET": SECRET,
        "JWT_SECRET": SHARED,
        "PINCEX_SIGNATURE_WINDOW_MS": str(WINDOW_MS),
        "PINCEX_HOME": home,
        "PINCEX_LOG_DIR": f"{home}/logs",
    }
    try:
        with _running(["-m", "exchange.auth"], environment, core, gate_port) as gate:
            yield gate
    finally:
        shutil.rmtree(home)


@contextlib.contextmanager
def running_open_gate(core: int) -> Iterator[GateProcess]:
    """A gate that lets everything through: the same server, and nothing behind it."""
    (port,) = free_ports(1)
    with _running(["-m", "tests.bench.gate_process", str(port)], {**os.environ}, core, port) as gate:
        yield gate


@contextlib.contextmanager
def _running(arguments: list[str], environment: dict[str, str], core: int, port: int) -> Iterator[GateProcess]:
    with subprocess.Popen([sys.executable, *arguments], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL) as child:
        try:
            _wait_ready(port, child)
            os.sched_setaffinity(child.pid, {core})
            yield GateProcess(child.pid, port)
        finally:
            child.terminate()
            child.wait(30)


def _wait_ready(port: int, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        assert child.poll() is None, "the gate ended"
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).read()
            return
        time.sleep(0.05)
    raise AssertionError("the gate is not ready")


async def _serve(port: int) -> None:
    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(headers={"authorization": f"Bearer {'x' * 600}"})

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        process.run(lambda: _serve(int(sys.argv[1])))

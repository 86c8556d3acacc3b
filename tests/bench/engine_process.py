"""The processes that benchmarks measure: an engine on real PostgreSQL, services beside it, and an empty grpcio echo."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from exchange.runtime import process
from pincex.trading.v1 import order_commands_pb2, types_pb2
from tests.postgres_fixture import Database

ROOT = Path(__file__).resolve().parent.parent.parent
START_DEADLINE_S = 30.0
ECHO_METHOD = "/pincex.bench.Echo/Call"


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """A running engine."""

    pid: int
    target: str
    ops_target: str


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    import socket

    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running_engine(database: Database | None, *, profile: str = "", **variables: str) -> Iterator[EngineProcess]:
    """`python -m exchange.trading` on the database, or on memory without one."""
    grpc_port, ops_port, metrics_port = free_ports(3)
    logs = tempfile.mkdtemp(prefix="pincex-bench-logs-")
    environment = {
        **os.environ,
        "PINCEX_INSTANCE": "bench-engine",
        "PINCEX_PROFILE": "development",
        "PINCEX_GRPC_PORT": str(grpc_port),
        "PINCEX_OPS_GRPC_PORT": str(ops_port),
        "PINCEX_METRICS_PORT": str(metrics_port),
        "LOG_LEVEL": "WARNING",
        "PINCEX_LOG_DIR": logs,
        **({"DATABASE_URL": database.trading_url} if database is not None else {"PINCEX_MEMORY": "1"}),
        **variables,
    }
    argv = [sys.executable, *(["-m", "cProfile", "-o", profile] if profile else []), "-m", "exchange.trading"]
    with subprocess.Popen(argv, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL) as child:
        try:
            _wait_ready(metrics_port, child)
            yield EngineProcess(child.pid, f"127.0.0.1:{grpc_port}", f"127.0.0.1:{ops_port}")
        finally:
            child.terminate()
            child.wait(30)
            shutil.rmtree(logs)


def memory_mib(pid: int) -> float:
    """Memory that a process holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """A running service that follows an engine."""

    pid: int
    target: str
    metrics_port: int

    def metric(self, name: str) -> float:
        """The sum of a series over its labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        values = [line.rpartition(" ")[2] for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(map(float, values))

    def wait_ready(self) -> None:
        """Until it says that it is."""
        _wait_ready(self.metrics_port, None)


@contextlib.contextmanager
def running_service(name: str, engine: EngineProcess, **variables: str) -> Iterator[ServiceProcess]:
    """`python -m exchange.NAME` beside an engine, not waited for; `variables` name its database."""
    grpc_port, ops_port, metrics_port = free_ports(3)
    logs = tempfile.mkdtemp(prefix="pincex-bench-logs-")
    environment = {
        **os.environ,
        "PINCEX_INSTANCE": f"bench-{name}",
        "PINCEX_PROFILE": "development",
        "PINCEX_GRPC_PORT": str(grpc_port),
        "PINCEX_OPS_GRPC_PORT": str(ops_port),
        "PINCEX_METRICS_PORT": str(metrics_port),
        "PINCEX_INTERNAL_TARGET": engine.ops_target,
        "PINCEX_LOG_DIR": logs,
        "LOG_LEVEL": "WARNING",
        **variables,
    }
    argv = [sys.executable, "-m", f"exchange.{name}"]
    with subprocess.Popen(argv, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL) as child:
        try:
            yield ServiceProcess(child.pid, f"127.0.0.1:{grpc_port}", metrics_port)
        finally:
            child.terminate()
            child.wait(30)
            shutil.rmtree(logs)


def _wait_ready(port: int, child: subprocess.Popen[bytes] | None) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        assert child is None or child.poll() is None, "the engine ended"
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).read()
            return
        time.sleep(0.05)
    raise TimeoutError("it did not become ready")


@contextlib.contextmanager
def running_echo() -> Iterator[str]:
    """A grpc.aio server on uvloop whose one method answers a fixed Order to a PlaceOrderRequest."""
    port = free_ports(1)[0]
    argv = [sys.executable, "-m", "tests.bench.engine_process", str(port)]
    with subprocess.Popen(argv, cwd=ROOT) as child:
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                grpc.channel_ready_future(channel).result(START_DEADLINE_S)
            yield f"127.0.0.1:{port}"
        finally:
            child.terminate()
            child.wait(10)


def sample_order() -> types_pb2.Order:
    """An answer of the size that PlaceOrder gives."""
    order = types_pb2.Order(
        order_id="1234567", client_order_id="bench-0-123456", symbol="BTCUSD", side=types_pb2.BUY, order_type=types_pb2.LIMIT, time_in_force=types_pb2.GTC,
        status=types_pb2.PENDING, quantity="0.10000", filled_quantity="0.00000", open_quantity="0.10000", price="50000.00",
        filled_notional="0.00000000", fee_paid="0.00000000", self_trade_prevention=types_pb2.CANCEL_NEWEST, account="demo", sequence=1234567,
    )  # fmt: skip
    order.created_time.GetCurrentTime()
    order.updated_time.GetCurrentTime()
    return order


async def _serve_echo(port: int) -> None:
    answer = sample_order()

    async def call(_request: Any, _context: Any) -> types_pb2.Order:
        return answer

    handler = grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=order_commands_pb2.PlaceOrderRequest.FromString,
        response_serializer=types_pb2.Order.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pincex.bench.Echo", {"Call": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stopped = process.stop_signal()
    await stopped.wait()
    await server.stop(0)


if __name__ == "__main__":
    process.run(lambda: _serve_echo(int(sys.argv[1])))

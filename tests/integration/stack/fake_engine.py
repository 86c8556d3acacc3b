"""An upstream that keeps the process contract of our services and knows nothing of trading: it stands in for any of them.

It answers every RPC of the descriptor image, so that the stack and the edge are tested without the engine: text fields
of the request come back in the reply's fields of the same name, all else is empty. What a call should do is said in its
metadata: `x-fake-status: UNAVAILABLE`, `x-fake-sleep-ms: 500`, `x-fake-bytes: 100000`. What arrived is said back in the
initial metadata: `x-fake-seen` lists the metadata keys, `x-fake-forwarded` is `x-forwarded-for`, `x-fake-calls` counts
the calls with the same `x-fake-key`.

Run as `python -m fake_engine` with the engine's environment and PINCEX_IMAGE.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from exchange.runtime.ending import end_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

calls: Counter[str] = Counter()

# The edge pings every second, as it may at the real one.
OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.keepalive_permit_without_calls", 1),
)


def load(image: Path) -> list[FileDescriptor]:
    """Our files of the image, in a pool of their own."""
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file
    for file in files:
        pool.Add(file)
    return [pool.FindFileByName(file.name) for file in files if file.package.startswith("pincex.")]


def reply(method: MethodDescriptor, request: Any, context: grpc.ServicerContext) -> Any:
    """Does what the metadata says, then answers. A refusal sends no initial metadata, as a real server's does."""
    metadata = {key: str(value) for key, value in context.invocation_metadata()}
    key = metadata.get("x-fake-key", "")
    calls[key] += 1
    time.sleep(int(metadata.get("x-fake-sleep-ms", "0")) / 1000)
    if status := metadata.get("x-fake-status"):
        context.abort(grpc.StatusCode[status], "as asked")
    seen = ",".join(sorted(metadata))
    came = ("x-fake-forwarded", metadata.get("x-forwarded-for", ""))
    context.send_initial_metadata((("x-fake-seen", seen), ("x-fake-calls", str(calls[key])), came))
    answer: Any = message_factory.GetMessageClass(method.output_type)()
    if method.output_type.full_name == "google.api.HttpBody":
        answer.content_type = "text/plain"
        answer.data = b"x" * int(metadata.get("x-fake-bytes", "2"))
    elif not method.client_streaming:
        for field, value in request.ListFields():
            twin = method.output_type.fields_by_name.get(field.name)
            if isinstance(value, str) and twin is not None and twin.type == field.type:
                setattr(answer, field.name, value)
    return answer


def handler(method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler for any shape of method; a stream sends three messages."""

    def unary(request: Any, context: grpc.ServicerContext) -> Any:
        return reply(method, request, context)

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        answer = reply(method, request, context)
        for _ in range(3):
            yield answer

    request = message_factory.GetMessageClass(method.input_type).FromString
    serialize = message_factory.GetMessageClass(method.output_type).SerializeToString
    if method.client_streaming and method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(stream, request, serialize)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(stream, request, serialize)
    return grpc.unary_unary_rpc_method_handler(unary, request, serialize)


class Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # it takes none when it runs
    """All services of the image on the ops port; not the admin and journal services on the public one. What a method needs is
    made at its first call: dozens of these processes are started, and few methods of each are called.
    """

    def __init__(self, files: list[FileDescriptor], *, ops: bool) -> None:
        self._methods = {
            f"/{service.full_name}/{method.name}": method
            for file in files
            for service in file.services_by_name.values()
            if ops or service.name not in {"TradingAdminService", "EventService"}
            for method in service.methods
        }
        self._made: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        path = handler_call_details.method
        if path not in self._made and path in self._methods:
            self._made[path] = handler(self._methods[path])
        return self._made.get(path)


def serve_grpc(files: list[FileDescriptor], port: int, *, ops: bool, status: health.HealthServicer) -> grpc.Server:
    """Listens, with the health service beside those of the image."""
    server = grpc.server(ThreadPoolExecutor(16), options=OPTIONS)
    server.add_generic_rpc_handlers((Handlers(files, ops=ops),))
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    if server.add_insecure_port(f"127.0.0.1:{port}") != port:
        raise SystemExit(f"port {port} is taken")
    server.start()
    return server


def role() -> bytes:
    """`leader` for the instance that the file `LEADER` in the switches' folder names, the first one without it."""
    file = Path(os.environ["PINCEX_SWITCHES_DIR"]) / "LEADER"
    leads = file.read_text() if file.exists() else "trading-engine-1"
    return b"leader\n" if os.environ["PINCEX_INSTANCE"] == leads else b"follower\n"


class Metrics(BaseHTTPRequestHandler):
    """`/metrics`, `/role`, `/livez` and `/readyz`, and an empty `/jwks.json`."""

    def do_GET(self) -> None:
        answers = {"/metrics": b"fake_engine_up 1\n", "/role": role(), "/jwks.json": b'{"keys": []}'}
        body = answers.get(self.path, b"ok\n")
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Says nothing: a line for every probe helps nobody."""


class Gate(BaseHTTPRequestHandler):
    """The auth service's gate, for a stack in which nobody has a key."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("content-length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - as the library calls it

    def log_message(self, *args: object) -> None:
        """Says nothing."""


def main() -> None:
    """Serves until SIGTERM; while the file `NOT_SERVING` is in the switches' folder, says so to health checks."""
    environ = os.environ
    if environ.get("FAKE_ENGINE_CRASH") == environ["PINCEX_INSTANCE"]:
        sys.exit("the fake engine was told to crash")
    files = load(Path(environ["PINCEX_IMAGE"]))
    status = health.HealthServicer()
    # The admin service has no port for clients.
    ports = {name: int(environ[name]) for name in ("PINCEX_GRPC_PORT", "PINCEX_OPS_GRPC_PORT") if name in environ}
    servers = [
        serve_grpc(files, port, ops=name == "PINCEX_OPS_GRPC_PORT", status=status) for name, port in ports.items()
    ]
    metrics = ThreadingHTTPServer(("127.0.0.1", int(environ["PINCEX_METRICS_PORT"])), Metrics)
    threading.Thread(target=metrics.serve_forever, daemon=True).start()
    if gate_port := environ.get("PINCEX_GATE_PORT"):
        gate = ThreadingHTTPServer(("127.0.0.1", int(gate_port)), Gate)
        threading.Thread(target=gate.serve_forever, daemon=True).start()
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    switch = Path(environ["PINCEX_SWITCHES_DIR"]) / "NOT_SERVING"
    states = {False: health_pb2.HealthCheckResponse.SERVING, True: health_pb2.HealthCheckResponse.NOT_SERVING}
    while not stopped.wait(0.02):
        status.set("", states[switch.exists()])
    status.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    for stopping in [server.stop(2) for server in servers]:
        stopping.wait()
    end_process(0)


if __name__ == "__main__":
    main()

"""A grpc.aio server as every service runs it: bounded, guarded, observable, and stopping in good order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
import structlog
from grpc_channelz.v1 import channelz_pb2_grpc
from grpc_channelz.v1.channelz import aio as channelz_aio  # type: ignore[attr-defined]  # the stubs leave it out
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]  # the stubs leave it out

from exchange.runtime import reflection
from exchange.runtime.access import AccessError, MethodPolicy, has_contract, policies_of
from exchange.runtime.audit.contract import AuditTrail, SecurityLog
from exchange.runtime.call_guard import CallGuard, CallLimits
from exchange.runtime.drain import Drain
from exchange.runtime.metrics import GrpcMetrics
from exchange.runtime.principal import OPERATOR, PrincipalResolver
from exchange.runtime.request import RequestContext, request_context

__all__ = ["GrpcServer", "RequestContext", "ServerLimits", "request_context"]

_MIB: Final = 1024 * 1024
# Calls that gRPC itself may hold beyond our limits: they are refused with a reason, which takes a moment.
_REFUSAL_ROOM: Final = 256
# Calls that have arrived but not reached Python yet.
_PENDING_CALLS: Final = 10_000
# What has no contract of ours, and whose streams do not know that the server drains.
_FOR_ANYONE: Final = MethodPolicy(public=True, ends_on_drain=True)
# Streams that watch the drain get the whole grace less this, to hear why they end before gRPC cuts the connection.
_CUT_MARGIN_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Every bound of a server; what is beyond is refused, never queued.

    `max_streams_per_connection` is HTTP/2's: Envoy carries many clients on one connection, so it is not small.
    `max_write_seconds`: a client that does not take a message of its stream for so long is cut off, SLOW_CONSUMER.
    `min_ping_interval_ms`: a client that pings more often is cut off with too_many_pings; the edge does it every second.
    """

    max_request_bytes: int = 4 * _MIB
    max_response_bytes: int = 4 * _MIB
    max_unary_in_flight: int = 2_000
    max_open_streams: int = 4_000
    max_streams_per_connection: int = 2_000
    max_metadata_bytes: int = 16 * 1024
    max_write_seconds: float = 30.0
    min_ping_interval_ms: int = 500
    keepalive_time_ms: int = 30_000
    keepalive_timeout_ms: int = 10_000


class GrpcServer:
    """One listening server.

    Make it, `add` services, `start`, `set_serving(True)` once the service can answer, and `stop` at the end. Public
    and ops listeners are two of these with different resolvers, sharing one `GrpcMetrics` and one `Drain`. Must be
    made inside the running event loop, after `configure_logging`.
    """

    def __init__(
        self,
        address: str,
        *,
        resolver: PrincipalResolver,
        metrics: GrpcMetrics,
        limits: ServerLimits | None = None,
        with_reflection: bool = True,
        with_channelz: bool = False,
        describes_all: bool = False,
        drain: Drain | None = None,
        credentials: grpc.ServerCredentials | None = None,
        trail: AuditTrail | None = None,
        security: SecurityLog | None = None,
    ) -> None:
        """Prepare a server for `address` (`host:port`, port 0 for any free one, or `unix:path`).

        `describes_all`: reflection tells of all services of the exchange, as the listener before it carries them. Raises
        nothing yet: `start` binds.
        """
        self._address = address
        self._limits = limits if limits is not None else ServerLimits()
        self._metrics = metrics
        self._credentials = credentials
        self._with_reflection = with_reflection
        self._with_channelz = with_channelz
        self._describes_all = describes_all
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._services: list[str] = []
        self._health = health_aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("grpc")
        self.port: int = 0
        self.drain = drain if drain is not None else Drain()
        self.guard = CallGuard(
            resolver=resolver,
            metrics=metrics,
            drain=self.drain,
            limits=CallLimits(
                self._limits.max_unary_in_flight,
                self._limits.max_open_streams,
                self._limits.max_response_bytes,
                self._limits.max_write_seconds,
            ),
            trail=trail,
            security=security,
        )

    def add(
        self,
        add_to_server: Callable[[Any, Any], None],
        servicer: Any,
        policy: MethodPolicy | None = None,
    ) -> None:
        """Register a service: `add(orders_pb2_grpc.add_OrderServiceServicer_to_server, servicer)`.

        Who may call each method is what its contract says. `policy` is for services that are not of our contracts, and
        holds for all their methods. Raises ValueError where a service of this name is registered already, AccessError
        where a method does not say who may call it, or a policy is given for a service of our contracts.
        """
        capture = _Capture()
        add_to_server(servicer, capture)
        for service, methods in capture.services.items():
            if service in self._services:
                raise ValueError(f"{service} is registered already")
            if policy is None:
                policies = policies_of(service)
            elif has_contract(service):
                raise AccessError(f"{service} is of our contracts: they alone say who may call it")
            else:
                policies = dict.fromkeys(methods, policy)
            self._services.append(service)
            for method, handler in methods.items():
                self._handlers[f"/{service}/{method}"] = self.guard.wrap(service, method, handler, policies[method])

    async def start(self) -> int:
        """Bind, listen, and return the port. Health says NOT_SERVING until `set_serving`.

        Raises OSError, naming the address, where it cannot be bound.
        """
        served = tuple(self._services)
        self._add_infrastructure()
        server = grpc.aio.server(
            options=_options(self._limits, channelz=self._with_channelz),
            maximum_concurrent_rpcs=(self._limits.max_unary_in_flight + self._limits.max_open_streams + _REFUSAL_ROOM),
        )
        server.add_generic_rpc_handlers((_Methods(self._handlers, self._metrics),))
        try:
            if self._credentials is None:
                self.port = server.add_insecure_port(self._address)
            else:
                self.port = server.add_secure_port(self._address, self._credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: {error}") from error
        for service in ("", *served):
            await self._health.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.start()
        self._server = server
        self._log.info("grpc server listens", address=self._address, port=self.port, services=list(served))
        return self.port

    async def set_serving(self, serving: bool, service: str | None = None) -> None:  # noqa: FBT001 - it sets the flag
        """Say over grpc.health.v1 whether one service, or without a name all of them, answer."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        names = (service,) if service is not None else ("", *self._services)
        for name in names:
            await self._health.set(name, status)

    async def stop(self, grace_seconds: float) -> None:
        """Stop in good order within `grace_seconds`.

        Health turns NOT_SERVING, `drain` is announced, new calls are refused with DRAINING, running ones may end;
        streams that are still open shortly before the end of the grace get DRAINING, and what is left then is cut.
        """
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        self.drain.begin(time.monotonic() + grace_seconds)
        # One turn of the loop: watchers of health read the change before their stream ends.
        await asyncio.sleep(0)
        self.guard.calls.drain(only_deaf=True)
        cut = asyncio.get_running_loop().call_later(
            max(0.0, grace_seconds - _CUT_MARGIN_S), lambda: self.guard.calls.drain(only_deaf=False)
        )
        try:
            await self._server.stop(grace_seconds)
        finally:
            cut.cancel()
        self._log.info("grpc server stopped", port=self.port)

    async def wait(self) -> None:
        """Return once the server has stopped."""
        if self._server is not None:
            await self._server.wait_for_termination()

    def _add_infrastructure(self) -> None:
        self.add(health_pb2_grpc.add_HealthServicer_to_server, self._health, _FOR_ANYONE)
        if self._with_channelz:
            self.add(
                channelz_pb2_grpc.add_ChannelzServicer_to_server,
                channelz_aio.ChannelzServicer(),
                MethodPolicy(roles=frozenset({OPERATOR})),
            )
        if self._with_reflection:
            others = reflection.exchange_services() if self._describes_all else ()
            servicer = reflection.reflection_servicer((*self._services, *others))
            self.add(reflection.add_v1alpha, servicer, _FOR_ANYONE)
            self.add(reflection.add_v1, servicer, _FOR_ANYONE)


class _Capture:
    """Stands in for a server while generated code registers, and keeps the handlers by name."""

    def __init__(self) -> None:
        self.services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Take nothing: the same handlers come by name."""

    def add_registered_method_handlers(
        self, service: str, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        self.services[service] = dict(handlers)


class _Methods(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """All methods in one dictionary.

    grpc.aio's own registration by method waits on one future per method with every call, which costs the more the
    more methods there are.
    """

    def __init__(self, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]], metrics: GrpcMetrics) -> None:
        self._handlers = handlers
        self._metrics = metrics

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = self._handlers.get(handler_call_details.method)
        if handler is None:
            self._metrics.unknown_method()
        return handler


def _options(limits: ServerLimits, *, channelz: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.max_request_bytes),
        # Checked, with a reason, by the guard: a handler's bytes are known before they are sent.
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", limits.max_streams_per_connection),
        # Beyond the default of 1,000 gRPC itself ends calls at random with a bare CANCELLED; beyond our own limit the
        # guard refuses them with a reason.
        ("grpc.server.max_pending_requests", _PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING_CALLS),
        ("grpc.max_metadata_size", limits.max_metadata_bytes),
        ("grpc.http2.min_ping_interval_without_data_ms", limits.min_ping_interval_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", limits.keepalive_time_ms),
        ("grpc.keepalive_timeout_ms", limits.keepalive_timeout_ms),
        ("grpc.enable_channelz", int(channelz)),
    ]

"""What the processes of services have in common: settings, servers, identity, audit, and their life from start to signal.

A service is a subclass that wires its own parts, adds its gRPC services to `public` and `ops`, and says by `ready`, `role`, `open`,
`tasks` and `close` what is its own in that life. `run_service` is its main.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from exchange.runtime import process
from exchange.runtime.audit.opening import Audit
from exchange.runtime.clock import SystemClock
from exchange.runtime.config import ConfigError, Environment, RuntimeConfig, Secret
from exchange.runtime.debug import start_debug_server
from exchange.runtime.drain import Drain
from exchange.runtime.grpc_server import GrpcServer, ServerLimits
from exchange.runtime.http_server import LOOPBACK, HttpServer, Readiness, status_routes
from exchange.runtime.identity.identity import Identity
from exchange.runtime.identity.service_token import ServiceTokens
from exchange.runtime.internal_client import InternalClient
from exchange.runtime.logging import configure_logging
from exchange.runtime.metrics import GrpcMetrics, new_registry
from exchange.runtime.service_tls import ServiceTls

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable


@dataclass(frozen=True, slots=True)
class CommonConfig:
    """What every service needs to know to start. Ports are on loopback; 0 takes any free one.

    `internal_target` is where the other services answer one another, `edge_target` the public edge (host:port), None where
    there is none.
    """

    runtime: RuntimeConfig
    grpc_port: int
    ops_grpc_port: int
    metrics_port: int
    internal_target: str
    edge_target: str | None
    jwt_secret: Secret | None
    service_tls: ServiceTls | None
    drain_s: float

    @classmethod
    def read(cls, environment: Environment, service: str) -> CommonConfig:
        """Read and check everything. Raises ConfigError, naming the variable."""
        return cls(
            runtime=RuntimeConfig.read(environment, service),
            grpc_port=environment.integer("PINCEX_GRPC_PORT", 0, minimum=0, maximum=65535),
            ops_grpc_port=environment.integer("PINCEX_OPS_GRPC_PORT", 0, minimum=0, maximum=65535),
            metrics_port=environment.integer("PINCEX_METRICS_PORT", 0, minimum=0, maximum=65535),
            internal_target=environment.required("PINCEX_INTERNAL_TARGET"),
            edge_target=environment.optional("PINCEX_EDGE_TARGET"),
            jwt_secret=environment.optional_secret("JWT_SECRET"),
            service_tls=ServiceTls.read(environment),
            drain_s=environment.number("PINCEX_DRAIN_SECONDS", 5.0, minimum=0.5, maximum=300.0),
        )


class ServiceApp:
    """Everything of one instance that is not its own business, wired. `public` is the server behind the public edge, `ops`
    the one behind the ops listener; a service that has nothing for clients leaves `public` without services.
    """

    def __init__(
        self, config: CommonConfig, database_url: Secret | None, *, limits: ServerLimits | None = None
    ) -> None:
        """`database_url` is of the service's own role: by it callers are known, and audited calls put on record."""
        self.common = config
        self.clock = SystemClock()
        self.drain = Drain()
        service, self.instance = config.runtime.service, config.runtime.instance
        self.registry = new_registry(service=service, instance=self.instance, version=version("pincex"))
        self.audit = Audit(config.runtime, self.registry, database_url.reveal() if database_url is not None else None)
        self.identity = Identity(
            config.runtime, database_url=database_url, service_secret=config.jwt_secret, clock=self.clock
        )
        tokens = ServiceTokens(config.jwt_secret, self.clock) if config.jwt_secret is not None else None
        self.client = InternalClient(config.internal_target, service, tokens)
        metrics = GrpcMetrics(self.registry)
        tls = config.service_tls
        self.public, self.ops = (
            GrpcServer(
                f"{LOOPBACK}:{port}",
                resolver=self.identity.resolver(operator=operator),
                metrics=metrics,
                limits=limits if limits is not None else ServerLimits(),
                with_channelz=operator,
                drain=self.drain,
                # Each server has its own: gRPC takes one set for one port.
                credentials=tls.server_credentials() if tls is not None else None,
                trail=self.audit.trail,
                security=self.audit.security,
            )
            for port, operator in ((config.grpc_port, False), (config.ops_grpc_port, True))
        )
        routes = status_routes(self.registry, ready=self._ready, role=self.role)
        self.status = HttpServer(routes, port=config.metrics_port)

    # --- what a service says of itself ---

    def ready(self) -> Readiness:
        """Whether it serves; asked by who starts it, and by its edge."""
        return Readiness(ready=True, why="")

    def role(self) -> str:
        """What this instance is at the moment, as `pincex status` shows it."""
        return self.common.runtime.service

    async def open(self) -> None:
        """Before the servers listen."""

    def tasks(self) -> Iterable[Coroutine[Any, Any, None]]:
        """What runs until the end, beside the servers; called once, after `open`."""
        return ()

    async def close(self) -> None:
        """After all calls have ended."""

    # --- its life ---

    def _ready(self) -> Readiness:
        return Readiness(ready=False, why="draining") if self.drain.is_set() else self.ready()

    async def run(self) -> None:
        """Serve until a signal comes."""
        stopped = process.stop_signal()
        debug = await start_debug_server(self.common.runtime)
        self.audit.start()
        await self.open()
        await self.status.start()
        servers = (self.public, self.ops)
        for server in servers:
            await server.start()
            await server.set_serving(True)
        background = [asyncio.create_task(task) for task in (self.identity.run(), *self.tasks())]
        try:
            await stopped.wait()
        finally:
            grace = self.common.drain_s
            self.drain.begin(self.clock.monotonic() + grace)
            await asyncio.gather(*(server.stop(grace) for server in servers))
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self.client.close()
            await self.close()
            await self.audit.close()
            await self.status.stop()
            if debug is not None:
                await debug.stop()


class HasCommon(Protocol):
    """A service's configuration, as far as its start needs it."""

    @property
    def common(self) -> CommonConfig:
        """What all services need."""
        ...


ConfigT = TypeVar("ConfigT", bound=HasCommon)


def run_service(name: str, read: Callable[[Environment], ConfigT], make: Callable[[ConfigT], ServiceApp]) -> int:
    """From the environment to the last signal. Exit status: 0 after a signal, 2 for a wrong environment."""
    try:
        config = read(Environment.load())
    except ConfigError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 2
    runtime = config.common.runtime
    configure_logging(service=name, instance=runtime.instance, level=runtime.log_level)

    async def main() -> None:
        await make(config).run()

    process.run(main)
    return 0

"""Settlement as a process: reads the environment once, builds everything, runs until a signal."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version
from typing import Final

from exchange.runtime import process
from exchange.runtime.audit.opening import Audit
from exchange.runtime.clock import SystemClock
from exchange.runtime.config import ConfigError, Environment
from exchange.runtime.database import Database
from exchange.runtime.debug import start_debug_server
from exchange.runtime.drain import Drain
from exchange.runtime.grpc_server import GrpcServer, ServerLimits
from exchange.runtime.http_server import LOOPBACK, HttpServer, Readiness, status_routes
from exchange.runtime.identity.identity import Identity
from exchange.runtime.identity.service_token import ServiceTokens
from exchange.runtime.internal_client import InternalClient
from exchange.runtime.logging import configure_logging
from exchange.runtime.metrics import GrpcMetrics, new_registry
from exchange.settlement.config import SERVICE, Config
from exchange.settlement.corrections import Corrections
from exchange.settlement.gate import WithdrawalGate
from exchange.settlement.metrics import SettlementMetrics
from exchange.settlement.reconciliation import Reconciler
from exchange.settlement.service.engine import EngineLink
from exchange.settlement.service.feed import EventFeed, FeedError
from exchange.settlement.service.intake import Intake
from exchange.settlement.service.register import add_client_services, add_operator_services
from exchange.settlement.service.settlement import SettlementService
from exchange.settlement.service.statements import StatementService
from exchange.settlement.settler import Settler, State
from exchange.settlement.upkeep import Upkeep

# A statement of the most lines as one CSV file.
MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024
_NOT_YET: Final = frozenset({State.STARTING, State.WAITING_FOR_DATABASE})


class App:
    """Everything of one instance, wired."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.clock = SystemClock()
        self.drain = Drain()
        instance = config.runtime.instance
        self.registry = registry = new_registry(service=SERVICE, instance=instance, version=version("pincex"))
        url = config.database_url.reveal()
        self.audit = Audit(config.runtime, registry, url)
        self.identity = Identity(
            config.runtime, database_url=config.database_url, service_secret=config.jwt_secret, clock=self.clock
        )
        tls = config.service_tls
        tokens = ServiceTokens(config.jwt_secret, self.clock) if config.jwt_secret is not None else None
        self.client = InternalClient(config.internal_target, SERVICE, tokens)
        engine = EngineLink(self.client)
        self.settler = Settler(url, instance, EventFeed(self.client), Intake, passing=(FeedError,))
        self.database = Database(url, instance)
        self.reconciler = Reconciler(self.database, engine, self.audit.trail)
        self.settler.metrics = self.reconciler.metrics = SettlementMetrics(
            registry, lambda: self.settler.offset.sequence, lambda: self.settler.lag_s
        )
        corrections = Corrections(self.database, engine)
        every_s = config.reconcile_every_s
        self._upkeep = Upkeep(self.settler, self.reconciler, corrections, every_s)
        grpc_metrics = GrpcMetrics(registry)
        self.public, self.ops = (
            GrpcServer(
                f"{LOOPBACK}:{port}",
                resolver=self.identity.resolver(operator=operator),
                metrics=grpc_metrics,
                limits=ServerLimits(max_response_bytes=MAX_RESPONSE_BYTES),
                with_channelz=operator,
                drain=self.drain,
                credentials=tls.server_credentials() if tls is not None else None,
                trail=self.audit.trail,
                security=self.audit.security,
            )
            for port, operator in ((config.grpc_port, False), (config.ops_grpc_port, True))
        )
        statements = StatementService(self.database)
        for server in (self.public, self.ops):
            add_client_services(server, statements)
        settlement = SettlementService(
            settler=self.settler,
            database=self.database,
            reconciler=self.reconciler,
            corrections=corrections,
            gate=WithdrawalGate(self.settler, self.database, every_s),
            clock=self.clock,
            instance=instance,
        )
        add_operator_services(self.ops, settlement)
        self.status = HttpServer(status_routes(registry, ready=self._ready, role=self._role), port=config.metrics_port)

    def _ready(self) -> Readiness:
        if self.drain.is_set():
            return Readiness(ready=False, why="draining")
        return Readiness(ready=self.settler.state not in _NOT_YET, why="the books are not open yet")

    def _role(self) -> str:
        return "standby" if self.settler.state is State.STANDBY else "writer"

    async def run(self) -> None:
        """Serve and settle until a signal comes."""
        stopped = process.stop_signal()
        debug = await start_debug_server(self.config.runtime)
        self.audit.start()
        await self.database.open()
        await self.status.start()
        for server in (self.public, self.ops):
            await server.start()
            await server.set_serving(True)
        background = [
            asyncio.create_task(task) for task in (self.identity.run(), self.settler.run(), self._upkeep.run())
        ]
        try:
            await stopped.wait()
        finally:
            grace = self.config.drain_s
            self.drain.begin(self.clock.monotonic() + grace)
            await asyncio.gather(self.public.stop(grace), self.ops.stop(grace))
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self.client.close()
            await self.database.close()
            await self.audit.close()
            await self.status.stop()
            if debug is not None:
                await debug.stop()


def run() -> int:
    """Exit status: 0 after a signal, 2 for a wrong environment."""
    try:
        config = Config.read(Environment.load())
    except ConfigError as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        return 2
    configure_logging(service=SERVICE, instance=config.runtime.instance, level=config.runtime.log_level)

    async def main() -> None:
        await App(config).run()

    process.run(main)
    return 0


if __name__ == "__main__":
    raise SystemExit(run())

"""The admin service as a process: reads the environment once, builds everything, runs until a signal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from importlib.metadata import version
from typing import Final

import asyncpg

from exchange.admin.config import SERVICE, Config
from exchange.admin.reader import RecordReader
from exchange.admin.retention import Retention
from exchange.admin.service.audit import AuditService
from exchange.admin.service.register import add_operator_services
from exchange.admin.watch import TrailWatch
from exchange.runtime import postgres, process
from exchange.runtime.audit.opening import Audit
from exchange.runtime.clock import SystemClock
from exchange.runtime.config import ConfigError, Environment
from exchange.runtime.debug import start_debug_server
from exchange.runtime.drain import Drain
from exchange.runtime.ending import end_process
from exchange.runtime.grpc_server import GrpcServer
from exchange.runtime.http_server import LOOPBACK, HttpServer, Readiness, status_routes
from exchange.runtime.identity.identity import Identity
from exchange.runtime.logging import configure_logging
from exchange.runtime.metrics import GrpcMetrics, new_registry

_CONNECTIONS: Final = 4


class App:
    """Everything of one instance, wired. Only the ops listener leads here."""

    def __init__(self, config: Config, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self.config = config
        self.clock = SystemClock()
        self.drain = Drain()
        self.registry = registry = new_registry(
            service=SERVICE, instance=config.runtime.instance, version=version("pincex")
        )
        # It reads the trail and may not append: it has no audited method of its own.
        self.audit = Audit(config.runtime, registry, database_url=None)
        self.identity = Identity(
            config.runtime, database_url=config.database_url, service_secret=config.jwt_secret, clock=self.clock
        )
        reader = RecordReader(pool)
        self.watch = TrailWatch(reader, self.audit.security, registry, interval_s=config.watch_s)
        self.retention = Retention(
            pool,
            registry,
            days=config.retention_days,
            service=SERVICE,
            instance=config.runtime.instance,
        )
        self.service = AuditService(reader)
        self.ops = GrpcServer(
            f"{LOOPBACK}:{config.ops_grpc_port}",
            resolver=self.identity.resolver(operator=True),
            metrics=GrpcMetrics(registry),
            with_channelz=True,
            drain=self.drain,
            credentials=config.service_tls.server_credentials() if config.service_tls is not None else None,
            trail=self.audit.trail,
            security=self.audit.security,
        )
        add_operator_services(self.ops, self.service)
        self.status = HttpServer(status_routes(registry, ready=self._ready), port=config.metrics_port)

    def _ready(self) -> Readiness:
        if self.drain.is_set():
            return Readiness(ready=False, why="draining")
        return Readiness(ready=self.watch.has_looked, why="the audit trail has not been read yet")

    async def start(self) -> list[asyncio.Task[None]]:
        """Serve; return what runs in the background until it is cancelled."""
        await self.status.start()
        await self.ops.start()
        await self.ops.set_serving(True)
        self.audit.start()
        return [asyncio.create_task(task) for task in (self.identity.run(), self.watch.run(), self.retention.run())]

    async def stop(self, background: list[asyncio.Task[None]]) -> None:
        """Running calls end, then all else."""
        grace = self.config.drain_s
        self.drain.begin(self.clock.monotonic() + grace)
        await self.ops.stop(grace)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self.service.verification.close()
        await self.audit.close()
        await self.status.stop()

    async def run(self) -> None:
        """Serve until a signal comes."""
        stopped = process.stop_signal()
        debug = await start_debug_server(self.config.runtime)
        background = await self.start()
        try:
            await stopped.wait()
        finally:
            await self.stop(background)
            if debug is not None:
                await debug.stop()


def open_pool(config: Config) -> Awaitable[asyncpg.Pool[asyncpg.Record]]:
    """Connections are made when they are needed: the database may come later."""
    return postgres.create_pool(
        config.database_url.reveal(),
        application_name=f"pincex-{config.runtime.instance}",
        min_connections=0,
        max_connections=_CONNECTIONS,
        stateless=True,
    )


async def main(config: Config) -> None:
    """Open the pool and serve."""
    pool = await open_pool(config)
    try:
        await App(config, pool).run()
    finally:
        pool.terminate()


def run() -> int:
    """Exit status: 0 after a signal, 2 for a wrong environment."""
    try:
        config = Config.read(Environment.load())
    except ConfigError as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        return 2
    configure_logging(service=SERVICE, instance=config.runtime.instance, level=config.runtime.log_level)
    process.run(lambda: main(config))
    return 0


if __name__ == "__main__":
    end_process(run())

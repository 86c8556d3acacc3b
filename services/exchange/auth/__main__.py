"""The auth service as a process: reads the environment once, builds everything, runs until a signal."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version

import structlog
from aiohttp import web

from exchange.auth.bootstrap import PasswordNotLeft
from exchange.auth.config import SERVICE, Config
from exchange.auth.gate.running import RunningGate
from exchange.auth.parts import Parts
from exchange.auth.service.api_keys import ApiKeyCalls, ApiKeyExchange
from exchange.auth.service.auth import AuthService
from exchange.auth.service.auth_admin import AuthAdminService
from exchange.auth.service.register import add_operator_services, add_user_services
from exchange.auth.service.user import UserService
from exchange.auth.signing_keys import WrongSecret
from exchange.auth.store import Store
from exchange.runtime import postgres, process
from exchange.runtime.audit.opening import Audit
from exchange.runtime.clock import SystemClock
from exchange.runtime.config import ConfigError, Environment
from exchange.runtime.debug import start_debug_server
from exchange.runtime.drain import Drain
from exchange.runtime.edge_proof import edge_proof
from exchange.runtime.ending import end_process
from exchange.runtime.errors import ServiceError
from exchange.runtime.grpc_server import GrpcServer
from exchange.runtime.http_server import LOOPBACK, HttpServer, Readiness, status_routes
from exchange.runtime.identity.identity import Identity
from exchange.runtime.logging import configure_logging
from exchange.runtime.metrics import GrpcMetrics, new_registry
from exchange.runtime.quick_cache import QuickCache

STORE_RETRY_S = 0.5
MAIL_GRACE_S = 2.0


async def open_stores(config: Config) -> tuple[Store, Store]:
    """The service's own and the gate's, once their database answers: signed requests do not wait behind log-ins."""
    log = structlog.get_logger("store")
    url = config.database_url.reveal()
    while True:
        try:
            store = await Store.open(url)
        except postgres.CONNECTION_ERRORS as error:
            log.warning("waiting for the database", database=postgres.redact(url), error=type(error).__name__)
            await asyncio.sleep(STORE_RETRY_S)
            continue
        try:
            return store, await Store.open(url, application_name="pincex-gate")
        except postgres.CONNECTION_ERRORS:
            await store.close()


class App:
    """Everything of one instance, wired."""

    def __init__(self, config: Config, store: Store, gate_store: Store) -> None:
        self.config = config
        self.clock = SystemClock()
        self.drain = Drain()
        self._serving = False
        self.registry = registry = new_registry(
            service=SERVICE, instance=config.runtime.instance, version=version("pincex")
        )
        self.audit = Audit(config.runtime, registry, config.database_url.reveal())
        self.identity = Identity(
            config.runtime, database_url=config.database_url, service_secret=config.jwt_secret, clock=self.clock
        )
        self.cache = QuickCache(config.redis_url, clock=self.clock)
        self.parts = Parts(
            config,
            store,
            self.cache,
            registry,
            trail=self.audit.trail,
            security=self.audit.security,
            clock=self.clock,
        )
        self.gate = self._make_gate(gate_store)
        grpc_metrics = GrpcMetrics(registry)
        tls = config.service_tls
        self.public, self.ops = (
            GrpcServer(
                f"{LOOPBACK}:{port}",
                resolver=self.identity.resolver(operator=operator),
                metrics=grpc_metrics,
                with_channelz=operator,
                drain=self.drain,
                credentials=tls.server_credentials() if tls is not None else None,
                trail=self.audit.trail,
                security=self.audit.security,
            )
            for port, operator in ((config.grpc_port, False), (config.ops_grpc_port, True))
        )
        self._add_services()
        routes = status_routes(registry, ready=self._ready)
        # Envoy asks for the keys here: it fetches them by plain HTTP, and public keys need no more.
        routes["GET", "/jwks.json"] = self._key_set
        self.status = HttpServer(routes, port=config.metrics_port)

    def _make_gate(self, store: Store) -> RunningGate:
        assert self.identity.revocations is not None, "there is a database"
        return RunningGate(
            store=store,
            keys=self.parts.keys,
            tokens=self.parts.tokens,
            revocations=self.identity.revocations,
            security=self.audit.security,
            trail=self.audit.trail,
            metrics=self.parts.metrics,
            clock=self.clock,
            window_ms=self.config.signature_window_ms,
            edge_proof=edge_proof(self.config.jwt_secret),
            port=self.config.gate_port,
        )

    def _add_services(self) -> None:
        parts = self.parts
        auth = AuthService(
            registration=parts.registration,
            login=parts.login,
            sessions=parts.sessions,
            signing_keys=parts.signing_keys,
            key_exchange=ApiKeyExchange(parts.keys, parts.tokens, parts.store, self.clock),
            clock=self.clock,
            signature_window_ms=self.config.signature_window_ms,
        )
        user = UserService(
            store=parts.store,
            login=parts.login,
            registration=parts.registration,
            second_factor=parts.second_factor,
            sessions=parts.sessions,
            sub_accounts=parts.sub_accounts,
            admin=parts.user_admin,
            keys=ApiKeyCalls(parts.keys, parts.login, parts.store, self.clock),
            clock=self.clock,
        )
        admin = AuthAdminService(
            admin=parts.user_admin,
            suspicion=parts.suspicion,
            keys=parts.keys,
            certificates=parts.certificates,
            signing_keys=parts.signing_keys,
            clock=self.clock,
        )
        for server in (self.public, self.ops):
            add_user_services(server, auth, user)
        add_operator_services(self.ops, admin)

    async def _key_set(self, _request: web.Request) -> web.Response:
        return web.Response(body=self.parts.signing_keys.key_set(), content_type="application/json")

    def _ready(self) -> Readiness:
        if self.drain.is_set():
            return Readiness(ready=False, why="draining")
        return Readiness(ready=self._serving, why="signing keys are not read yet")

    async def start(self) -> list[asyncio.Task[None]]:
        """Serve; return what runs in the background until it is cancelled."""
        parts = self.parts
        self.audit.start()
        await self.status.start()
        await self._prepare()
        # Not before there are keys: what it reads now it believes for a second.
        background = [asyncio.create_task(self.identity.run())]
        await self.gate.start()
        for server in (self.public, self.ops):
            await server.start()
            await server.set_serving(True)
        background += [
            asyncio.create_task(task)
            for task in (parts.signing_keys.run(), parts.postman.run(), parts.throttle.run(), parts.housekeeping())
        ]
        self._serving = True
        return background

    async def _prepare(self) -> None:
        while True:
            try:
                await self.parts.prepare(self.config.home / "secrets")
            except ServiceError as error:
                structlog.get_logger("main").warning("not ready yet", error=error.message)
                await asyncio.sleep(STORE_RETRY_S)
            else:
                return

    async def stop(self, background: list[asyncio.Task[None]]) -> None:
        """In good order: running calls end, mails and records go out, then all else."""
        grace = self.config.drain_s
        self.drain.begin(self.clock.monotonic() + grace)
        await asyncio.gather(self.public.stop(grace), self.ops.stop(grace), self.gate.stop())
        await self.parts.close(MAIL_GRACE_S)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self.cache.close()
        await self.audit.close()
        await self.status.stop()

    async def run(self) -> None:
        """Serve until a signal comes."""
        debug = await start_debug_server(self.config.runtime)
        background = await self.start()
        # Not before: a start that waits for its database has nothing to bring to an end.
        stopped = process.stop_signal()
        try:
            await stopped.wait()
        finally:
            await self.stop(background)
            if debug is not None:
                await debug.stop()


async def main(config: Config) -> None:
    """Open the stores and serve."""
    store, gate_store = await open_stores(config)
    try:
        await App(config, store, gate_store).run()
    finally:
        await gate_store.close()
        await store.close()


def run() -> int:
    """Exit status: 0 after a signal, 2 for a wrong environment, 1 for keys of another secret, or a folder that cannot be written."""
    try:
        config = Config.read(Environment.load())
    except ConfigError as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        return 2
    configure_logging(service=SERVICE, instance=config.runtime.instance, level=config.runtime.log_level)
    try:
        process.run(lambda: main(config))
    except (WrongSecret, PasswordNotLeft) as error:
        structlog.get_logger("main").error("the service must not run", error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    end_process(run())

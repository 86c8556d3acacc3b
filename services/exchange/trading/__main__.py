"""The trading engine as a process: reads the environment once, builds everything, runs until a signal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import aiohttp
import structlog
from prometheus_client import CollectorRegistry

from exchange.runtime import process
from exchange.runtime.clock import SystemClock
from exchange.runtime.config import ConfigError, Environment
from exchange.runtime.debug import start_debug_server
from exchange.runtime.drain import Drain
from exchange.runtime.edge_metrics import STATS_QUERY, edge_metrics
from exchange.runtime.errors import ErrorReason
from exchange.runtime.gc_schedule import GcSchedule
from exchange.runtime.grpc_server import GrpcServer
from exchange.runtime.http_server import LOOPBACK, HttpServer, Readiness, status_routes
from exchange.runtime.logging import configure_logging
from exchange.runtime.metrics import GrpcMetrics, new_registry, render
from exchange.runtime.principal import resolver_for
from exchange.trading import bootstrap
from exchange.trading.config import SERVICE, Config
from exchange.trading.core import commands as cmd
from exchange.trading.core.constants import SWITCH_ACCEPT_NEW_ORDERS, SWITCH_MAINTENANCE
from exchange.trading.engine_metrics import EngineMetrics
from exchange.trading.feeds.hub import Hub
from exchange.trading.feeds.tape import TradeTape
from exchange.trading.inspection import Inspector
from exchange.trading.instance import SHARD, Instance
from exchange.trading.journal.contract import Journal, JournalError, JournalUnavailable, Lease
from exchange.trading.journal.memory import MemoryJournal, MemoryLease, MemoryStore
from exchange.trading.journal.postgres import PostgresJournal
from exchange.trading.journal.postgres_lease import PostgresLease
from exchange.trading.service.account import AccountService
from exchange.trading.service.admin import TradingAdminService
from exchange.trading.service.book_stream import BookStreams
from exchange.trading.service.desk import Desk
from exchange.trading.service.events import EventService
from exchange.trading.service.health import HealthService
from exchange.trading.service.market import MarketService
from exchange.trading.service.order_stream import OrderStreams
from exchange.trading.service.orders import OrderService
from exchange.trading.service.register import add_client_services, add_operator_services
from exchange.trading.service.session import Sessions
from exchange.trading.service.streaming import HEARTBEAT_S, Places
from exchange.trading.service.trade_stream import TradeStreams
from exchange.trading.switches import SwitchWatcher

JOURNAL_RETRY_S = 0.5
EDGE_STATS_TIMEOUT_S = 2.0


async def open_journal(config: Config) -> tuple[Journal, Lease]:
    """The journal and the lease, once their store answers."""
    if config.memory or config.database_url is None:
        store = MemoryStore()
        return MemoryJournal(store), MemoryLease(store)
    url = config.database_url.reveal()
    log = structlog.get_logger("journal")
    while True:
        try:
            return await PostgresJournal.open(url, shard=SHARD), PostgresLease(url, shard=SHARD)
        except JournalUnavailable as error:
            log.warning("waiting for the journal's database", error=str(error))
            await asyncio.sleep(JOURNAL_RETRY_S)


def metrics_text(registry: CollectorRegistry, stats_url: str) -> Callable[[], Awaitable[bytes]]:
    """This process's metrics, and those of the edge in front of it where there is one."""

    async def text() -> bytes:
        own = render(registry)
        if not stats_url:
            return own
        timeout = aiohttp.ClientTimeout(total=EDGE_STATS_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as client,
                client.get(f"{stats_url}?{STATS_QUERY}") as response,
            ):
                return own + edge_metrics(await response.text()).encode()
        except (aiohttp.ClientError, TimeoutError):
            return own

    return text


class App:
    """Everything of one instance, wired."""

    def __init__(self, config: Config, journal: Journal, lease: Lease) -> None:
        self.config = config
        self.clock = SystemClock()
        self.drain = Drain()
        self._is_serving = False
        registry = new_registry(service=SERVICE, instance=config.runtime.instance, version=version("pincex"))
        self.desk = Desk(instance=config.runtime.instance, journal=journal, clock=self.clock)
        self.hub = Hub(journal)
        self.tape = TradeTape()
        places = Places(journal.incarnation, self.hub)
        self.books = BookStreams(self.desk, self.hub, places)
        self.trades = TradeStreams(self.desk, self.hub, places, self.tape)
        self.sessions = Sessions(self.desk, self.drain)
        for sink in (self.tape, self.books, self.trades):
            self.hub.add(sink)
        inspector = Inspector(journal, SHARD)
        metrics = EngineMetrics(registry, lambda: self.desk.sequencer)
        grpc_metrics = GrpcMetrics(registry)
        self.public, self.ops = (
            GrpcServer(
                f"{LOOPBACK}:{port}",
                resolver=resolver_for(config.runtime, operator=operator),
                metrics=grpc_metrics,
                with_channelz=operator,
                drain=self.drain,
            )
            for port, operator in ((config.grpc_port, False), (config.ops_grpc_port, True))
        )
        self._add_services(places, inspector, metrics_text(registry, config.edge_stats_url))
        self.gc = GcSchedule(
            is_quiet=lambda: not (self.desk.sequencer and self.desk.sequencer.queue_depth), registry=registry
        )
        self.status = HttpServer(status_routes(registry, ready=self._ready), port=config.metrics_port)
        self.instance = Instance(
            name=config.runtime.instance,
            desk=self.desk,
            journal=journal,
            lease=lease,
            hub=self.hub,
            tape=self.tape,
            sessions=self.sessions,
            inspector=inspector,
            metrics=metrics,
            clock=self.clock,
            bootstrap=bootstrap.development if config.runtime.development else bootstrap.nothing,
            retention=(config.max_ids, config.max_id_age_s * 1_000_000_000, config.max_finished_orders),
            snapshot_every=config.snapshot_every,
            make_snapshot=inspector.snapshot if config.memory else self._snapshot_apart,
            on_serving=self._serving,
        )

    def _add_services(self, places: Places, inspector: Inspector, text: Callable[[], Awaitable[bytes]]) -> None:
        orders = OrderService(
            self.desk, self.tape, self.sessions, OrderStreams(self.desk, self.hub, places, self.drain)
        )
        market = MarketService(self.desk, self.tape, self.books, self.trades)
        account = AccountService(self.desk, self.hub, self.drain)
        health = HealthService(self.desk, version("pincex"), self.config.openapi)
        for server in (self.public, self.ops):
            add_client_services(server, orders, market, account, health)
        add_operator_services(
            self.ops, TradingAdminService(self.desk, inspector, text), EventService(self.desk, self.hub, places)
        )

    def _ready(self) -> Readiness:
        if self.drain.is_set():
            return Readiness(ready=False, why="draining")
        # Not the desk: it leads before the first commands, those that make the markets, are durable.
        return Readiness(ready=self._is_serving, why="not leading yet")

    async def _serving(self, serving: bool) -> None:  # noqa: FBT001 - it is the state
        self._is_serving = serving
        for server in (self.public, self.ops):
            await server.set_serving(serving)
        if not serving and not self.drain.is_set():
            # The next leadership may start from another state: copies made from this one end with it.
            self.books.end(ErrorReason.NOT_READY)
            self.trades.end(ErrorReason.NOT_READY)

    async def _snapshot_apart(self) -> int:
        """Have a process of its own store a snapshot; answers its sequence. Raises RuntimeError with what it said."""
        assert self.config.database_url is not None
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "exchange.trading.snapshotter",
            env={"DATABASE_URL": self.config.database_url.reveal()},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await child.communicate()
        if child.returncode != 0:
            raise RuntimeError(errors.decode(errors="replace")[-500:])
        return int(output)

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            now = self.clock.time_ns()
            self.books.heartbeat(now)
            self.trades.heartbeat(now)

    async def _turn(self, switch: int, on: bool) -> None:  # noqa: FBT001 - it is the value
        state = self.desk.state
        present = {SWITCH_ACCEPT_NEW_ORDERS: state.accept_new_orders, SWITCH_MAINTENANCE: state.maintenance}
        if present[switch] != on:
            await self.desk.execute(cmd.set_switch("$configuration", switch, on=on))

    def _watcher(self) -> SwitchWatcher:
        config = self.config
        given = {SWITCH_ACCEPT_NEW_ORDERS: config.accept_new_orders, SWITCH_MAINTENANCE: config.maintenance_mode}
        return SwitchWatcher(
            config.switches_dir, {switch: on for switch, on in given.items() if on is not None}, self._turn
        )

    async def run(self) -> None:
        """Serve until a signal comes or the instance fails."""
        stopped = process.stop_signal()
        debug = await start_debug_server(self.config.runtime)
        await self.status.start()
        for server in (self.public, self.ops):
            await server.start()
        self.gc.start()
        background = [asyncio.create_task(task) for task in (self._heartbeats(), self._watcher().run(), self.gc.run())]
        leading = asyncio.create_task(self.instance.run())
        waiting = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({leading, waiting}, return_when=asyncio.FIRST_COMPLETED)
            await self._stop()
            self.instance.stop()
            await leading
        finally:
            for task in (waiting, *background):
                task.cancel()
            await asyncio.gather(waiting, *background, return_exceptions=True)
            await self.status.stop()
            if debug is not None:
                await debug.stop()

    async def _stop(self) -> None:
        """In good order: drain notices to streams, running calls end, then the core."""
        grace = self.config.drain_s
        drain_ns = self.clock.time_ns() + int(grace * 1e9)
        self.drain.begin(self.clock.monotonic() + grace)
        self.books.end(ErrorReason.DRAINING, drain_ns)
        self.trades.end(ErrorReason.DRAINING, drain_ns)
        self.hub.close(ErrorReason.DRAINING)
        await asyncio.gather(self.public.stop(grace), self.ops.stop(grace))


async def main(config: Config) -> None:
    """Open the journal and serve."""
    journal, lease = await open_journal(config)
    try:
        await App(config, journal, lease).run()
    finally:
        await lease.close()
        await journal.close()


def run() -> int:
    """Exit status: 0 after a signal, 2 for a wrong environment, 1 for a journal or core that must not be served."""
    try:
        config = Config.read(Environment.load())
    except ConfigError as error:
        sys.stderr.write(f"trading-engine: {error}\n")
        return 2
    configure_logging(service=SERVICE, instance=config.runtime.instance, level=config.runtime.log_level)
    try:
        process.run(lambda: main(config))
    except JournalError as error:
        structlog.get_logger("main").error("the journal must not be served", error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(run())

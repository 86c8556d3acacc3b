"""The trading engine as a process: reads the environment once, builds everything, runs until a signal."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version

import structlog

from exchange.runtime import process
from exchange.runtime.audit.opening import Audit
from exchange.runtime.clock import SystemClock
from exchange.runtime.config import ConfigError, Environment
from exchange.runtime.debug import start_debug_server
from exchange.runtime.drain import Drain
from exchange.runtime.ending import end_process
from exchange.runtime.errors import ErrorReason
from exchange.runtime.feeds.notices import HEARTBEAT_S
from exchange.runtime.gc_schedule import GcSchedule
from exchange.runtime.grpc_server import GrpcServer
from exchange.runtime.http_server import LOOPBACK, HttpServer, Readiness, status_routes
from exchange.runtime.identity.identity import Identity
from exchange.runtime.logging import configure_logging
from exchange.runtime.metrics import GrpcMetrics, new_registry
from exchange.trading import bootstrap, core_loader, rules
from exchange.trading.config import SERVICE, Config
from exchange.trading.core import commands as cmd
from exchange.trading.core.constants import SWITCH_ACCEPT_NEW_ORDERS, SWITCH_MAINTENANCE
from exchange.trading.engine_metrics import EngineMetrics
from exchange.trading.feeds.hub import Hub
from exchange.trading.feeds.tape import TradeTape
from exchange.trading.fleet_metrics import FleetMetrics
from exchange.trading.inspection import Inspector
from exchange.trading.instance import Instance
from exchange.trading.journal.contract import Journal, JournalError, JournalUnavailable, Lease
from exchange.trading.journal.memory import MemoryJournal, MemoryLease, MemoryStore
from exchange.trading.journal.postgres import PostgresJournal
from exchange.trading.journal.postgres_lease import PostgresLease
from exchange.trading.limits.activity import Activity
from exchange.trading.limits.rates import OrderRates
from exchange.trading.replication.follower import Follower
from exchange.trading.replication.messages import FOLLOWER, Attendance, ReplicaInfo
from exchange.trading.replication.parts import Parts, ReplicaTimes
from exchange.trading.replication.replica import Replica
from exchange.trading.revoked_orders import RevokedOrders
from exchange.trading.service.account import AccountService
from exchange.trading.service.admin import TradingAdminService
from exchange.trading.service.admittance import Admittance
from exchange.trading.service.attendance import SessionAttendance
from exchange.trading.service.book_stream import BookStreams
from exchange.trading.service.desk import Desk
from exchange.trading.service.events import EventService
from exchange.trading.service.funds import FundsService
from exchange.trading.service.health import HealthService
from exchange.trading.service.market import MarketService
from exchange.trading.service.order_stream import OrderStreams
from exchange.trading.service.orders import OrderService
from exchange.trading.service.register import add_client_services, add_operator_services
from exchange.trading.service.replica_desk import ReplicaDesk
from exchange.trading.service.replica_link import GrpcTransport, ReplicaService
from exchange.trading.service.session import Sessions
from exchange.trading.service.streaming import Places
from exchange.trading.service.trade_stream import TradeStreams
from exchange.trading.snapshotter import store_apart
from exchange.trading.switches import SwitchWatcher

SHARD = 0
JOURNAL_RETRY_S = 0.5


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


class App:
    """Everything of one instance, wired."""

    def __init__(self, config: Config, journal: Journal, lease: Lease) -> None:
        self.config = config
        self.clock = SystemClock()
        self.drain = Drain()
        self.times = ReplicaTimes()
        self._serving = asyncio.Event()
        self._journal = journal
        self._lease = lease
        self._registry = new_registry(service=SERVICE, instance=config.runtime.instance, version=version("pincex"))
        self.desk = Desk(instance=config.runtime.instance, journal=journal, clock=self.clock)
        self.hub = Hub(journal)
        self.tape = TradeTape()
        self.activity = Activity(self.clock)
        self.rates = OrderRates(self.clock, lambda: 1 + len(self._others()))
        self.admittance = Admittance(self.desk, self.rates)
        places = Places(journal.incarnation, self.hub)
        self.books = BookStreams(self.desk, self.hub, places)
        self.trades = TradeStreams(self.desk, self.hub, places, self.tape)
        self.attendance = SessionAttendance(self.desk, self.drain, self._announce)
        self.sessions = Sessions(self.desk, self.drain, self.attendance, self.admittance)
        for sink in (self.tape, self.activity, self.books, self.trades, self.sessions):
            self.hub.add(sink)
        self._inspector = Inspector(journal, SHARD)
        self._metrics = EngineMetrics(self._registry, lambda: self.desk.seat if self.desk.is_seated else None)
        database_url = None if config.memory else config.database_url
        self.identity = Identity(config.runtime, database_url=database_url, service_secret=config.service_secret)
        self.audit = Audit(config.runtime, self._registry, database_url.reveal() if database_url is not None else None)
        self.public, self.ops = self._make_servers()
        self.replica: Replica | None = None
        self._add_services(places)
        self.gc = GcSchedule(
            is_quiet=lambda: not (self.desk.is_seated and self.desk.seat.queue_depth), registry=self._registry
        )
        self.status = HttpServer(
            status_routes(self._registry, ready=self._ready, role=self._role),
            port=config.metrics_port,
        )
        self.instance = Instance(
            desk=self.desk,
            journal=journal,
            hub=self.hub,
            tape=self.tape,
            attendance=self.attendance,
            metrics=self._metrics,
            bootstrap=self._begin,
            retention=(config.max_ids, config.max_id_age_s * 1_000_000_000, config.max_finished_orders),
            snapshot_every=config.snapshot_every,
            make_snapshot=self._make_snapshot,
            on_serving=self._on_serving,
            revoked_orders=self._make_revoked_orders(),
        )

    def _make_servers(self) -> tuple[GrpcServer, GrpcServer]:
        """The one for clients, and the one behind the ops listener."""
        config = self.config
        metrics = GrpcMetrics(self._registry)
        tls = config.service_tls
        public, ops = (
            GrpcServer(
                f"{LOOPBACK}:{port}",
                resolver=self.identity.resolver(operator=operator),
                metrics=metrics,
                with_channelz=operator,
                describes_all=operator,
                drain=self.drain,
                credentials=tls.server_credentials() if tls is not None else None,
                trail=self.audit.trail,
                security=self.audit.security,
            )
            for port, operator in ((config.grpc_port, False), (config.ops_grpc_port, True))
        )
        return public, ops

    def _make_revoked_orders(self) -> RevokedOrders | None:
        revocations = self.identity.revocations
        return None if revocations is None else RevokedOrders(revocations, self.desk, self.clock)

    def _add_services(self, places: Places) -> None:
        secret = self._replica_secret()
        streams = OrderStreams(self.desk, self.hub, places, self.drain)
        orders = OrderService(self.desk, self.tape, self.sessions, streams, self.admittance)
        market = MarketService(self.desk, self.tape, self.books, self.trades)
        account = AccountService(self.desk, self.hub, self.drain, self.rates)
        health = HealthService(self.desk, version("pincex"), self.config.openapi)
        for server in (self.public, self.ops):
            add_client_services(server, orders, market, account, health)
        metrics = FleetMetrics(self.desk.instance, self._registry, self.config.edge_stats_url, self._others)
        replicas = ReplicaDesk(self.desk, lambda: self.replica, self.config.service_tls)
        add_operator_services(
            self.ops,
            TradingAdminService(self.desk, self._inspector, metrics.text, replicas, self._make_snapshot, self.activity),
            FundsService(self.desk, self.hub),
            EventService(self.desk, self.hub, places),
            ReplicaService(
                secret, self._journal.incarnation, lambda: self.replica.downlinks if self.replica is not None else None
            ),
        )

    def _replica_secret(self) -> str:
        return self.config.replica_secret.reveal() if self.config.replica_secret is not None else ""

    def _make_replica(self) -> Replica:
        """Once the ports are known."""
        me = ReplicaInfo(
            instance=self.config.runtime.instance,
            role=FOLLOWER,
            ops_address=f"{LOOPBACK}:{self.ops.port}",
            metrics_url=f"http://{LOOPBACK}:{self.status.port}/metrics",
            version=version("pincex"),
            core_mode=core_loader.mode(),
            supported_rules_version=rules.newest(),
        )
        return Replica(
            Parts(
                me=me,
                address=me.ops_address,
                shard=SHARD,
                journal=self._journal,
                lease=self._lease,
                transport=GrpcTransport(self._replica_secret(), self._journal.incarnation, self.config.service_tls),
                clock=self.clock,
                watcher=self.instance,
                on_append=self._metrics.appended,
                times=self.times,
            )
        )

    def _announce(self, attendance: Attendance) -> None:
        """Tell the leader, while this instance follows, who is connected here."""
        if self.desk.is_seated and isinstance(self.desk.seat, Follower):
            self.desk.seat.uplink.attend(attendance)

    def _others(self) -> list[ReplicaInfo]:
        """The other instances, as far as they are known here."""
        known = self.replica.replicas() if self.replica is not None else []
        return [one for one in known if one.instance != self.desk.instance]

    async def _begin(self, desk: Desk) -> None:
        """What a new exchange begins with."""
        others = [one.supported_rules_version for one in self._others()]
        newest = min([self.config.max_rules, *others])
        await bootstrap.begin(desk, newest, development=self.config.runtime.development)

    def _ready(self) -> Readiness:
        if self.drain.is_set():
            return Readiness(ready=False, why="draining")
        # Not the desk: it is seated before the first commands, those that make the markets, are durable.
        return Readiness(ready=self._serving.is_set(), why="neither leading nor linked to a leader yet")

    def _role(self) -> str:
        return self.desk.role.lower()

    async def _on_serving(self, serving: bool) -> None:  # noqa: FBT001 - it is the state
        if serving:
            self._serving.set()
        else:
            self._serving.clear()
        for server in (self.public, self.ops):
            await server.set_serving(serving)
        if not serving and not self.drain.is_set():
            # The next core may be another: copies made from this one end with it.
            self.books.end(ErrorReason.NOT_READY)
            self.trades.end(ErrorReason.NOT_READY)

    async def _make_snapshot(self) -> int:
        if self.config.memory or self.config.database_url is None:
            return await self._inspector.snapshot()
        return await store_apart(self.config.database_url)

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            now = self.clock.time_ns()
            self.books.heartbeat(now)
            self.trades.heartbeat(now)

    async def _turn(self, switch: int, on: bool, request_id: str) -> None:  # noqa: FBT001 - it is the value
        state = self.desk.state
        present = {SWITCH_ACCEPT_NEW_ORDERS: state.accept_new_orders, SWITCH_MAINTENANCE: state.maintenance}
        if present[switch] != on:
            await self.desk.execute(cmd.set_switch("$configuration", switch, on=on, request_id=request_id))

    async def _begins_as_leader(self) -> bool:
        await self._serving.wait()
        return self.desk.sequencer is not None

    def _watcher(self) -> SwitchWatcher:
        config = self.config
        given = {SWITCH_ACCEPT_NEW_ORDERS: config.accept_new_orders, SWITCH_MAINTENANCE: config.maintenance_mode}
        return SwitchWatcher(
            config.switches_dir,
            {switch: on for switch, on in given.items() if on is not None},
            self._turn,
            self._begins_as_leader,
        )

    async def run(self) -> None:
        """Serve until a signal comes or the instance fails."""
        stopped = process.stop_signal()
        debug = await start_debug_server(self.config.runtime)
        await self.status.start()
        for server in (self.public, self.ops):
            await server.start()
        self.gc.start()
        self.audit.start()
        replica = self.replica = self._make_replica()
        duties = (self._heartbeats(), self._watcher().run(), self.gc.run(), self.identity.run())
        background = [asyncio.create_task(duty) for duty in duties]
        living = asyncio.create_task(replica.run())
        waiting = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({living, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not living.done():
                # Whoever still calls here is served as a follower serves, until the servers have stopped.
                await replica.hand_over()
            await self._stop()
            replica.stop()
            await living
        finally:
            for task in (waiting, *background):
                task.cancel()
            await asyncio.gather(waiting, *background, return_exceptions=True)
            await self.audit.close()
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
    rules.restrict(config.max_rules)
    configure_logging(service=SERVICE, instance=config.runtime.instance, level=config.runtime.log_level)
    try:
        process.run(lambda: main(config))
    except JournalError as error:
        structlog.get_logger("main").error("the journal must not be served", error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    end_process(run())

"""What runs: the one list of services, wired together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exchange.stack.certificates.wiring import SERVICE_TLS, decide
from exchange.stack.edge.contract import ContractError, read_contract
from exchange.stack.edge.plan import LOOPBACK, EdgePlan, Route
from exchange.stack.envoy import EnvoyService
from exchange.stack.errors import StackError
from exchange.stack.files import secret
from exchange.stack.ports import PortBook
from exchange.stack.postgresql.pair import PostgresPair, has_pair
from exchange.stack.postgresql.roles import ADMIN, TRADING
from exchange.stack.postgresql.server import PostgresService
from exchange.stack.postgresql.state import NUMBERS
from exchange.stack.python_service import InstancePorts, Migration, PythonService
from exchange.stack.service import Traits
from exchange.stack.valkey import ValkeyService

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exchange.stack.config import PortSetting, StackConfig, UpOptions
    from exchange.stack.service import Service

# The edge's names for the two gRPC ports of an engine.
TRADING_UPSTREAMS = ("trading", "trading-ops")
ROUTES = (
    Route("pincex.trading.v1", public="trading", ops="trading-ops"),
    Route("pincex.journal.v1", public="trading", ops="trading-ops"),
)
# Which service each upstream is.
UPSTREAM_SERVICES = dict.fromkeys(TRADING_UPSTREAMS, "trading-engine")
# From one instance's first port to the next one's, where the operator chose the first.
PORTS_PER_INSTANCE = 10


@dataclass(frozen=True, slots=True)
class Stack:
    """The services in the order in which they are shown, the edge among them, and the addresses to try.

    `pair` is PostgreSQL where it has a standby.
    """

    services: tuple[Service, ...]
    edge: EnvoyService
    edge_port: int
    addresses: Mapping[str, str | None]
    pair: PostgresPair | None = None


def build(
    config: StackConfig,
    options: UpOptions,
    report: Callable[[dict[str, object]], None],
) -> Stack:
    """Chooses the ports and wires the services. Raises StackError.

    An external DATABASE_URL or REDIS_URL takes the place of ours, and `options.memory` runs without any database.
    `report` gets what the services want an operator to know.
    """
    memory = options.memory
    book = PortBook(config.home / "ports.json")
    plan = _edge(config, book)
    tls = decide(
        config.home,
        config.tls,
        UPSTREAM_SERVICES,
        {"tls": lambda: book.choose("tls", config.tls_port), "mtls": lambda: book.choose("mtls", config.mtls_port)},
        has_gate=plan.identity is not None,
    )
    edge = replace(plan, tls_listeners=tls.listeners, tls_services=tls.services)
    stores: list[Service] = []
    postgres: PostgresService | PostgresPair | None = None
    database_url = admin_database_url = None
    if options.standby and (memory or config.database_url):
        raise StackError("--standby is for a PostgreSQL of ours: neither with --memory nor with DATABASE_URL")
    if not memory:
        database_url, admin_database_url = config.database_url, config.admin_database_url
        if database_url is None:
            postgres = _postgres(config, options, book, report)
            stores.append(postgres)
            database_url, admin_database_url = postgres.url(TRADING), postgres.url(ADMIN)
    redis_url = config.redis_url
    if redis_url is None:
        port = book.choose("valkey", config.valkey_port)
        valkey = ValkeyService(config.home, port, _foreign_environment(config))
        stores.append(valkey)
        redis_url = valkey.url
    jwt_secret = config.jwt_secret or secret(config.home / "secrets", "jwt")

    def environment(service: str) -> Callable[[], Mapping[str, str]]:
        def read() -> Mapping[str, str]:
            # Where things are and what opens them stays as it was at `up`: instances that run already use it too.
            ours = _our_environment(config.reread(), edge, database_url, redis_url, jwt_secret, memory=memory)
            return {**ours, **tls.environment(service)}

        return read

    debug_port = book.choose("debug", config.debug_port)
    engine = PythonService(
        traits=Traits(
            name="trading-engine",
            # Until it says itself what it is.
            role="unknown",
            needs=tuple(store.traits.name for store in stores),
            ready_timeout_s=120.0,
            stop_timeout_s=15.0,
            numbered=True,
            max_instances=1 if memory else config.engine_max_instances,
            why_no_more="a journal in memory belongs to one process" if memory else "PINCEX_ENGINE_MAX_INSTANCES",
        ),
        module=config.engine_module,
        folder=config.home,
        environment=environment("trading-engine"),
        ports=_instance_ports(book, "trading-engine", config.engine_port, debug_port),
        upstreams=TRADING_UPSTREAMS,
        migration=Migration(admin_database_url, config.home / "logs" / "migrate.log") if admin_database_url else None,
    )
    envoy = EnvoyService(config.home, edge, _foreign_environment(config), tls.delivery(edge.secrets_dir, report))
    addresses = {
        "edge_url": f"http://{LOOPBACK}:{edge.edge_port}",
        **{f"{one.name}_url": f"https://{one.address}" for one in tls.listeners},
        "ops_url": f"http://{LOOPBACK}:{edge.ops_port}",
        "debug_url": f"http://{LOOPBACK}:{debug_port}",
        "envoy_admin_url": f"http://{LOOPBACK}:{edge.admin_port}",
        "database_url": database_url,
        "admin_database_url": admin_database_url,
        "redis_url": redis_url,
    }
    pair = postgres if isinstance(postgres, PostgresPair) else None
    return Stack((*stores, engine, envoy), envoy, edge.edge_port, addresses, pair)


def _postgres(
    config: StackConfig,
    options: UpOptions,
    book: PortBook,
    report: Callable[[dict[str, object]], None],
) -> PostgresService | PostgresPair:
    """One server, or a pair: once a folder has a standby it keeps it."""
    environment = _foreign_environment(config)
    first = book.choose("postgres", config.postgres_port)
    if not options.standby and not has_pair(config.home):
        return PostgresService(config.home, first, environment)
    setting = replace(config.postgres_port, what="PostgreSQL's standby")
    ports = {
        number: book.choose(f"postgres-{number}", setting, number - 1) if number > 1 else first for number in NUMBERS
    }
    return PostgresPair(config.home, ports, environment, report)


def _edge(config: StackConfig, book: PortBook) -> EdgePlan:
    try:
        contract = read_contract(config.image)
    except ContractError as error:
        raise StackError(str(error)) from error
    return EdgePlan(
        contract=contract,
        edge_port=book.choose("edge", config.edge_port),
        ops_port=book.choose("ops", config.ops_port),
        admin_port=book.choose("envoy-admin", config.envoy_admin_port),
        endpoints_dir=config.home / "envoy" / "endpoints",
        access_log=config.home / "logs" / "envoy-access.log",
        upstreams=TRADING_UPSTREAMS,
        routes=ROUTES,
        infrastructure_upstream="trading-ops",
    )


def _instance_ports(
    book: PortBook,
    name: str,
    setting: PortSetting,
    debug_port: int,
) -> Callable[[int], InstancePorts]:
    def choose(number: int) -> InstancePorts:
        first = PORTS_PER_INSTANCE * (number - 1)
        mine = replace(setting, what=f"{name}-{number}")
        grpc, ops, metrics = (
            book.choose(f"{name}-{number}.{kind}", mine, first + offset)
            for offset, kind in enumerate(("grpc", "ops", "metrics"))
        )
        return InstancePorts(grpc, ops, metrics, debug_port if number == 1 else 0)

    return choose


def _foreign_environment(config: StackConfig) -> dict[str, str]:
    """For programs that are not ours: none of our settings or secrets, and none of libpq's that would mislead them."""
    ours = ("PINCEX_", "PG", "DATABASE_URL", "REDIS_URL", "JWT_SECRET")
    return {key: value for key, value in config.environment.items() if not key.startswith(ours)}


def _our_environment(
    config: StackConfig,
    edge: EdgePlan,
    database_url: str | None,
    redis_url: str,
    jwt_secret: str,
    *,
    memory: bool,
) -> dict[str, str]:
    switches = config.home / "switches"
    switches.mkdir(exist_ok=True)
    environment = {
        **config.environment,
        "PYTHONUNBUFFERED": "1",
        "PINCEX_HOME": str(config.home),
        "PINCEX_LOG_DIR": config.environment.get("PINCEX_LOG_DIR") or str(config.home / "logs"),
        "PINCEX_PROFILE": config.environment.get("PINCEX_PROFILE") or "development",
        "PINCEX_SWITCHES_DIR": str(switches),
        "PINCEX_ENVOY_STATS_URL": f"http://{LOOPBACK}:{edge.admin_port}/stats/prometheus",
        "PINCEX_IMAGE": str(config.image),
        "REDIS_URL": redis_url,
        "JWT_SECRET": jwt_secret,
        "LOG_LEVEL": config.log_level,
    }
    for absent in ("PINCEX_MEMORY", "DATABASE_URL", "PINCEX_ADMIN_DATABASE_URL", *SERVICE_TLS):
        environment.pop(absent, None)
    if memory:
        environment["PINCEX_MEMORY"] = "1"
    if database_url:
        environment["DATABASE_URL"] = database_url
    return environment

"""What runs: the one list of services, wired together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from exchange.runtime.config import DEVELOPMENT, Secret
from exchange.runtime.edge_proof import edge_proof
from exchange.stack.catalogue import AUTH_SERVICE, CATALOGUE, MARKET_DATA, TRADING_ENGINE, WEBSOCKET
from exchange.stack.certificates.wiring import decide
from exchange.stack.config import PortSetting
from exchange.stack.edge.contract import ContractError, read_contract
from exchange.stack.edge.plan import LOOPBACK, EdgePlan, Identity, Preferred, Route
from exchange.stack.environments import Secrets, foreign_environment, service_environment
from exchange.stack.envoy import EnvoyService
from exchange.stack.errors import StackError
from exchange.stack.files import secret
from exchange.stack.ports import PortBook
from exchange.stack.postgresql import roles
from exchange.stack.postgresql.pair import PostgresPair, has_pair
from exchange.stack.postgresql.server import PostgresService
from exchange.stack.postgresql.state import NUMBERS
from exchange.stack.profile import check_profile
from exchange.stack.python_service import Migrations, PythonService
from exchange.stack.service import Traits
from exchange.stack.valkey import ValkeyService

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exchange.stack.catalogue import Entry
    from exchange.stack.certificates.wiring import Tls
    from exchange.stack.config import StackConfig, UpOptions
    from exchange.stack.service import Service

    Ports = Callable[[int], Mapping[str, int]]

# The edge's names for the ports of a service, and which port each is.
TRADING_UPSTREAMS = {"trading": "grpc", "trading-ops": "ops_grpc"}
ROUTES = (
    Route("pincex.trading.v1", public="trading", ops="trading-ops"),
    Route("pincex.journal.v1", public="trading", ops="trading-ops"),
)
# Books and trades for everyone come from market data; while none of it runs, the engines answer themselves.
PREFERRED = (Preferred("pincex.trading.v1.MarketService", "markets", ("market-data", "trading")),)
# From one instance's first port to the next one's, where the operator chose the first.
PORTS_PER_INSTANCE = 10
NO_DATABASE = (
    "without a database (--memory) the trading engine runs alone: nobody can log in, no token is taken, no books are kept, "
    f"and there is neither {', '.join(entry.name for entry in CATALOGUE[:-1])} nor {CATALOGUE[-1].name}"
)


@dataclass(frozen=True, slots=True)
class Stack:
    """The services in the order in which they are shown, the edge among them, and the addresses to try.

    `health_paths` of the public edge answer 200 once the service by their name serves. `pair` is PostgreSQL where it has a
    standby; `note` is what a user should know of what does not run.
    """

    services: tuple[Service, ...]
    edge: EnvoyService
    edge_port: int
    addresses: Mapping[str, str | None]
    health_paths: Mapping[str, str] = field(default_factory=dict)
    pair: PostgresPair | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Stores:
    """The databases: those that we run ourselves, and what opens them."""

    services: tuple[Service, ...]
    secrets: Secrets
    admin_database_url: str | None
    pair: PostgresPair | None

    @property
    def names(self) -> tuple[str, ...]:
        """What everything else waits for."""
        return tuple(service.traits.name for service in self.services)


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
    plan = _edge(config, book, memory=memory)
    tls = _tls(config, book, plan)
    check_profile(config, memory=memory, has_tls=bool(tls.listeners))
    edge = replace(plan, tls_listeners=tls.listeners, tls_services=tls.services)
    stores = _stores(config, options, book, report)
    ours = _our_services(config, book, edge, stores, tls)
    envoy = EnvoyService(config.home, edge, foreign_environment(config), tls.delivery(edge.secrets_dir, report))
    addresses = {
        "edge_url": f"http://{LOOPBACK}:{edge.edge_port}",
        **{f"{one.name}_url": f"https://{one.address}" for one in tls.listeners},
        "ops_url": f"http://{LOOPBACK}:{edge.ops_port}",
        **({"internal_url": f"http://{LOOPBACK}:{edge.internal_port}"} if edge.internal_port is not None else {}),
        "debug_url": f"http://{LOOPBACK}:{ours[0].ports(1)['debug']}",
        "envoy_admin_url": f"http://{LOOPBACK}:{edge.admin_port}",
        "database_url": stores.secrets.database_urls.get(TRADING_ENGINE),
        "admin_database_url": stores.admin_database_url,
        "redis_url": stores.secrets.redis_url,
    }
    health = {TRADING_ENGINE: "/api/v1/health", AUTH_SERVICE: "/api/v1/auth/time", MARKET_DATA: "/api/v1/tickers"}
    return Stack(
        services=(*stores.services, *ours, envoy),
        edge=envoy,
        edge_port=edge.edge_port,
        addresses=addresses,
        health_paths={name: health[name] for one in ours if (name := one.traits.name) in health},
        pair=stores.pair,
        note=NO_DATABASE if memory else "",
    )


def _tls(config: StackConfig, book: PortBook, plan: EdgePlan) -> Tls:
    services = dict.fromkeys(TRADING_UPSTREAMS, TRADING_ENGINE)
    for entry in CATALOGUE:
        services |= dict.fromkeys(entry.upstreams, entry.name)
    return decide(
        config.home,
        config.tls,
        {upstream: services[upstream] for upstream in plan.upstreams},
        {"tls": lambda: book.choose("tls", config.tls_port), "mtls": lambda: book.choose("mtls", config.mtls_port)},
        has_gate=plan.identity is not None,
    )


def _stores(
    config: StackConfig, options: UpOptions, book: PortBook, report: Callable[[dict[str, object]], None]
) -> _Stores:
    if options.standby and (options.memory or config.database_url):
        raise StackError("--standby is for a PostgreSQL of ours: neither with --memory nor with DATABASE_URL")
    services: list[Service] = []
    postgres: PostgresService | PostgresPair | None = None
    if not options.memory and config.database_url is None:
        postgres = _postgres(config, options, book, report)
        services.append(postgres)
    redis_url = config.redis_url
    if redis_url is None:
        valkey = ValkeyService(config.home, book.choose("valkey", config.valkey_port), foreign_environment(config))
        services.append(valkey)
        redis_url = valkey.url
    secrets = Secrets(
        redis_url,
        _jwt_secret(config),
        config.auth_secret or secret(config.home / "secrets", "auth"),
        config.kyc_secret or secret(config.home / "secrets", "kyc"),
    )
    admin_url = None
    with_database = [entry for entry in CATALOGUE if entry.database]
    if postgres is not None:
        admin_url = postgres.url(roles.ADMIN)
        urls = {entry.name: postgres.url(f"{entry.database}_user") for entry in with_database}
        secrets = replace(secrets, database_urls={TRADING_ENGINE: postgres.url(roles.TRADING), **urls})
    elif not options.memory:
        admin_url = config.admin_database_url
        secrets = replace(secrets, database_urls={TRADING_ENGINE: config.database_url, **config.database_urls})
    return _Stores(tuple(services), secrets, admin_url, postgres if isinstance(postgres, PostgresPair) else None)


def _our_services(
    config: StackConfig, book: PortBook, edge: EdgePlan, stores: _Stores, tls: Tls
) -> tuple[PythonService, ...]:
    """The trading engine first; the others only where there is a database."""
    migrations = None
    if stores.admin_database_url is not None:
        migrations = Migrations(stores.admin_database_url, config.home, _environment(config, edge, stores, tls, "")())

    def service(traits: Traits, module: str, ports: Ports, upstreams: Mapping[str, str]) -> PythonService:
        environment = _environment(config, edge, stores, tls, traits.name)
        return PythonService(traits, module, config.home, environment, ports, upstreams, migrations)

    engine = service(
        _engine_traits(config, stores),
        config.engine_module,
        _engine_ports(book, config),
        TRADING_UPSTREAMS,
    )
    if edge.identity is None:
        return (engine,)
    return (engine, *(service(*_of_catalogue(config, book, stores, entry)) for entry in config.entries))


def _of_catalogue(
    config: StackConfig, book: PortBook, stores: _Stores, entry: Entry
) -> tuple[Traits, str, Ports, Mapping[str, str]]:
    traits = Traits(
        name=entry.name,
        role=entry.role,
        needs=stores.names,
        ready_timeout_s=60.0,
        stop_timeout_s=entry.stop_timeout_s,
        numbered=entry.max_instances > 1,
        max_instances=entry.max_instances,
    )
    ports = _free_ports(book, entry.name, entry.kinds)
    return traits, config.modules[entry.name], ports, {**entry.upstreams, **entry.http_upstreams}


def _engine_traits(config: StackConfig, stores: _Stores) -> Traits:
    memory = not stores.secrets.database_urls
    return Traits(
        name=TRADING_ENGINE,
        # Until it says itself what it is.
        role="unknown",
        needs=stores.names,
        ready_timeout_s=120.0,
        stop_timeout_s=15.0,
        numbered=True,
        max_instances=1 if memory else config.engine_max_instances,
        why_no_more="a journal in memory belongs to one process" if memory else "PINCEX_ENGINE_MAX_INSTANCES",
    )


def _environment(
    config: StackConfig, edge: EdgePlan, stores: _Stores, tls: Tls, service: str
) -> Callable[[], Mapping[str, str]]:
    """What a service is started with, by the settings as they are when it is asked."""

    def read() -> Mapping[str, str]:
        # The profile stays: it was judged together with where the edge listens, and the edge goes by it.
        now = replace(config.reread(), profile=config.profile)
        return {**service_environment(now, edge, stores.secrets, service), **tls.environment(service)}

    return read


def _jwt_secret(config: StackConfig) -> str:
    return config.jwt_secret or secret(config.home / "secrets", "jwt")


def _postgres(
    config: StackConfig,
    options: UpOptions,
    book: PortBook,
    report: Callable[[dict[str, object]], None],
) -> PostgresService | PostgresPair:
    """One server, or a pair: once a folder has a standby it keeps it."""
    environment = foreign_environment(config)
    first = book.choose("postgres", config.postgres_port)
    if not options.standby and not has_pair(config.home):
        return PostgresService(config.home, first, environment)
    setting = replace(config.postgres_port, what="PostgreSQL's standby")
    ports = {
        number: book.choose(f"postgres-{number}", setting, number - 1) if number > 1 else first for number in NUMBERS
    }
    return PostgresPair(config.home, ports, environment, report)


def _edge(config: StackConfig, book: PortBook, *, memory: bool) -> EdgePlan:
    try:
        contract = read_contract(config.image)
    except ContractError as error:
        raise StackError(str(error)) from error
    # Routes and upstreams of what does not run are there too: who calls it hears that nobody answers.
    others = () if memory else CATALOGUE
    return EdgePlan(
        contract=contract,
        edge_port=book.choose("edge", config.edge_port),
        ops_port=book.choose("ops", config.ops_port),
        admin_port=book.choose("envoy-admin", config.envoy_admin_port),
        endpoints_dir=config.home / "envoy" / "endpoints",
        access_log=config.home / "logs" / "envoy-access.log",
        upstreams=(*TRADING_UPSTREAMS, *(name for entry in others for name in entry.upstreams)),
        routes=(*ROUTES, *(route for entry in others for route in entry.routes)),
        infrastructure_upstream="trading-ops",
        preferred=() if memory else PREFERRED,
        identity=None if memory else Identity(edge_proof(Secret(_jwt_secret(config)))),
        anonymous=config.profile == DEVELOPMENT,
        rates=config.rates,
        internal_port=None if memory else book.choose("internal", config.internal_port),
        websocket=None if memory else WEBSOCKET,
    )


def _engine_ports(book: PortBook, config: StackConfig) -> Ports:
    debug = book.choose("debug", config.debug_port)

    def choose(number: int) -> Mapping[str, int]:
        first = PORTS_PER_INSTANCE * (number - 1)
        mine = replace(config.engine_port, what=f"{TRADING_ENGINE}-{number}")
        found = {
            kind: book.choose(f"{TRADING_ENGINE}-{number}.{kind.removesuffix('_grpc')}", mine, first + offset)
            for offset, kind in enumerate(("grpc", "ops_grpc", "metrics"))
        }
        return {**found, "debug": debug} if number == 1 else found

    return choose


def _free_ports(book: PortBook, name: str, kinds: tuple[str, ...]) -> Ports:
    def choose(number: int) -> Mapping[str, int]:
        mine = PortSetting("", f"{name}-{number}", 0)
        return {kind: book.choose(f"{name}-{number}.{kind}", mine) for kind in kinds}

    return choose

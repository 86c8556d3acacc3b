"""The services that live on the database, beside the trading engine: one table, read by all that wires them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from exchange.stack.edge.plan import Route
from exchange.stack.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TRADING_ENGINE, AUTH_SERVICE, ADMIN_SERVICE, SETTLEMENT = "trading-engine", "auth-service", "admin", "settlement"
WALLET, MARKET_DATA, MARKET_MAKER, WEBSOCKET = "wallet", "market-data", "market-maker", "websocket"


@dataclass(frozen=True, slots=True)
class Entry:
    """One service.

    `key` is its part of the names of settings (`PINCEX_<KEY>_MODULE`), `module` what runs, `packages` the proto packages that it
    serves. `upstreams` says for the edge's names which port serves them; those of plain HTTP stand in `http_upstreams`.
    `database` is the part of `PINCEX_<DATABASE>_DATABASE_URL` and of the role `<database>_user`; empty: it has none.
    """

    name: str
    key: str
    module: str
    packages: tuple[str, ...]
    upstreams: Mapping[str, str]
    database: str = ""
    role: str = ""
    http_upstreams: Mapping[str, str] = field(default_factory=dict)
    max_instances: int = 1
    stop_timeout_s: float = 10.0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The ports of an instance."""
        return tuple(dict.fromkeys((*self.upstreams.values(), *self.http_upstreams.values(), "metrics")))

    @property
    def database_variable(self) -> str:
        """The variable by which the service learns its database; empty where it has none."""
        return f"PINCEX_{self.database.upper()}_DATABASE_URL" if self.database else ""

    @property
    def module_variable(self) -> str:
        """The variable that puts another program in its place."""
        return f"PINCEX_{self.key.upper()}_MODULE"

    @property
    def routes(self) -> tuple[Route, ...]:
        """What the edge sends to it."""
        public = next((name for name, kind in self.upstreams.items() if kind == "grpc"), None)
        ops = next(name for name, kind in self.upstreams.items() if kind == "ops_grpc")
        return tuple(Route(package, public=public, ops=ops) for package in self.packages)


CATALOGUE: Final = (
    Entry(
        AUTH_SERVICE,
        "auth",
        "exchange.auth",
        ("pincex.auth.v1",),
        {"auth": "grpc", "auth-ops": "ops_grpc"},
        database="auth",
        role="auth",
        http_upstreams={"auth-gate": "gate", "auth-keys": "metrics"},
        max_instances=8,
    ),
    Entry(
        ADMIN_SERVICE,
        "admin",
        "exchange.admin",
        ("pincex.admin.v1",),
        {"admin-ops": "ops_grpc"},
        database="audit",
        role="admin",
    ),
    # One of them writes, the others stand by; so with the wallet, and with the history of market data.
    Entry(
        SETTLEMENT,
        "settlement",
        "exchange.settlement",
        ("pincex.settlement.v1",),
        {"settlement": "grpc", "settlement-ops": "ops_grpc"},
        database="settlement",
        role="settlement",
        max_instances=4,
    ),
    Entry(
        WALLET,
        "wallet",
        "exchange.wallet",
        ("pincex.wallet.v1", "pincex.kyc.v1"),
        {"wallet": "grpc", "wallet-ops": "ops_grpc"},
        database="wallet",
        role="wallet",
        max_instances=4,
    ),
    Entry(
        MARKET_DATA,
        "market_data",
        "exchange.market_data",
        ("pincex.marketdata.v1",),
        {"market-data": "grpc", "market-data-ops": "ops_grpc"},
        database="market_data",
        role="market-data",
        max_instances=8,
    ),
    Entry(
        WEBSOCKET,
        "websocket",
        "exchange.websocket",
        ("pincex.websocket.v1",),
        {"websocket-ops": "ops_grpc"},
        database="websocket",
        role="websocket",
        http_upstreams={"websocket": "ws"},
        max_instances=8,
    ),
    Entry(
        MARKET_MAKER,
        "market_maker",
        "exchange.market_maker",
        ("pincex.marketmaker.v1",),
        {"market-maker-ops": "ops_grpc"},
        database="market_maker",
        role="market-maker",
        max_instances=4,
    ),
)
BY_NAME: Final = MappingProxyType({entry.name: entry for entry in CATALOGUE})
# Without them nobody can be known, and nothing is on record: an exchange with a database has both.
ALWAYS: Final = frozenset({AUTH_SERVICE, ADMIN_SERVICE})


def parse_without(text: str) -> frozenset[str]:
    """`PINCEX_WITHOUT`: names of services that shall not run, separated by commas. Raises StackError."""
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    choices = [entry.name for entry in CATALOGUE if entry.name not in ALWAYS]
    if unknown := sorted(names - set(choices)):
        raise StackError(f"PINCEX_WITHOUT may name {', '.join(choices)}, not {', '.join(unknown)}")
    return names


def without(names: Iterable[str]) -> tuple[Entry, ...]:
    """All but these, in the order in which they are shown."""
    left_out = set(names)
    return tuple(entry for entry in CATALOGUE if entry.name not in left_out)

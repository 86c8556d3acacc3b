"""What a trading engine needs to know to start, read once from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exchange.runtime.config import ConfigError, Environment, RuntimeConfig, Secret
from exchange.runtime.service_tls import ServiceTls
from exchange.trading.core.constants import RULES_VERSION

SERVICE = "trading-engine"
DEFAULT_SNAPSHOT_EVERY = 500_000


@dataclass(frozen=True, slots=True)
class Config:
    """See docs/DEVELOPMENT.md for the variables. Ports are on loopback; 0 takes any free one.

    `replica_secret` is what all instances of an engine share and nobody else knows: their links are opened by it.
    `service_secret` is what all services share: by it they know one another.
    """

    runtime: RuntimeConfig
    grpc_port: int
    ops_grpc_port: int
    metrics_port: int
    database_url: Secret | None
    memory: bool
    switches_dir: Path | None
    accept_new_orders: bool | None
    maintenance_mode: bool | None
    edge_stats_url: str
    openapi: Path
    snapshot_every: int
    drain_s: float
    max_ids: int
    max_id_age_s: int
    max_finished_orders: int
    max_rules: int
    replica_secret: Secret | None
    service_secret: Secret | None
    service_tls: ServiceTls | None

    @classmethod
    def read(cls, environment: Environment) -> Config:
        """Read and check everything. Raises ConfigError, naming the variable."""
        memory = environment.boolean("PINCEX_MEMORY", default=False)
        database_url = environment.optional_secret("DATABASE_URL")
        if database_url is None and not memory:
            raise ConfigError("DATABASE_URL is not set (or say PINCEX_MEMORY=1 for an exchange that forgets)")
        here = Path(__file__).resolve()
        return cls(
            runtime=RuntimeConfig.read(environment, SERVICE),
            grpc_port=environment.integer("PINCEX_GRPC_PORT", 0, minimum=0, maximum=65535),
            ops_grpc_port=environment.integer("PINCEX_OPS_GRPC_PORT", 0, minimum=0, maximum=65535),
            metrics_port=environment.integer("PINCEX_METRICS_PORT", 0, minimum=0, maximum=65535),
            database_url=database_url,
            memory=memory,
            switches_dir=_optional_path(environment, "PINCEX_SWITCHES_DIR"),
            accept_new_orders=_optional_flag(environment, "ACCEPT_NEW_ORDERS"),
            maintenance_mode=_optional_flag(environment, "MAINTENANCE_MODE"),
            edge_stats_url=environment.optional("PINCEX_ENVOY_STATS_URL", ""),
            openapi=environment.path("PINCEX_OPENAPI", here.parents[3] / "docs" / "openapi.json"),
            snapshot_every=environment.integer("PINCEX_SNAPSHOT_EVERY", DEFAULT_SNAPSHOT_EVERY, minimum=1_000),
            drain_s=environment.number("PINCEX_DRAIN_SECONDS", 5.0, minimum=0.5, maximum=300.0),
            max_ids=environment.integer("PINCEX_MAX_IDS", 1_000_000, minimum=1_000),
            max_id_age_s=environment.integer("PINCEX_MAX_ID_AGE_SECONDS", 86_400, minimum=60),
            max_finished_orders=environment.integer("PINCEX_MAX_FINISHED_ORDERS", 200_000, minimum=1_000),
            max_rules=environment.integer("PINCEX_MAX_RULES", RULES_VERSION, minimum=1, maximum=RULES_VERSION),
            replica_secret=environment.optional_secret("JWT_SECRET") or database_url,
            service_secret=environment.optional_secret("JWT_SECRET"),
            service_tls=ServiceTls.read(environment),
        )


def _optional_flag(environment: Environment, name: str) -> bool | None:
    return environment.boolean(name) if environment.optional(name) else None


def _optional_path(environment: Environment, name: str) -> Path | None:
    return environment.path(name) if environment.optional(name) else None

"""What the admin service needs to know to start, read once from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from exchange.admin.retention import LEAST_DAYS
from exchange.runtime.config import ConfigError, Environment, RuntimeConfig, Secret
from exchange.runtime.service_tls import ServiceTls

SERVICE: Final = "admin"
_RETENTION: Final = "PINCEX_AUDIT_RETENTION_DAYS"


@dataclass(frozen=True, slots=True)
class Config:
    """See docs/DEVELOPMENT.md for the variables. Ports are on loopback; 0 takes any free one.

    `database_url` is of the role audit_user, which reads the trail, revocations and signing keys, and may call audit_prune.
    `retention_days` 0: all audit records are kept.
    """

    runtime: RuntimeConfig
    ops_grpc_port: int
    metrics_port: int
    database_url: Secret
    jwt_secret: Secret | None
    service_tls: ServiceTls | None
    watch_s: float
    retention_days: int
    drain_s: float

    @classmethod
    def read(cls, environment: Environment) -> Config:
        """Read and check everything. Raises ConfigError, naming the variable."""
        return cls(
            runtime=RuntimeConfig.read(environment, SERVICE),
            ops_grpc_port=environment.integer("PINCEX_OPS_GRPC_PORT", 0, minimum=0, maximum=65535),
            metrics_port=environment.integer("PINCEX_METRICS_PORT", 0, minimum=0, maximum=65535),
            database_url=environment.database_url("PINCEX_AUDIT_DATABASE_URL"),
            jwt_secret=environment.optional_secret("JWT_SECRET"),
            service_tls=ServiceTls.read(environment),
            watch_s=environment.number("PINCEX_AUDIT_WATCH_SECONDS", 30.0, minimum=0.05, maximum=3_600.0),
            retention_days=_retention_days(environment),
            drain_s=environment.number("PINCEX_DRAIN_SECONDS", 5.0, minimum=0.5, maximum=300.0),
        )


def _retention_days(environment: Environment) -> int:
    days = environment.integer(_RETENTION, 0, minimum=0, maximum=36_500)
    if 0 < days < LEAST_DAYS:
        raise ConfigError(f"{_RETENTION} must be 0, which keeps all records, or at least {LEAST_DAYS}")
    return days

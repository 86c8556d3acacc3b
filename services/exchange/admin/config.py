"""What the admin service needs to know to start, read once from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from exchange.runtime.config import Environment, RuntimeConfig, Secret
from exchange.runtime.service_tls import ServiceTls

SERVICE: Final = "admin"


@dataclass(frozen=True, slots=True)
class Config:
    """See docs/DEVELOPMENT.md for the variables. Ports are on loopback; 0 takes any free one.

    `database_url` is of the role audit_user, which reads the trail, revocations and signing keys.
    """

    runtime: RuntimeConfig
    ops_grpc_port: int
    metrics_port: int
    database_url: Secret
    jwt_secret: Secret | None
    service_tls: ServiceTls | None
    watch_s: float
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
            drain_s=environment.number("PINCEX_DRAIN_SECONDS", 5.0, minimum=0.5, maximum=300.0),
        )

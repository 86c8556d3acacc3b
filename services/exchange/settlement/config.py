"""What settlement needs to know to start, read once from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from exchange.runtime.config import Environment, RuntimeConfig, Secret
from exchange.runtime.service_tls import ServiceTls

SERVICE: Final = "settlement"


@dataclass(frozen=True, slots=True)
class Config:
    """See docs/DEVELOPMENT.md for the variables. Ports are on loopback; 0 takes any free one.

    `internal_target` is where the other services answer one another; `database_url` is of the role settlement_user.
    """

    runtime: RuntimeConfig
    grpc_port: int
    ops_grpc_port: int
    metrics_port: int
    internal_target: str
    database_url: Secret
    jwt_secret: Secret | None
    service_tls: ServiceTls | None
    drain_s: float
    reconcile_every_s: float

    @classmethod
    def read(cls, environment: Environment) -> Config:
        """Read and check everything. Raises ConfigError, naming the variable."""
        return cls(
            runtime=RuntimeConfig.read(environment, SERVICE),
            grpc_port=environment.integer("PINCEX_GRPC_PORT", 0, minimum=0, maximum=65535),
            ops_grpc_port=environment.integer("PINCEX_OPS_GRPC_PORT", 0, minimum=0, maximum=65535),
            metrics_port=environment.integer("PINCEX_METRICS_PORT", 0, minimum=0, maximum=65535),
            internal_target=environment.required("PINCEX_INTERNAL_TARGET"),
            database_url=environment.database_url("PINCEX_SETTLEMENT_DATABASE_URL"),
            jwt_secret=environment.optional_secret("JWT_SECRET"),
            service_tls=ServiceTls.read(environment),
            drain_s=environment.number("PINCEX_DRAIN_SECONDS", 5.0, minimum=0.5, maximum=300.0),
            reconcile_every_s=environment.number("PINCEX_RECONCILE_SECONDS", 30.0, minimum=0.05, maximum=600.0),
        )

"""What each program gets to know: the environment that it is started with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exchange.stack.certificates.wiring import SERVICE_TLS
from exchange.stack.edge.plan import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exchange.stack.config import StackConfig
    from exchange.stack.edge.plan import EdgePlan

TRADING_ENGINE, AUTH_SERVICE, ADMIN_SERVICE = "trading-engine", "auth-service", "admin"
SETTLEMENT = "settlement"


@dataclass(frozen=True, slots=True)
class Secrets:
    """Where stores are and what opens them, and what services prove themselves by: as it was at `up`, for instances that run
    already use it too. URLs are None without a database.
    """

    redis_url: str
    jwt: str
    auth: str
    trading_database_url: str | None = None
    auth_database_url: str | None = None
    audit_database_url: str | None = None
    settlement_database_url: str | None = None

    def of(self, service: str) -> dict[str, str | None]:
        """The variables that this service needs, and no other has."""
        match service:
            case "auth-service":
                return {"PINCEX_AUTH_DATABASE_URL": self.auth_database_url, "PINCEX_AUTH_SECRET": self.auth}
            case "admin":
                return {"PINCEX_AUDIT_DATABASE_URL": self.audit_database_url}
            case "settlement":
                return {"PINCEX_SETTLEMENT_DATABASE_URL": self.settlement_database_url}
            case _:
                return {"DATABASE_URL": self.trading_database_url}


# Set for those that need them; what the operator has set for the stack reaches nobody else.
_NOT_INHERITED = (
    "DATABASE_URL",
    "PINCEX_ADMIN_DATABASE_URL",
    "PINCEX_AUDIT_DATABASE_URL",
    "PINCEX_AUTH_DATABASE_URL",
    "PINCEX_AUTH_SECRET",
    "PINCEX_DEBUG_PORT",
    "PINCEX_INTERNAL_TARGET",
    "PINCEX_MEMORY",
    "PINCEX_SETTLEMENT_DATABASE_URL",
    *SERVICE_TLS,
)
# None of our settings or secrets, and none of libpq's that would mislead a program.
_OURS = ("PINCEX_", "PG", "DATABASE_URL", "REDIS_URL", "JWT_SECRET")


def foreign_environment(config: StackConfig) -> dict[str, str]:
    """For programs that are not ours."""
    return {key: value for key, value in config.environment.items() if not key.startswith(_OURS)}


def service_environment(config: StackConfig, edge: EdgePlan, secrets: Secrets, service: str) -> Mapping[str, str]:
    """For a service of ours."""
    switches = config.home / "switches"
    switches.mkdir(exist_ok=True)
    environment = {key: value for key, value in config.environment.items() if key not in _NOT_INHERITED}
    environment |= {
        "PYTHONUNBUFFERED": "1",
        "PINCEX_HOME": str(config.home),
        "PINCEX_LOG_DIR": config.environment.get("PINCEX_LOG_DIR") or str(config.home / "logs"),
        "PINCEX_PROFILE": config.profile,
        "PINCEX_SWITCHES_DIR": str(switches),
        "PINCEX_ENVOY_STATS_URL": f"http://{LOOPBACK}:{edge.admin_port}/stats/prometheus",
        "PINCEX_IMAGE": str(config.image),
        "REDIS_URL": secrets.redis_url,
        "JWT_SECRET": secrets.jwt,
        "LOG_LEVEL": config.log_level,
    }
    if edge.internal_port is not None:
        environment["PINCEX_INTERNAL_TARGET"] = f"{LOOPBACK}:{edge.internal_port}"
    if secrets.trading_database_url is None:
        environment["PINCEX_MEMORY"] = "1"
    return environment | {name: value for name, value in secrets.of(service).items() if value is not None}

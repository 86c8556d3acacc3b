"""What each program gets to know: the environment that it is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exchange.stack.catalogue import AUTH_SERVICE, BY_NAME, CATALOGUE, TRADING_ENGINE, WALLET
from exchange.stack.certificates.wiring import SERVICE_TLS
from exchange.stack.edge.plan import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exchange.stack.config import StackConfig
    from exchange.stack.edge.plan import EdgePlan


@dataclass(frozen=True, slots=True)
class Secrets:
    """Where stores are and what opens them, and what services prove themselves by: as it was at `up`, for instances that run
    already use it too. `database_urls` goes by the names of services, and is empty without a database.
    """

    redis_url: str
    jwt: str
    auth: str
    kyc: str
    database_urls: Mapping[str, str | None] = field(default_factory=dict)

    def of(self, service: str) -> dict[str, str | None]:
        """The variables that this service needs, and no other has."""
        entry = BY_NAME.get(service)
        if entry is None:
            return {"DATABASE_URL": self.database_urls.get(TRADING_ENGINE)}
        found: dict[str, str | None] = {}
        if entry.database:
            found[entry.database_variable] = self.database_urls.get(service)
        if service == AUTH_SERVICE:
            found["PINCEX_AUTH_SECRET"] = self.auth
        if service == WALLET:
            found["PINCEX_KYC_SECRET"] = self.kyc
        return found


# Set for those that need them; what the operator has set for the stack reaches nobody else.
_NOT_INHERITED = (
    "DATABASE_URL",
    "PINCEX_ADMIN_DATABASE_URL",
    "PINCEX_AUTH_SECRET",
    "PINCEX_DEBUG_PORT",
    "PINCEX_EDGE_TARGET",
    "PINCEX_INTERNAL_TARGET",
    "PINCEX_KYC_SECRET",
    "PINCEX_MEMORY",
    *(entry.database_variable for entry in CATALOGUE if entry.database),
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
    environment["PINCEX_EDGE_TARGET"] = f"{LOOPBACK}:{edge.edge_port}"
    if edge.internal_port is not None:
        environment["PINCEX_INTERNAL_TARGET"] = f"{LOOPBACK}:{edge.internal_port}"
    if not secrets.database_urls:
        environment["PINCEX_MEMORY"] = "1"
    return environment | {name: value for name, value in secrets.of(service).items() if value is not None}

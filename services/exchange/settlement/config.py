"""What settlement needs to know to start, read once from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exchange.runtime.service_app import CommonConfig

if TYPE_CHECKING:
    from exchange.runtime.config import Environment, Secret

SERVICE: Final = "settlement"


@dataclass(frozen=True, slots=True)
class Config:
    """See docs/DEVELOPMENT.md for the variables. `database_url` is of the role settlement_user."""

    common: CommonConfig
    database_url: Secret
    reconcile_every_s: float

    @classmethod
    def read(cls, environment: Environment) -> Config:
        """Read and check everything. Raises ConfigError, naming the variable."""
        return cls(
            common=CommonConfig.read(environment, SERVICE),
            database_url=environment.database_url("PINCEX_SETTLEMENT_DATABASE_URL"),
            reconcile_every_s=environment.number("PINCEX_RECONCILE_SECONDS", 30.0, minimum=0.05, maximum=600.0),
        )

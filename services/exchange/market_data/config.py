"""What market data needs to know to start, read once from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exchange.market_data.venues.config import VenuesConfig
from exchange.runtime.service_app import CommonConfig

if TYPE_CHECKING:
    from exchange.runtime.config import Environment, Secret

SERVICE: Final = "market-data"


@dataclass(frozen=True, slots=True)
class Config:
    """See docs/DEVELOPMENT.md for the variables. `database_url` is of the role market_data_user."""

    common: CommonConfig
    database_url: Secret
    redis_url: Secret | None
    venues: VenuesConfig

    @classmethod
    def read(cls, environment: Environment) -> Config:
        """Read and check everything. Raises ConfigError, naming the variable."""
        return cls(
            common=CommonConfig.read(environment, SERVICE),
            database_url=environment.database_url("PINCEX_MARKET_DATA_DATABASE_URL"),
            redis_url=environment.optional_secret("REDIS_URL"),
            venues=VenuesConfig.read(environment),
        )

"""What the market maker needs to know to start, read once from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exchange.runtime.config import ConfigError, Environment, Secret
from exchange.runtime.service_app import CommonConfig

SERVICE: Final = "market-maker"
# As in `exchange.auth.market_maker_key`; services import nothing of one another.
KEY_FILE: Final = "market-maker-key"


@dataclass(frozen=True, slots=True)
class Config:
    """See docs/DEVELOPMENT.md for the variables.

    `edge_target` is the public edge, where it trades as a customer; `key_file` holds its API key outside of development.
    """

    common: CommonConfig
    database_url: Secret
    edge_target: str
    key_file: Path
    interval_s: float
    stale_after_s: float

    @classmethod
    def read(cls, environment: Environment) -> Config:
        """Read and check everything. Raises ConfigError, naming the variable."""
        common = CommonConfig.read(environment, SERVICE)
        if common.edge_target is None:
            raise ConfigError("PINCEX_EDGE_TARGET is not set")
        home = environment.path("PINCEX_HOME", Path(".pincex"))
        return cls(
            common=common,
            database_url=environment.database_url("PINCEX_MARKET_MAKER_DATABASE_URL"),
            edge_target=common.edge_target,
            key_file=environment.path("PINCEX_MARKET_MAKER_KEY_FILE", home / "secrets" / KEY_FILE),
            interval_s=environment.number("PINCEX_MARKET_MAKER_SECONDS", 0.5, minimum=0.02, maximum=5.0),
            stale_after_s=environment.number("PINCEX_MARKET_MAKER_STALE_SECONDS", 10.0, minimum=0.1, maximum=300.0),
        )

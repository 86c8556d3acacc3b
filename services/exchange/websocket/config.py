"""What the process needs to know to start, read once from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exchange.runtime.config import ConfigError
from exchange.runtime.service_app import CommonConfig
from exchange.websocket.limits import Limits

if TYPE_CHECKING:
    from exchange.runtime.config import Environment, Secret

SERVICE: Final = "websocket"


@dataclass(frozen=True, slots=True)
class Config:
    """See docs/DEVELOPMENT.md for the variables. `ws_port` is on loopback, behind the edge; `database_url`, of the role
    websocket_user, is for who calls the operators' methods, and for the record of it.
    """

    common: CommonConfig
    edge_target: str
    ws_port: int
    database_url: Secret | None
    redis_url: Secret | None
    limits: Limits

    @classmethod
    def read(cls, environment: Environment) -> Config:
        """Read and check everything. Raises ConfigError, naming the variable."""
        common = CommonConfig.read(environment, SERVICE)
        if common.edge_target is None:
            raise ConfigError("PINCEX_EDGE_TARGET is not set")
        usual = Limits()
        rate = environment.number(
            "PINCEX_WS_MESSAGES_PER_SECOND", usual.messages_per_second, minimum=1.0, maximum=100_000.0
        )
        return cls(
            common=common,
            edge_target=common.edge_target,
            ws_port=environment.integer("PINCEX_WS_PORT", 0, minimum=0, maximum=65535),
            database_url=environment.optional_secret("PINCEX_WEBSOCKET_DATABASE_URL"),
            redis_url=environment.optional_secret("REDIS_URL"),
            limits=Limits(
                connections=environment.integer(
                    "PINCEX_WS_MAX_CONNECTIONS", usual.connections, minimum=1, maximum=100_000
                ),
                connections_of_address=environment.integer(
                    "PINCEX_WS_MAX_CONNECTIONS_OF_ADDRESS", usual.connections_of_address, minimum=1, maximum=100_000
                ),
                subscriptions=environment.integer(
                    "PINCEX_WS_MAX_SUBSCRIPTIONS", usual.subscriptions, minimum=1, maximum=10_000
                ),
                messages_per_second=rate,
                messages_burst=3 * rate,
                idle_s=environment.number("PINCEX_WS_IDLE_SECONDS", usual.idle_s, minimum=1.0, maximum=86_400.0),
            ),
        )

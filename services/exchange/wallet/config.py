"""What the wallet needs to know to start, read once from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from exchange.domain.decimals import DecimalError, decimals_of
from exchange.domain.symbols import ASSET_CODE
from exchange.kyc.config import KycConfig
from exchange.runtime.config import ConfigError, Environment, Secret
from exchange.runtime.service_app import CommonConfig
from exchange.wallet.networks import Terms, parse_terms
from exchange.wallet.simulated.network import NETWORK

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE: Final = "wallet"
DEFAULT_NETWORKS: Final = (
    "BTC/simulated:2:0.0001:0.001,ETH/simulated:3:0.001:0.01,USD/simulated:1:1:10,*/simulated:2:0:0"
)
DEFAULT_APPROVAL: Final = "BTC=0.5,ETH=5,USD=10000"
DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Config:
    """See docs/DEVELOPMENT.md for the variables.

    `database_url` is of the role wallet_user. `approval` says up to how much of an asset a withdrawal needs no operator; an asset
    that is not named always needs one.
    """

    common: CommonConfig
    database_url: Secret
    networks: tuple[Terms, ...]
    simulated_block_s: float
    simulated_seed: int
    approval: Mapping[str, Decimal]
    cooling_s: int
    kyc: KycConfig

    @classmethod
    def read(cls, environment: Environment) -> Config:
        """Read and check everything. Raises ConfigError, naming the variable."""
        common = CommonConfig.read(environment, SERVICE)
        cooling_s = 0 if common.runtime.development else DAY_S
        return cls(
            common=common,
            database_url=environment.database_url("PINCEX_WALLET_DATABASE_URL"),
            networks=_networks(environment, development=common.runtime.development),
            simulated_block_s=environment.number("PINCEX_SIMULATED_BLOCK_SECONDS", 1.0, minimum=0.01, maximum=3600.0),
            simulated_seed=environment.integer("PINCEX_SIMULATED_SEED", 0, minimum=0),
            approval=_amounts(environment, "PINCEX_WITHDRAWAL_APPROVAL", DEFAULT_APPROVAL),
            cooling_s=environment.integer(
                "PINCEX_WITHDRAWAL_COOLING_SECONDS", cooling_s, minimum=0, maximum=30 * DAY_S
            ),
            kyc=KycConfig.read(environment),
        )


def _networks(environment: Environment, *, development: bool) -> tuple[Terms, ...]:
    """The simulated network makes money from nothing: where money is real, somebody must have named it."""
    name = "PINCEX_WALLET_NETWORKS"
    try:
        found = parse_terms(environment.optional(name, DEFAULT_NETWORKS if development else ""))
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    for terms in found:
        if terms.network != NETWORK:
            raise ConfigError(f"{name}: no connector speaks to {terms.network!r}; there is {NETWORK!r}")
    return found


def _amounts(environment: Environment, name: str, default: str) -> Mapping[str, Decimal]:
    """`BTC=0.5,USD=10000`."""
    found: dict[str, Decimal] = {}
    for entry in filter(None, (part.strip() for part in environment.optional(name, default).split(","))):
        code, _, amount = entry.partition("=")
        try:
            decimals_of(amount)
        except DecimalError:
            raise ConfigError(f"{name}: {entry!r} is not ASSET=amount") from None
        if ASSET_CODE.fullmatch(code) is None:
            raise ConfigError(f"{name}: {entry!r} does not begin with an asset's code")
        found[code] = Decimal(amount)
    return MappingProxyType(found)

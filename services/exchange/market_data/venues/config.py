"""Which venues are followed, and how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from exchange.market_data.venues.catalogue import BINANCE, COINBASE, SIMULATED, VENUES, Venue
from exchange.market_data.venues.limits import Limits
from exchange.market_data.venues.reference import Rules
from exchange.runtime.config import ConfigError, Environment

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class VenuesConfig:
    """See docs/DEVELOPMENT.md for the variables. Without `venues` there are no feeds, and no reference price."""

    venues: tuple[Venue, ...]
    limits: Limits
    rules: Rules
    simulated_seed: int
    simulated_every_s: float

    @property
    def markets(self) -> dict[str, tuple[str, ...]]:
        """For each market the names of the venues that have it."""
        symbols = sorted({symbol for venue in self.venues for symbol in venue.products})
        return {symbol: tuple(venue.name for venue in self.venues if symbol in venue.products) for symbol in symbols}

    @classmethod
    def read(cls, environment: Environment) -> VenuesConfig:
        """Read and check everything. Raises ConfigError, naming the variable."""
        return cls(
            venues=_venues(environment),
            limits=Limits(
                stale_s=environment.number("PINCEX_FEED_STALE_SECONDS", 5.0, minimum=0.05, maximum=600.0),
                silent_s=environment.number("PINCEX_FEED_SILENT_SECONDS", 15.0, minimum=0.1, maximum=3_600.0),
            ),
            rules=Rules(
                stale_s=environment.number("PINCEX_PRICE_STALE_SECONDS", 10.0, minimum=0.1, maximum=3_600.0),
                outlier_ppm=environment.integer("PINCEX_PRICE_OUTLIER_PPM", 20_000, minimum=1, maximum=1_000_000),
            ),
            simulated_seed=environment.integer("PINCEX_SIMULATED_VENUE_SEED", 1, minimum=0, maximum=2**31),
            simulated_every_s=environment.integer("PINCEX_SIMULATED_VENUE_MS", 250, minimum=5, maximum=60_000) / 1e3,
        )


def _venues(environment: Environment) -> tuple[Venue, ...]:
    names = [name.strip().lower() for name in environment.optional("PINCEX_VENUES", SIMULATED).split(",")]
    if names == [NONE]:
        return ()
    for name in names:
        if name not in VENUES:
            raise ConfigError(
                f"PINCEX_VENUES has {name!r}; it is {NONE}, or of {', '.join(VENUES)}, with commas between"
            )
    addresses = {
        BINANCE: (
            environment.optional("PINCEX_BINANCE_URL", VENUES[BINANCE].url),
            environment.optional("PINCEX_BINANCE_REST_URL", VENUES[BINANCE].rest_url),
        ),
        COINBASE: (environment.optional("PINCEX_COINBASE_URL", VENUES[COINBASE].url), ""),
        SIMULATED: ("", ""),
    }
    wanted = environment.optional("PINCEX_VENUE_MARKETS")
    found = []
    for name in dict.fromkeys(names):
        url, rest_url = (address.rstrip("/") for address in addresses[name])
        found.append(replace(VENUES[name], url=url, rest_url=rest_url, products=_products(name, wanted)))
    return tuple(found)


def _products(name: str, wanted: str | None) -> Mapping[str, str]:
    """What a venue calls our markets: all that we know of, or those that `wanted` names."""
    known = VENUES[name].products
    if wanted is None:
        return known
    symbols = [symbol.strip().upper() for symbol in wanted.split(",")]
    if unknown := [symbol for symbol in symbols if symbol not in known]:
        raise ConfigError(
            f"PINCEX_VENUE_MARKETS has {unknown[0]!r}, for which {name} has no name here: {', '.join(known)}"
        )
    return MappingProxyType({symbol: known[symbol] for symbol in symbols})

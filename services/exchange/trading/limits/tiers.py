"""The tiers of accounts, and what each may do. A user's tier comes with the token (`Principal.tier`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from exchange.runtime.principal import Principal

BURST_SECONDS: Final = 2
"""After a pause as many orders may come at once as else in so many seconds."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Limits of each account of a tier; 0: none. `max_open_orders` holds where an operator has set no other, and 0 leaves
    it to the engine's own (`State.default_max_open_orders`).
    """

    name: str
    orders_per_second: int
    max_open_orders: int

    @property
    def orders_burst(self) -> int:
        """New orders that may come at once after a pause."""
        return self.orders_per_second * BURST_SECONDS


STANDARD: Final = Tier("standard", 50, 1_000)
PROFESSIONAL: Final = Tier("professional", 500, 5_000)
INSTITUTION: Final = Tier("institution", 20_000, 100_000)
MARKET_MAKER: Final = Tier("market_maker", 20_000, 100_000)
DEVELOPMENT: Final = Tier("development", 0, 0)

TIERS: Final = {tier.name: tier for tier in (STANDARD, PROFESSIONAL, INSTITUTION, MARKET_MAKER, DEVELOPMENT)}


def tier_of(principal: Principal) -> Tier:
    """The tier of a principal; one that this build does not know has the strictest limits."""
    return TIERS.get(principal.tier, STANDARD)

"""What the exchange says of a market, and what an operator lets the market maker do in it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import Final

MAX_LEVELS: Final = 20
# Of a market that nobody has set up. The least spread earns more than fees of 0.1% on both sides cost.
DEFAULT_MIN_SPREAD: Final = Decimal("0.003")
DEFAULT_MAX_SPREAD: Final = Decimal("0.02")
DEFAULT_LEVELS: Final = 5
# Quote asset in one level, in what it may hold, and in what it may lose in a day.
DEFAULT_LEVEL_NOTIONAL: Final = 10_000
DEFAULT_INVENTORY_LEVELS: Final = 20
DEFAULT_MAX_DAILY_LOSS: Final = Decimal(10_000)


@dataclass(frozen=True, slots=True)
class MarketRules:
    """A market as the exchange has it. `is_open`: it takes new orders; a halted one takes no cancels either. `min_lots`, `max_lots` bound one order (0: no upper bound), `min_notional` is in the
    quote asset, `fee_ppm` the dearer of its fees; `low_ticks` to `high_ticks` is the band in which prices may lie now.
    `last_price` is what the exchange measures it from, None before the first trade where no operator gave one.
    """

    symbol: str
    base_asset: str
    quote_asset: str
    tick: Decimal
    lot: Decimal
    is_open: bool
    takes_cancels: bool
    min_lots: int
    max_lots: int
    min_notional: Decimal
    fee_ppm: int
    low_ticks: int
    high_ticks: int
    last_price: Decimal | None = None

    def price(self, ticks: int) -> Decimal:
        """In the quote asset."""
        return ticks * self.tick

    def quantity(self, lots: int) -> Decimal:
        """In the base asset."""
        return lots * self.lot

    def allows(self, ticks: int, lots: int) -> bool:
        """Whether an order may have this price and size, funds aside."""
        if not self.low_ticks <= ticks <= self.high_ticks or lots < max(self.min_lots, 1):
            return False
        if self.max_lots and lots > self.max_lots:
            return False
        return self.price(ticks) * self.quantity(lots) >= self.min_notional


@dataclass(frozen=True, slots=True)
class MarketSettings:
    """How one market is quoted. Spreads are fractions of the reference price between best bid and best ask; quantities are
    of the base asset, the loss is of the quote asset. `allowance` counts how often an operator has let it quote (again).
    """

    symbol: str
    enabled: bool
    min_spread: Decimal
    max_spread: Decimal
    levels: int
    level_quantity: Decimal
    max_inventory: Decimal
    max_daily_loss: Decimal
    allowance: int = 0


def default_settings(rules: MarketRules, *, enabled: bool) -> MarketSettings:
    """For a market that nobody has set up: some 10,000 of the quote asset a level, 20 levels' worth to hold at most."""
    lots = max(rules.min_lots, 1)
    if rules.last_price is not None and rules.last_price > 0:
        lots = max(lots, int(_one_digit(DEFAULT_LEVEL_NOTIONAL / rules.last_price) / rules.lot))
    if rules.max_lots:
        lots = min(lots, rules.max_lots)
    quantity = rules.quantity(lots)
    return MarketSettings(
        symbol=rules.symbol,
        enabled=enabled,
        min_spread=DEFAULT_MIN_SPREAD,
        max_spread=DEFAULT_MAX_SPREAD,
        levels=DEFAULT_LEVELS,
        level_quantity=quantity,
        max_inventory=quantity * DEFAULT_INVENTORY_LEVELS,
        max_daily_loss=DEFAULT_MAX_DAILY_LOSS,
    )


def _one_digit(amount: Decimal) -> Decimal:
    """Cut to its first digit other than zero, as people would choose it."""
    return amount.quantize(Decimal((0, (1,), amount.adjusted())), rounding=ROUND_DOWN)

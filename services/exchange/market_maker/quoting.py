"""Where quotes should stand: pure arithmetic on whole ticks and lots, exact fractions in between.

    spread    min_spread, and as much more as the reference has moved of late, at most max_spread
    middle    the reference, moved against the inventory by up to a quarter of the spread: who holds too much bids less
              and offers for less, and never offers below the reference, or bids above it
    levels    the first at half the spread from the middle, each further one a quarter of the spread beyond

Bids are rounded down to the tick, asks up, so rounding never makes a spread smaller than it should be. An order that stands
near enough to a level is left where it is (`Quotes.tolerance_ticks`). The spread keeps that much distance from both bounds,
so that they hold for whatever is left standing.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exchange.market_maker.rules import MarketRules, MarketSettings

BUY: Final = "BUY"
SELL: Final = "SELL"


@dataclass(frozen=True, slots=True)
class Level:
    """A quote that should stand."""

    ticks: int
    lots: int


@dataclass(frozen=True, slots=True)
class Outside:
    """Best prices of the others on the book, in ticks; None where a side has none."""

    bid_ticks: int | None = None
    ask_ticks: int | None = None


@dataclass(frozen=True, slots=True)
class Quotes:
    """All quotes of a market that should stand, each side with its best first."""

    bids: tuple[Level, ...] = ()
    asks: tuple[Level, ...] = ()
    tolerance_ticks: int = 0

    def of(self, side: str) -> tuple[Level, ...]:
        """One side."""
        return self.bids if side == BUY else self.asks

    def __bool__(self) -> bool:
        """Whether any quote should stand."""
        return bool(self.bids or self.asks)


def quotes(
    rules: MarketRules,
    settings: MarketSettings,
    reference: Decimal,
    movement: Fraction,
    inventory: Decimal,
    outside: Outside,
) -> Quotes:
    """`movement` is how far the reference has moved of late, as a fraction of it; `inventory` is with its sign, of the base
    asset. Sizes keep to the inventory that is allowed even if one side trades whole; funds are `funds.afford`'s affair.

    Quotes never trade on arrival: a side that would is moved away until it rests behind the others' best price.
    """
    middle_ticks = Fraction(reference) / Fraction(rules.tick)
    slack = _slack(settings)
    spread = spread_of(settings, movement)
    lean = _lean(settings, inventory)
    half = middle_ticks * spread / 2
    middle = middle_ticks * (1 - lean * spread / 4)
    best_bid = floor(middle - half)
    best_ask = max(ceil(middle + half), best_bid + 1)
    if outside.ask_ticks is not None:
        best_bid = min(best_bid, outside.ask_ticks - 1)
    if outside.bid_ticks is not None:
        best_ask = max(best_ask, outside.bid_ticks + 1)
    step = max(half / 2, Fraction(1))
    limit = settings.max_inventory
    return Quotes(
        bids=tuple(
            _side(rules, settings, (floor(best_bid - n * step) for n in range(settings.levels)), limit - inventory)
        ),
        asks=tuple(
            _side(rules, settings, (ceil(best_ask + n * step) for n in range(settings.levels)), limit + inventory)
        ),
        # One less than what the spread leaves, for what rounding takes.
        tolerance_ticks=max(floor(slack * middle_ticks) - 1, 0),
    )


def spread_of(settings: MarketSettings, movement: Fraction) -> Fraction:
    """From best bid to best ask, as a fraction of the reference."""
    low, high = Fraction(settings.min_spread), Fraction(settings.max_spread)
    slack = _slack(settings)
    return min(max(low + movement, low + 4 * slack), high - 4 * slack)


def _slack(settings: MarketSettings) -> Fraction:
    """How far from its level an order may stand, as a fraction of the reference."""
    low, high = Fraction(settings.min_spread), Fraction(settings.max_spread)
    return min((high - low) / 8, (low + high) / 128)


def _lean(settings: MarketSettings, inventory: Decimal) -> Fraction:
    """Inventory as a part of what is allowed, -1 to 1."""
    if not settings.max_inventory:
        return Fraction(0)
    return max(Fraction(-1), min(Fraction(1), Fraction(inventory) / Fraction(settings.max_inventory)))


def _side(rules: MarketRules, settings: MarketSettings, prices: Iterator[int], room: Decimal) -> Iterator[Level]:
    """Levels that the market takes, with no more in all than there is room for."""
    left = max(floor(Fraction(room) / Fraction(rules.lot)), 0)
    size = floor(Fraction(settings.level_quantity) / Fraction(rules.lot))
    if rules.max_lots:
        size = min(size, rules.max_lots)
    for ticks in prices:
        lots = min(size, left)
        if rules.allows(ticks, lots):
            left -= lots
            yield Level(ticks, lots)

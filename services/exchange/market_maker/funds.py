"""What the account can pay for."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING

from exchange.market_maker.quoting import BUY, Level

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exchange.market_maker.orders import OwnOrder
    from exchange.market_maker.quoting import Quotes
    from exchange.market_maker.rules import MarketRules

_PPM = 1_000_000


def afford(quotes: Quotes, rules: MarketRules, base: Decimal, quote: Decimal) -> Quotes:
    """The quotes that `base` and `quote` pay for, the best first; the last one of a side may be smaller."""
    bids: list[Level] = []
    asks: list[Level] = []
    for level in quotes.bids:
        lots = min(
            level.lots, max(floor(Fraction(quote - _rounding(rules)) / Fraction(_bid_cost(rules, level.ticks))), 0)
        )
        if rules.allows(level.ticks, lots):
            bids.append(Level(level.ticks, lots))
            quote -= held(rules, BUY, level.ticks, lots)
    for level in quotes.asks:
        lots = min(level.lots, max(floor(Fraction(base) / Fraction(rules.lot)), 0))
        if rules.allows(level.ticks, lots):
            asks.append(Level(level.ticks, lots))
            base -= rules.quantity(lots)
    return replace(quotes, bids=tuple(bids), asks=tuple(asks))


def held(rules: MarketRules, side: str, ticks: int, lots: int) -> Decimal:
    """What an order sets aside, or a little more: of the quote asset for BUY, with the fee; of the base asset for SELL."""
    if side == BUY:
        return _bid_cost(rules, ticks) * lots + _rounding(rules)
    return rules.quantity(lots)


def set_aside(rules: MarketRules, orders: Iterable[OwnOrder], side: str) -> Decimal:
    """What open orders of a side hold."""
    return sum((held(rules, side, order.ticks, order.lots) for order in orders if order.side == side), Decimal(0))


def _bid_cost(rules: MarketRules, ticks: int) -> Decimal:
    """One lot at a price, with the fee."""
    notional = rules.price(ticks) * rules.lot
    return notional + notional * rules.fee_ppm / _PPM


def _rounding(rules: MarketRules) -> Decimal:
    """Fees are rounded up to a unit of the quote asset, and tick x lot is at least one."""
    return rules.tick * rules.lot

"""Changes of settings: checked whole, then written under one lock. Values come checked for their form."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from exchange.domain.decimals import MAX_DECIMALS, DecimalError, PrecisionError, parse_units
from exchange.market_maker.rules import MAX_LEVELS
from exchange.runtime.errors import ErrorReason, ServiceError, reject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exchange.market_maker.rules import MarketRules, MarketSettings

MAX_SPREAD_DECIMALS: Final = 8
# What PostgreSQL's NUMERIC would take is more than any market's money.
_MAX_AMOUNT: Final = Decimal(10) ** 18


def spread(field: str, value: Decimal) -> Decimal:
    """A fraction from 0 to 1. Raises ServiceError INVALID_DECIMAL, INVALID_FIELD."""
    if not value.is_finite():
        reject(ErrorReason.INVALID_DECIMAL, field=field, value=value)
    if not 0 <= value <= 1:
        raise ServiceError(
            ErrorReason.INVALID_FIELD, f"{field} must be from 0 to 1", metadata={"field": field, "value": value}
        )
    exponent = value.normalize().as_tuple().exponent
    if isinstance(exponent, int) and exponent < -MAX_SPREAD_DECIMALS:
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"{field} has more than {MAX_SPREAD_DECIMALS} digits behind the point",
            metadata={"field": field, "value": value},
        )
    return value


def amount(field: str, text: str) -> Decimal:
    """A plain decimal from 0 on. Raises ServiceError INVALID_DECIMAL, INVALID_FIELD, NUMBER_TOO_LARGE."""
    try:
        parse_units(text, MAX_DECIMALS)
    except DecimalError:
        reject(ErrorReason.INVALID_DECIMAL, field=field, value=text)
    except PrecisionError:
        reject(ErrorReason.INVALID_FIELD, field=field, value=text)
    value = Decimal(text)
    if value > _MAX_AMOUNT:
        reject(ErrorReason.NUMBER_TOO_LARGE, field=field, value=text)
    return value


def with_spreads(
    known: Mapping[str, MarketSettings], wanted: Mapping[str, Mapping[str, Decimal]]
) -> list[MarketSettings]:
    """The markets as they are then; all or none. Raises ServiceError UNKNOWN_SYMBOL, INVALID_FIELD where min is above max."""
    changed: list[MarketSettings] = []
    for symbol, values in wanted.items():
        if symbol not in known:
            reject(ErrorReason.UNKNOWN_SYMBOL, symbol=symbol)
        one = known[symbol]
        one = replace(
            one,
            min_spread=values.get("min_spread", one.min_spread),
            max_spread=values.get("max_spread", one.max_spread),
        )
        if one.min_spread > one.max_spread:
            raise ServiceError(
                ErrorReason.INVALID_FIELD,
                f"{symbol}: min_spread {one.min_spread:f} is above max_spread {one.max_spread:f}",
                metadata={"field": f"spreads.{symbol}.min_spread", "value": one.min_spread},
            )
        changed.append(one)
    return changed


def check_quoting(one: MarketSettings, rules: MarketRules) -> None:
    """Whether a market can be quoted so. Raises ServiceError."""
    if not 1 <= one.levels <= MAX_LEVELS:
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"levels must be from 1 to {MAX_LEVELS}",
            metadata={"field": "levels", "value": one.levels},
        )
    field, quantity = "level_quantity", one.level_quantity
    if quantity <= 0:
        reject(ErrorReason.NOT_POSITIVE, field=field, value=f"{quantity:f}")
    if quantity % rules.lot:
        reject(ErrorReason.QUANTITY_OFF_LOT, field=field, value=f"{quantity:f}", lot_size=f"{rules.lot:f}")
    if quantity < rules.quantity(rules.min_lots):
        reject(ErrorReason.QUANTITY_TOO_SMALL, field=field, value=f"{quantity:f}")
    if rules.max_lots and quantity > rules.quantity(rules.max_lots):
        reject(ErrorReason.QUANTITY_TOO_LARGE, field=field, value=f"{quantity:f}")

"""Between the decimal strings of a market's contract and the ticks, lots and units of the core."""

from __future__ import annotations

from typing import Final

from exchange.domain.decimals import DecimalError, PrecisionError, format_units, parse_units
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading.core.constants import MAX_AMOUNT, MAX_LOTS, MAX_TICKS
from exchange.trading.core.model import Market, State

_CACHE_SIZE: Final = 8_192
"""Texts whose value is remembered for each market: prices and sizes repeat."""


class MarketUnits:
    """One market's scales. They never change, so an instance may be kept as long as its market."""

    def __init__(self, state: State, market: Market) -> None:
        base, quote = state.assets[market.base], state.assets[market.quote]
        self.index = market.index
        self.symbol = market.symbol
        self.base_asset = base.code
        self.quote_asset = quote.code
        self.base_decimals = base.decimals
        self.quote_decimals = quote.decimals
        self.price_decimals = market.price_decimals
        self.tick = market.tick
        self.base_per_lot = market.base_per_lot
        self.quote_per_tick_lot = market.quote_per_tick_lot
        spare = 0
        while spare < base.decimals and market.base_per_lot % 10 ** (spare + 1) == 0:
            spare += 1
        self.lot_decimals = base.decimals - spare
        self._lot_shown = market.base_per_lot // 10**spare
        self.tick_size = format_units(market.tick, market.price_decimals)
        self.lot_size = format_units(self._lot_shown, self.lot_decimals)
        # Texts and their values, which are never 0; who is in a hurry looks here before calling `ticks` or `lots`.
        self.known_ticks: dict[str, int] = {}
        self.known_lots: dict[str, int] = {}
        self._prices: dict[int, str] = {0: ""}
        self._quantities: dict[int, str] = {}

    # --- in ---

    def ticks(self, text: str, field: str) -> int:
        """Ticks of a price. Raises ServiceError: INVALID_DECIMAL, NOT_POSITIVE, PRICE_OFF_TICK, NUMBER_TOO_LARGE."""
        known = self.known_ticks.get(text)
        if known is not None:
            return known
        try:
            units = parse_units(text, self.price_decimals)
        except DecimalError:
            raise decimal_error(text, field) from None
        except PrecisionError:
            raise self._off_tick(text, field) from None
        ticks, rest = divmod(units, self.tick)
        if rest:
            raise self._off_tick(text, field)
        return _checked(self.known_ticks, text, ticks, MAX_TICKS, field)

    def lots(self, text: str, field: str) -> int:
        """Lots of a quantity. Raises ServiceError: INVALID_DECIMAL, NOT_POSITIVE, QUANTITY_OFF_LOT, NUMBER_TOO_LARGE."""
        known = self.known_lots.get(text)
        if known is not None:
            return known
        try:
            units = parse_units(text, self.base_decimals)
        except DecimalError:
            raise decimal_error(text, field) from None
        except PrecisionError:
            raise self._off_lot(text, field) from None
        lots, rest = divmod(units, self.base_per_lot)
        if rest:
            raise self._off_lot(text, field)
        return _checked(self.known_lots, text, lots, MAX_LOTS, field)

    def _off_tick(self, text: str, field: str) -> ServiceError:
        return ServiceError(
            ErrorReason.PRICE_OFF_TICK, metadata={"field": field, "value": text, "tick_size": self.tick_size}
        )

    def _off_lot(self, text: str, field: str) -> ServiceError:
        return ServiceError(
            ErrorReason.QUANTITY_OFF_LOT, metadata={"field": field, "value": text, "lot_size": self.lot_size}
        )

    # --- out ---

    def price(self, ticks: int) -> str:
        """A price with the tick's decimals; empty for 0."""
        text = self._prices.get(ticks)
        if text is None:
            if len(self._prices) > _CACHE_SIZE:
                self._prices = {0: ""}
            text = self._prices[ticks] = format_units(ticks * self.tick, self.price_decimals)
        return text

    def quantity(self, lots: int) -> str:
        """A quantity with the lot's decimals."""
        text = self._quantities.get(lots)
        if text is None:
            if len(self._quantities) > _CACHE_SIZE:
                self._quantities = {}
            text = self._quantities[lots] = format_units(lots * self._lot_shown, self.lot_decimals)
        return text

    def quote(self, units: int) -> str:
        """An amount of the quote asset with all its decimals."""
        return format_units(units, self.quote_decimals)

    def base(self, units: int) -> str:
        """An amount of the base asset with all its decimals."""
        return format_units(units, self.base_decimals)

    def average_price(self, notional: int, lots: int) -> str:
        """Notional / quantity, cut to the quote asset's decimals; empty for nothing."""
        if lots == 0:
            return ""
        return format_units(notional * 10**self.base_decimals // (lots * self.base_per_lot), self.quote_decimals)


def amount_units(text: str, decimals: int, field: str) -> int:
    """Smallest units of an amount that is more than zero. Raises ServiceError as `units_or_zero`, and NOT_POSITIVE."""
    units = units_or_zero(text, decimals, field)
    if units == 0:
        raise ServiceError(ErrorReason.NOT_POSITIVE, metadata={"field": field, "value": text})
    return units


def units_or_zero(text: str, decimals: int, field: str) -> int:
    """Smallest units of an amount of an asset.

    Raises ServiceError: FIELD_REQUIRED, INVALID_DECIMAL, INVALID_FIELD, NOT_POSITIVE for a negative one,
    NUMBER_TOO_LARGE for what no 64 bits hold: such a number must not even reach the journal.
    """
    try:
        units = parse_units(text, decimals)
    except DecimalError:
        raise decimal_error(text, field) from None
    except PrecisionError:
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"{field} has more than {decimals} digits behind the point",
            metadata={"field": field, "value": text},
        ) from None
    if units > MAX_AMOUNT:
        raise ServiceError(ErrorReason.NUMBER_TOO_LARGE, metadata={"field": field, "value": text})
    return units


def decimal_error(text: str, field: str) -> ServiceError:
    """What is wrong with a text that is no plain decimal."""
    if not text:
        return ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": field})
    # "-1" is a number, and a wrong one: say what is wrong with it.
    negative = text[:1] == "-" and text[1:].replace(".", "", 1).isdigit()
    reason = ErrorReason.NOT_POSITIVE if negative else ErrorReason.INVALID_DECIMAL
    return ServiceError(reason, metadata={"field": field, "value": text})


def _checked(cache: dict[str, int], text: str, value: int, bound: int, field: str) -> int:
    if value <= 0:
        raise ServiceError(ErrorReason.NOT_POSITIVE, metadata={"field": field, "value": text})
    if value > bound:
        raise ServiceError(ErrorReason.NUMBER_TOO_LARGE, metadata={"field": field, "value": text})
    if len(cache) > _CACHE_SIZE:
        cache.clear()
    cache[text] = value
    return value

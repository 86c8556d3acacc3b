"""Exact decimal strings: between the text on the wire and integers inside.

An amount inside is a whole number of smallest units; `decimals` says how many digits of the text stand behind the
point. Nothing is ever rounded here: what does not fit is refused.
"""

from __future__ import annotations

MAX_DIGITS = 38
"""Longest accepted text without its point; what PostgreSQL's NUMERIC(38) holds."""

MAX_DECIMALS = 12
"""Most digits behind the point that an asset may keep."""


class DecimalError(ValueError):
    """The text is not a plain decimal (`[0-9]+(.[0-9]+)?`)."""


class PrecisionError(ValueError):
    """The text is a plain decimal with more digits behind the point than fit."""


def parse_units(text: str, decimals: int) -> int:
    """Whole smallest units of a plain decimal text.

    `parse_units("1.5", 8)` is 150000000. Raises DecimalError for anything but ASCII digits and one point (no sign, no
    exponent, no blanks, at most 38 digits), PrecisionError when digits other than zero would be lost.
    """
    whole, point, fraction = text.partition(".")
    if len(text) > MAX_DIGITS + 1 or not text.isascii() or not whole.isdigit():
        raise DecimalError(text)
    if not point:
        return int(whole + "0" * decimals)
    if not fraction.isdigit():
        raise DecimalError(text)
    missing = decimals - len(fraction)
    if missing < 0:
        if fraction[decimals:].strip("0"):
            raise PrecisionError(text)
        fraction = fraction[:decimals]
        missing = 0
    return int(whole + fraction + "0" * missing)


def format_units(units: int, decimals: int) -> str:
    """Plain decimal text with exactly `decimals` digits behind the point; a minus sign only for negative amounts."""
    if decimals == 0:
        return str(units)
    if units < 0:
        return "-" + format_units(-units, decimals)
    digits = str(units)
    if len(digits) <= decimals:
        digits = digits.zfill(decimals + 1)
    return f"{digits[:-decimals]}.{digits[-decimals:]}"


def decimals_of(text: str) -> int:
    """How many digits behind the point a plain decimal needs: 2 for "0.25", 0 for "5" and "5.00"."""
    parse_units(text, MAX_DIGITS)
    return len(text.partition(".")[2].rstrip("0"))

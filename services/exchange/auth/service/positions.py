"""Where a page ends, as page tokens carry it: a time and what tells rows of the same time apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from exchange.runtime.errors import ErrorReason, ServiceError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Of a PostgreSQL bigint, and of microseconds until the year 9999.
_MAX_DIGITS: Final = 18


def microseconds(instant: datetime) -> int:
    """Since 1970; exact, as PostgreSQL keeps times."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def instant_of(number: int) -> datetime:
    """The time of so many microseconds since 1970. Raises ServiceError INVALID_PAGE_TOKEN beyond the calendar."""
    try:
        return _EPOCH + timedelta(microseconds=number)
    except OverflowError:
        raise ServiceError(ErrorReason.INVALID_PAGE_TOKEN, metadata={"field": "page_token"}) from None


def pack(*numbers: int) -> str:
    """Whole numbers of at least 0 as one position."""
    return ".".join(map(str, numbers))


def unpack(position: str, length: int) -> list[int] | None:
    """The numbers of a position, None for none. Raises ServiceError INVALID_PAGE_TOKEN."""
    if not position:
        return None
    parts = position.split(".")
    if len(parts) != length or not all(part.isdigit() and len(part) <= _MAX_DIGITS for part in parts):
        raise ServiceError(ErrorReason.INVALID_PAGE_TOKEN, metadata={"field": "page_token"})
    return [int(part) for part in parts]

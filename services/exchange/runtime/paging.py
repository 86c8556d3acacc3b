"""Page sizes and page tokens: a token is the position where the next page starts, bound to its filters."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Final

from exchange.runtime.errors import ErrorReason, ServiceError

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 500
MAX_POSITION_DIGITS: Final = 20
# Of PostgreSQL's bigint, and so of any number that a page begins at.
_MAX_NUMBER: Final = 2**63 - 1


def page_size(asked: int, maximum: int = MAX_PAGE) -> int:
    """The size of a page. Raises ServiceError INVALID_FIELD beyond 0 (the default) to `maximum`."""
    if not 0 <= asked <= maximum:
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"page_size must lie between 1 and {maximum}",
            metadata={"field": "page_size", "value": asked},
        )
    return asked or min(DEFAULT_PAGE, maximum)


def make_token(position: str, *filters: object) -> str:
    """A token for the page after `position`."""
    check = zlib.crc32(repr(filters).encode())
    return base64.urlsafe_b64encode(f"{check:08x}{position}".encode()).decode().rstrip("=")


def read_token(token: str, *filters: object) -> str:
    """The position in a token, "" for none. Raises ServiceError INVALID_PAGE_TOKEN for another one or other filters."""
    if not token:
        return ""
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode("ascii")
        if int(text[:8], 16) != zlib.crc32(repr(filters).encode()):
            raise ValueError(token)
    except (ValueError, binascii.Error, UnicodeDecodeError):
        raise ServiceError(ErrorReason.INVALID_PAGE_TOKEN, metadata={"field": "page_token"}) from None
    return text[8:]


def number_position(token: str, *filters: object) -> int:
    """The numeric position in a token, 0 for none. Raises ServiceError INVALID_PAGE_TOKEN."""
    position = read_token(token, *filters)
    if position and not (position.isdigit() and len(position) <= MAX_POSITION_DIGITS and int(position) <= _MAX_NUMBER):
        raise ServiceError(ErrorReason.INVALID_PAGE_TOKEN, metadata={"field": "page_token"})
    return int(position or 0)

"""Values of requests that any service takes, checked: ids of callers, reasons for the record, amounts; and times as the wire has them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from google.protobuf.timestamp_pb2 import Timestamp

from exchange.domain.decimals import DecimalError, PrecisionError, parse_units
from exchange.domain.symbols import is_client_id
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.request import request_context

if TYPE_CHECKING:
    from datetime import datetime

MAX_REASON: Final = 256
"""Characters of what a caller gives as a reason."""
MAX_UNITS: Final = 4_000_000_000_000_000_000
"""The most that the engine holds of an asset."""


def timestamp(instant: datetime) -> Timestamp:
    """A time as the wire carries it."""
    message = Timestamp()
    message.FromDatetime(instant)
    return message


def reason_text(text: str, *, required: bool = False) -> str:
    """What a caller gave as a reason. Raises ServiceError FIELD_REQUIRED, or INVALID_FIELD where it is too long."""
    text = text.strip()
    if required and not text:
        reject(ErrorReason.FIELD_REQUIRED, field="reason")
    if len(text) > MAX_REASON:
        raise ServiceError(
            ErrorReason.INVALID_FIELD, f"reason is longer than {MAX_REASON} characters", metadata={"field": "reason"}
        )
    return text


def request_id(text: str) -> str:
    """A caller's own id. Raises ServiceError FIELD_REQUIRED, INVALID_FIELD."""
    if not text:
        reject(ErrorReason.FIELD_REQUIRED, field="request_id")
    if not is_client_id(text):
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            "request_id must be 1 to 64 printable ASCII characters without spaces",
            metadata={"field": "request_id", "value": text},
        )
    return text


def amount_units(text: str, decimals: int, *, signed: bool = False) -> int:
    """Smallest units of an amount that is not zero, negative only where it may have a sign.

    Raises ServiceError FIELD_REQUIRED, INVALID_DECIMAL, INVALID_FIELD for too many digits, NOT_POSITIVE, NUMBER_TOO_LARGE.
    """
    if not text:
        reject(ErrorReason.FIELD_REQUIRED, field="amount")
    negative = text[:1] == "-"
    try:
        units = parse_units(text[1:] if negative else text, decimals)
    except DecimalError:
        reject(ErrorReason.INVALID_DECIMAL, field="amount", value=text)
    except PrecisionError:
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"amount has more than {decimals} digits behind the point",
            metadata={"field": "amount", "value": text},
        ) from None
    if units == 0 or (negative and not signed):
        reject(ErrorReason.NOT_POSITIVE, field="amount", value=text)
    if units > MAX_UNITS:
        reject(ErrorReason.NUMBER_TOO_LARGE, field="amount", value=text)
    return -units if negative else units


def fingerprint(*values: str) -> bytes:
    """A hash of what was asked for: a repeat of a request's id must have the same."""
    return hashlib.sha256("\n".join(values).encode()).digest()


def caller() -> str:
    """Who is on record for a decision: the person where it is known, not one of their accounts."""
    principal = request_context().principal
    return principal.user or principal.account

"""Errors as every service speaks them: a reason, a status code, and machine-readable details.

A service raises `ServiceError` (or calls `reject`); the server's wrapper sends it as a gRPC status whose
`grpc-status-details-bin` holds a `google.rpc.Status` with ErrorInfo (domain "pincex") and, where they apply,
BadRequest, QuotaFailure and RetryInfo (https://google.aip.dev/193). Which code and sentence a reason has stands in
`error_table.py` alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

from exchange.runtime.error_table import ROWS, ReasonRow
from pincex.common.v1.errors_pb2 import ErrorReason

__all__ = [
    "DOMAIN",
    "ErrorReason",
    "FieldViolation",
    "QuotaViolation",
    "ServiceError",
    "code_of",
    "message_of",
    "reject",
    "row_of",
]

DOMAIN: Final = "pincex"
STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"

# Peers refuse trailing metadata above 8 KiB (base64 adds a third), and parts of an error repeat what a caller sent:
# each part is cut, in UTF-8 bytes, so that the whole stays under 4 KiB.
_MAX_MESSAGE_BYTES: Final = 320
_MAX_VALUE_BYTES: Final = 160
_MAX_FIELD_BYTES: Final = 64
# What was signed is of use only where it is whole.
_VALUE_BYTES_OF: Final = {"signed": 1_024}
_MAX_ITEMS: Final = 8

_BY_NUMBER: Final[dict[int, ReasonRow]] = {ErrorReason.Value(row.name): row for row in ROWS}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request; `field` is its path, such as `commands[3].place.price`."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """One limit that is used up; `subject` names whose, such as `account:demo`."""

    subject: str
    description: str


class ServiceError(Exception):
    """A refused call.

    `reason` is a number of `ErrorReason`; `message` defaults to the table's sentence followed by the metadata;
    `metadata` holds the keys that the reason's comment promises. A wrong field named by metadata `field` becomes a
    BadRequest, a used-up limit a QuotaFailure, without being said twice; `retry_after_seconds` defaults to the
    table's. Raises KeyError for a number that is no reason.
    """

    def __init__(
        self,
        reason: int,
        message: str | None = None,
        *,
        metadata: Mapping[str, object] | None = None,
        retry_after_seconds: float | None = None,
        field_violations: Sequence[FieldViolation] = (),
        quota_violations: Sequence[QuotaViolation] = (),
    ) -> None:
        row = _BY_NUMBER[reason]
        self.reason: int = reason
        self.row: ReasonRow = row
        self.metadata: dict[str, str] = {}
        if metadata:
            self.metadata = {
                key: _clip(str(value), _VALUE_BYTES_OF.get(key, _MAX_VALUE_BYTES)) for key, value in metadata.items()
            }
        self.message: str = _clip(message or _sentence(row, self.metadata), _MAX_MESSAGE_BYTES)
        self.retry_after_seconds: float | None = (
            row.retry_after_seconds if retry_after_seconds is None else retry_after_seconds
        )
        self.field_violations: tuple[FieldViolation, ...] = tuple(field_violations)
        self.quota_violations: tuple[QuotaViolation, ...] = tuple(quota_violations)
        super().__init__(self.message)

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status code of the reason."""
        return self.row.code

    @property
    def reason_name(self) -> str:
        """The reason as `ErrorInfo.reason` carries it, such as `PRICE_OFF_TICK`."""
        return self.row.name

    def __repr__(self) -> str:
        return f"ServiceError({self.row.name}, {self.message!r})"

    def to_status(self) -> status_pb2.Status:
        """Return the `google.rpc.Status` with every detail that applies, ErrorInfo first."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        info = error_details_pb2.ErrorInfo(reason=self.row.name, domain=DOMAIN)
        for key in list(self.metadata)[:_MAX_ITEMS]:
            info.metadata[key] = self.metadata[key]
        status.details.add().Pack(info)
        self._add_bad_request(status)
        self._add_quota_failure(status)
        if self.retry_after_seconds is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after_seconds * 1_000_000_000))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        return status

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """Return what goes into the call's trailing metadata: the serialised status."""
        return ((STATUS_DETAILS_KEY, self.to_status().SerializeToString()),)

    def _add_bad_request(self, status: status_pb2.Status) -> None:
        violations = self.field_violations
        if not violations and self.code is grpc.StatusCode.INVALID_ARGUMENT and "field" in self.metadata:
            violations = (FieldViolation(self.metadata["field"], self.message),)
        if not violations:
            return
        details = error_details_pb2.BadRequest()
        for violation in violations[:_MAX_ITEMS]:
            details.field_violations.add(
                field=_clip(violation.field, _MAX_FIELD_BYTES),
                description=_clip(violation.description, _MAX_VALUE_BYTES),
            )
        status.details.add().Pack(details)

    def _add_quota_failure(self, status: status_pb2.Status) -> None:
        violations = self.quota_violations
        if not violations and self.row.quota:
            violations = (QuotaViolation(self.metadata.get("limit", "account"), self.message),)
        if not violations:
            return
        details = error_details_pb2.QuotaFailure()
        for violation in violations[:_MAX_ITEMS]:
            details.violations.add(
                subject=_clip(violation.subject, _MAX_FIELD_BYTES),
                description=_clip(violation.description, _MAX_VALUE_BYTES),
            )
        status.details.add().Pack(details)


def reject(reason: int, /, **metadata: object) -> NoReturn:
    """Refuse the call: `reject(ErrorReason.PRICE_OFF_TICK, field="price", value="1.005", tick_size="0.01")`.

    Raises ServiceError, always; it never returns.
    """
    raise ServiceError(reason, metadata=metadata)


def row_of(reason: int) -> ReasonRow:
    """Return the table's row of a reason. Raises KeyError for zero and numbers that are no reason."""
    return _BY_NUMBER[reason]


def code_of(reason: int) -> grpc.StatusCode:
    """Return the gRPC status code of a reason."""
    return _BY_NUMBER[reason].code


def message_of(reason: int) -> str:
    """Return the default sentence of a reason."""
    return _BY_NUMBER[reason].message


def _sentence(row: ReasonRow, metadata: Mapping[str, str]) -> str:
    if not metadata:
        return row.message
    return f"{row.message} ({', '.join(f'{key}={value}' for key, value in metadata.items())})"


def _clip(text: str, limit: int) -> str:
    """Cut to `limit` UTF-8 bytes, and make it valid UTF-8 (a lone surrogate would break protobuf)."""
    if len(text) <= limit and text.isascii():
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode("utf-8")
    return data[: limit - 3].decode("utf-8", "ignore") + "..."

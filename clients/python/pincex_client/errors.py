"""What can go wrong, as exceptions with a reason.

Every refusal of the exchange carries a `google.rpc.ErrorInfo` whose reason is the name of a
`pincex.common.v1.ErrorReason`. The classes below group the reasons by what a caller does about them;
`reason` says which one it is.
"""

import random
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf import message as protobuf_message
from google.rpc import error_details_pb2, status_pb2

STATUS_DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"

# Reasons that pass by themselves: the same call with the same id may be made again. Journaled refusals are not among
# them: the same id gets the same answer for ever.
TRANSIENT_REASONS = frozenset(
    {
        "OVERLOADED",
        "JOURNAL_UNAVAILABLE",
        "DRAINING",
        "NOT_READY",
        "SEQUENCE_NOT_REACHED",
        "SLOW_CONSUMER",
        "TOO_MANY_STREAMS",
        "UPSTREAM_UNAVAILABLE",
        "UPSTREAM_TIMEOUT",
        "AUTH_UNAVAILABLE",
        "AUDIT_UNAVAILABLE",
    }
)

# A stream that gets one of these throws its state away and begins anew without a resume token.
RESET_REASONS = frozenset({"HISTORY_CHANGED", "INVALID_RESUME_TOKEN", "SEQUENCE_NOT_RETAINED", "SEQUENCE_IN_FUTURE"})

# Status without details comes from the transport or from something between: name it as the edge would.
_REASON_OF_BARE_CODE = {
    grpc.StatusCode.UNAVAILABLE: "UPSTREAM_UNAVAILABLE",
    grpc.StatusCode.DEADLINE_EXCEEDED: "UPSTREAM_TIMEOUT",
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.PERMISSION_DENIED: "PERMISSION_DENIED",
    grpc.StatusCode.UNIMPLEMENTED: "UNKNOWN_PATH",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "OVERLOADED",
    grpc.StatusCode.UNKNOWN: "INTERNAL",
    # A reset connection shows up as one of these; an error of the server itself would have details.
    grpc.StatusCode.INTERNAL: "UPSTREAM_UNAVAILABLE",
    grpc.StatusCode.CANCELLED: "UPSTREAM_UNAVAILABLE",
}


class ExchangeError(Exception):
    """The exchange refused, or could not be asked.

    `reason` is the name of an `ErrorReason`; `code` the gRPC status code (None for a refusal inside an order session);
    `metadata` what the reason documents, such as `field` and `value`; `retry_after` seconds, where the server named
    them; `request_id` leads to the server's log; `violations` are (field, description) pairs.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "ERROR_REASON_UNSPECIFIED",
        code: grpc.StatusCode | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        request_id: str = "",
        violations: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.request_id = request_id
        self.violations = tuple(violations)

    def __str__(self) -> str:
        """Reason first: it is what documentation and scripts go by."""
        return f"{self.reason}: {self.message}" if self.message else self.reason

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later with nothing changed by the caller."""
        return self.reason in TRANSIENT_REASONS


class InvalidRequest(ExchangeError):
    """The request itself is wrong: `metadata` and `violations` say which field."""


class NotFound(ExchangeError):
    """No such order, market, asset, session or hold."""


class AlreadyExists(ExchangeError):
    """The name exists, or the id was used before with another body."""


class Rejected(ExchangeError):
    """The state of the exchange forbids it: funds, price bands, market mode and the like."""


class Unauthenticated(ExchangeError):
    """The exchange does not know who calls."""


class PermissionDenied(ExchangeError):
    """The caller may not do this."""


class Overloaded(ExchangeError):
    """Too much at once, or a limit is used up; `retry_after` where the server names a time."""


class Unavailable(ExchangeError):
    """The exchange cannot be reached or cannot answer now; the outcome of a mutation is unknown."""


class TradingSuspended(Rejected):
    """New orders are off, or the exchange is in maintenance or behind its circuit breaker."""


class DataLoss(ExchangeError):
    """The history of the exchange is another one now: discard state and begin again."""


class InternalError(ExchangeError):
    """A defect of the server; `request_id` leads to its log."""


class OutcomeUnknown(Unavailable):
    """A command was sent, no answer came, and it carries no id by which it could be asked for again."""


class SessionClosed(ExchangeError):
    """The order session has ended; its unanswered commands end with this."""


_CLASS_OF_REASON: dict[str, type[ExchangeError]] = {
    **dict.fromkeys(("MAINTENANCE", "CIRCUIT_BREAKER", "NEW_ORDERS_DISABLED"), TradingSuspended),
    **dict.fromkeys(("HISTORY_CHANGED", "STATE_DIFFERS"), DataLoss),
    **dict.fromkeys(("DUPLICATE_ID", "ALREADY_EXISTS"), AlreadyExists),
    **dict.fromkeys(
        ("OVERLOADED", "QUOTA_EXCEEDED", "SLOW_CONSUMER", "TOO_MANY_STREAMS", "TOO_MANY_ATTEMPTS"), Overloaded
    ),
    **dict.fromkeys(
        (
            "JOURNAL_UNAVAILABLE",
            "DRAINING",
            "NOT_READY",
            "SEQUENCE_NOT_REACHED",
            "UPSTREAM_UNAVAILABLE",
            "UPSTREAM_TIMEOUT",
            "AUTH_UNAVAILABLE",
            "AUDIT_UNAVAILABLE",
        ),
        Unavailable,
    ),
    **dict.fromkeys(
        (
            "FIELD_REQUIRED",
            "INVALID_FIELD",
            "INVALID_DECIMAL",
            "NOT_POSITIVE",
            "PRICE_OFF_TICK",
            "QUANTITY_OFF_LOT",
            "UNKNOWN_ENUM_VALUE",
            "FIELD_NOT_ALLOWED",
            "NUMBER_TOO_LARGE",
            "INVALID_PAGE_TOKEN",
            "BATCH_TOO_LARGE",
            "INVALID_DEFINITION",
            "INVALID_RESUME_TOKEN",
            "PROTOCOL_VIOLATION",
            "MALFORMED_REQUEST",
            "BODY_TOO_LARGE",
            "REQUEST_TOO_OLD",
            "CODE_REFUSED",
            "PASSWORD_TOO_WEAK",
        ),
        InvalidRequest,
    ),
    **dict.fromkeys(
        (
            "UNKNOWN_SYMBOL",
            "UNKNOWN_ASSET",
            "ORDER_NOT_FOUND",
            "HOLD_NOT_FOUND",
            "SESSION_NOT_FOUND",
            "UNKNOWN_PATH",
            "USER_NOT_FOUND",
            "API_KEY_NOT_FOUND",
            "LOGIN_SESSION_NOT_FOUND",
            "CERTIFICATE_NOT_FOUND",
            "SUB_ACCOUNT_NOT_FOUND",
        ),
        NotFound,
    ),
    **dict.fromkeys(
        (
            "UNAUTHENTICATED",
            "CREDENTIALS_REFUSED",
            "SECOND_FACTOR_REQUIRED",
            "TOKEN_EXPIRED",
            "TOKEN_REFUSED",
            "CREDENTIAL_REVOKED",
            "SIGNATURE_REFUSED",
            "TIMESTAMP_OUT_OF_WINDOW",
            "NONCE_REUSED",
        ),
        Unauthenticated,
    ),
    **dict.fromkeys(("ADDRESS_NOT_ALLOWED", "SCOPE_MISSING", "ACCOUNT_LOCKED"), PermissionDenied),
    "PERMISSION_DENIED": PermissionDenied,
    "INTERNAL": InternalError,
}

_CLASS_OF_CODE: dict[grpc.StatusCode, type[ExchangeError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
    grpc.StatusCode.DATA_LOSS: DataLoss,
}


def error_of_reason(reason: str, message: str, **details: object) -> ExchangeError:
    """Build the exception for a reason that came in a message (session result, stream end) and not as a status."""
    kind = _CLASS_OF_REASON.get(reason, Rejected)
    return kind(message, reason=reason, **details)  # type: ignore[arg-type]


def decode_error(failure: grpc.aio.AioRpcError, request_id: str = "") -> ExchangeError:
    """Turn a gRPC failure into an `ExchangeError`, reading `grpc-status-details-bin` where it is there."""
    code = failure.code()
    message = failure.details() or ""
    pairs: Any = failure.trailing_metadata() or ()
    trailing: dict[str, str | bytes] = dict(pairs)
    reason = ""
    metadata: dict[str, str] = {}
    retry_after: float | None = None
    violations: list[tuple[str, str]] = []
    for detail in _details(trailing.get(STATUS_DETAILS_KEY)):
        match detail:
            case error_details_pb2.ErrorInfo():
                reason = detail.reason
                metadata = dict(detail.metadata)
            case error_details_pb2.RetryInfo():
                retry_after = detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9
            case error_details_pb2.BadRequest():
                violations += [(item.field, item.description) for item in detail.field_violations]
            case error_details_pb2.QuotaFailure():
                violations += [(item.subject, item.description) for item in detail.violations]
            case error_details_pb2.RequestInfo():
                request_id = detail.request_id or request_id
            case _:
                pass
    sent_id = trailing.get(REQUEST_ID_KEY)
    if isinstance(sent_id, str) and sent_id:
        request_id = sent_id
    known = _CLASS_OF_REASON.get(reason)
    if not reason:
        reason = _REASON_OF_BARE_CODE.get(code, "ERROR_REASON_UNSPECIFIED")
    kind = known or _CLASS_OF_REASON.get(reason) or _CLASS_OF_CODE.get(code, Rejected)
    return kind(
        message,
        reason=reason,
        code=code,
        metadata=metadata,
        retry_after=retry_after,
        request_id=request_id,
        violations=violations,
    )


_DETAIL_TYPES: tuple[type[protobuf_message.Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.RetryInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.QuotaFailure,
    error_details_pb2.RequestInfo,
)


def _details(packed: str | bytes | None) -> Iterable[protobuf_message.Message]:
    """Unpack the details that this client knows; unreadable ones are as good as absent."""
    if not isinstance(packed, bytes):
        return
    status = status_pb2.Status()
    try:
        status.ParseFromString(packed)
    except protobuf_message.DecodeError:
        return
    for packed_detail in status.details:
        for kind in _DETAIL_TYPES:
            detail = kind()
            if packed_detail.Unpack(detail):
                yield detail


class Backoff:
    """Exponential delays with full jitter, between a floor and a ceiling; `reset` after a success."""

    def __init__(self, *, first: float = 0.05, ceiling: float = 2.0, rng: random.Random | None = None) -> None:
        self._first = first
        self._ceiling = ceiling
        self._rng = rng or random.Random()  # noqa: S311 - jitter needs no secrecy
        self._attempt = 0

    def reset(self) -> None:
        """Begin again with the first delay."""
        self._attempt = 0

    def next_delay(self, retry_after: float | None = None) -> float:
        """Seconds to wait before the next attempt; never less than the server asked for."""
        bound = min(self._ceiling, self._first * 2.0 ** min(self._attempt, 16))
        self._attempt += 1
        delay = bound / 2 + self._rng.random() * bound / 2
        if retry_after is None:
            return delay
        # All clients heard the same number: spread them.
        return retry_after + self._rng.random() * self._first

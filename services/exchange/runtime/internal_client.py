"""Calls from one service of the exchange to another, by the edge's internal listener.

Each call says who makes it (`x-pincex-service`, minted anew: it is good for seconds), carries the id of the call that it
serves, and has a deadline. What is refused comes back as the ServiceError that the other service raised.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

from exchange.runtime.error_table import ROWS
from exchange.runtime.errors import (
    DOMAIN,
    STATUS_DETAILS_KEY,
    ErrorReason,
    FieldViolation,
    QuotaViolation,
    ServiceError,
)
from exchange.runtime.identity.service_token import SERVICE_KEY
from exchange.runtime.request import REQUEST_ID_KEY, request_context
from exchange.runtime.service_tls import open_channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from exchange.runtime.identity.service_token import ServiceTokens
    from exchange.runtime.service_tls import ServiceTls

    Metadata = tuple[tuple[str, str], ...]

# For one call with all its tries; the edge gives up on a single one after 10 s.
DEADLINE_S: Final = 10.0
TRY_S: Final = 3.0
MAX_TRIES: Final = 5
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0
# What a call with a request id is made again after: it may have happened, and happens once however often it is made.
_AGAIN: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
# What another service thinks of us is no fault of who called us.
_ABOUT_US: Final = frozenset(
    row.name
    for row in ROWS
    if row.code is grpc.StatusCode.UNAUTHENTICATED or row.name in {"PERMISSION_DENIED", "SCOPE_MISSING"}
)
# Statuses without a reason of ours are gRPC's own, or a proxy's.
_REASONS: Final = {
    grpc.StatusCode.UNAVAILABLE: ErrorReason.UPSTREAM_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorReason.UPSTREAM_TIMEOUT,
}

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # What one part of a process makes of its connection is no other part's trouble.
    ("grpc.use_local_subchannel_pool", 1),
)


class InternalClient:
    """Opens channels to `target`, and says there who we are.

    `tokens` None: nobody says so, for tests and the development profile, whose ops ports let this machine in. `service` is
    whom the other end must prove to be, and counts only with `tls`: the listener of the edge speaks plain on loopback.
    """

    def __init__(
        self,
        target: str,
        name: str,
        tokens: ServiceTokens | None,
        *,
        service: str = "",
        tls: ServiceTls | None = None,
    ) -> None:
        self._target = target
        self._name = name
        self._tokens = tokens
        self._service = service
        self._tls = tls
        self._channel: grpc.aio.Channel | None = None

    def open(self) -> grpc.aio.Channel:
        """A new channel, for who closes it himself. Raises OSError where a certificate cannot be read."""
        return open_channel(self._target, self._service, self._tls, _OPTIONS)

    @property
    def channel(self) -> grpc.aio.Channel:
        """The one channel for calls, for stubs; opened at first use, in the running event loop."""
        if self._channel is None:
            self._channel = self.open()
        return self._channel

    def metadata(self) -> Metadata:
        """The headers of one call that is made now."""
        found: list[tuple[str, str]] = []
        if self._tokens is not None:
            found.append((SERVICE_KEY, self._tokens.mint(self._name)))
        if request_id := request_context().request_id:
            found.append((REQUEST_ID_KEY, request_id))
        return tuple(found)

    async def call(
        self,
        method: Callable[..., Awaitable[Any]],
        request: Any,
        *,
        repeatable: bool = False,
        deadline_s: float = DEADLINE_S,
        try_s: float = TRY_S,
    ) -> Any:
        """Call a unary method of a stub on `channel`.

        With `repeatable` (the request carries an id, or the method only reads) it is made again, MAX_TRIES times at most and
        within the deadline, while nobody answers; each try takes up to `try_s`. Raises ServiceError.
        """
        remaining = request_context().time_remaining()
        ends = time.monotonic() + (deadline_s if remaining is None else min(deadline_s, remaining))
        pause = FIRST_PAUSE_S
        for number in range(1, MAX_TRIES + 1):
            left = max(ends - time.monotonic(), 0.0)
            try:
                return await method(request, metadata=self.metadata(), timeout=min(try_s, left) if repeatable else left)
            except grpc.aio.AioRpcError as error:
                again = repeatable and error.code() in _AGAIN and number < MAX_TRIES
                if not again or time.monotonic() + pause >= ends:
                    raise refusal_of(error) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        raise AssertionError("the last try returns or raises")

    async def close(self) -> None:
        """Ends the calls that still run."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None


def refusal_of(error: grpc.aio.AioRpcError) -> ServiceError:
    """The error that the other service raised, with all that it said; INTERNAL where it does not know us."""
    if reason_of(error) in _ABOUT_US:
        message = error.details() or error.code().name
        return ServiceError(ErrorReason.INTERNAL, f"another service of the exchange refuses this one: {message}")
    return error_of(error)


def error_of(error: grpc.aio.AioRpcError, reasons: Mapping[grpc.StatusCode, int] = _REASONS) -> ServiceError:
    """The error that was raised at the other end, with all that it said; where it names no reason, what `reasons` and
    gRPC's own statuses say.
    """
    message = error.details() or error.code().name
    info: error_details_pb2.ErrorInfo | None = None
    retry_after_s: float | None = None
    fields: list[FieldViolation] = []
    quotas: list[QuotaViolation] = []
    for detail in _details(error):
        if isinstance(detail, error_details_pb2.ErrorInfo) and detail.domain == DOMAIN:
            info = detail
        elif isinstance(detail, error_details_pb2.RetryInfo):
            retry_after_s = _seconds(detail.retry_delay)
        elif isinstance(detail, error_details_pb2.BadRequest):
            fields = [FieldViolation(one.field, one.description) for one in detail.field_violations]
        elif isinstance(detail, error_details_pb2.QuotaFailure):
            quotas = [QuotaViolation(one.subject, one.description) for one in detail.violations]
    if info is None or info.reason not in ErrorReason.keys():  # noqa: SIM118 - an enum's wrapper is no mapping
        fallback = reasons.get(error.code()) or _REASONS.get(error.code(), ErrorReason.INTERNAL)
        return ServiceError(fallback, message)
    return ServiceError(
        ErrorReason.Value(info.reason),
        message,
        metadata=dict(info.metadata),
        retry_after_seconds=retry_after_s,
        field_violations=fields,
        quota_violations=quotas,
    )


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason in a status' details, such as `HISTORY_CHANGED`, else the name of its code."""
    for detail in _details(error):
        if isinstance(detail, error_details_pb2.ErrorInfo) and detail.domain == DOMAIN:
            return detail.reason
    return error.code().name


_KINDS: Final = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.RetryInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.QuotaFailure,
)


def _details(error: grpc.aio.AioRpcError) -> list[Any]:
    """What we know of the details of a status; those of another kind are left out."""
    # A sequence of pairs; the type stubs know it otherwise.
    pairs: Any = error.trailing_metadata() or ()
    status = next((value for key, value in pairs if key == STATUS_DETAILS_KEY), None)
    found: list[Any] = []
    for packed in status_pb2.Status.FromString(status).details if status is not None else ():
        kind = next((kind for kind in _KINDS if packed.Is(kind.DESCRIPTOR)), None)
        if kind is not None:
            detail = kind()
            packed.Unpack(detail)
            found.append(detail)
    return found


def _seconds(delay: duration_pb2.Duration) -> float:
    return delay.seconds + delay.nanos / 1e9

"""The one wrapper around every gRPC handler: identity, limits, deadlines, metrics, errors, log lines.

It is made once per method, at registration, with labels bound and codecs looked up; three stacked interceptors cost
150 us of CPU a call (notes/grpc.md), this one a tenth of that. Handlers receive decoded requests and the grpc.aio
context, and may answer with messages or, to share one encoding among many subscribers, with encoded bytes.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # grpc.aio does not export ExecuteBatchError

from exchange.runtime.access import AccessError, MethodPolicy
from exchange.runtime.audit.contract import (
    PERMISSION_DENIED,
    SERVICE_REFUSED,
    SIGNATURE_REFUSED,
    TOKEN_REFUSED,
    AuditTrail,
    SecurityEvent,
    SecurityLog,
)
from exchange.runtime.audited_calls import audited
from exchange.runtime.client_address import client_address
from exchange.runtime.drain import Drain
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.identity.service_token import SERVICE_KEY
from exchange.runtime.metrics import GrpcMetrics, MethodMetrics
from exchange.runtime.open_calls import OpenCalls
from exchange.runtime.principal import ANONYMOUS, Principal, PrincipalResolver
from exchange.runtime.relayed import relaying
from exchange.runtime.request import (
    REQUEST_ID_KEY,
    RequestContext,
    accepted_request_id,
    request_context,
    set_request_context,
)
from exchange.runtime.signed_content import CONTENT_HASH_KEY, check_content


class _Context(Protocol):
    """What the guard uses of grpc.aio's context; the stubs say less than the truth about None."""

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any = ...) -> NoReturn: ...
    async def write(self, message: Any) -> None: ...
    def code(self) -> grpc.StatusCode | None: ...
    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]: ...
    def peer(self) -> str: ...
    def set_trailing_metadata(self, metadata: Any) -> None: ...
    def time_remaining(self) -> float | None: ...
    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]: ...


Behaviour = Callable[[Any, _Context], Awaitable[Any]]

# Codes that say that the server or what is behind it did not do its part; others are the caller's affair.
_SERVER_FAULTS: Final = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


# What the security log is told, by the reason of the refusal. An expired token is nothing special.
_SECURITY_KINDS: Final[dict[int, str]] = {
    ErrorReason.TOKEN_REFUSED: TOKEN_REFUSED,
    ErrorReason.CREDENTIAL_REVOKED: TOKEN_REFUSED,
    ErrorReason.SIGNATURE_REFUSED: SIGNATURE_REFUSED,
    ErrorReason.SCOPE_MISSING: PERMISSION_DENIED,
    ErrorReason.PERMISSION_DENIED: PERMISSION_DENIED,
}


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What one server takes at a time and sends at once; more is refused with a reason, never queued.

    `max_write_seconds`: a client that takes a message of its stream no sooner than this does not read; it is cut off.
    """

    max_unary_in_flight: int
    max_open_streams: int
    max_response_bytes: int
    max_write_seconds: float = 30.0


class CallGuard:
    """Wraps handlers and knows what runs in them. One a server."""

    def __init__(
        self,
        *,
        resolver: PrincipalResolver,
        metrics: GrpcMetrics,
        drain: Drain,
        limits: CallLimits,
        trail: AuditTrail | None = None,
        security: SecurityLog | None = None,
    ) -> None:
        """`trail` records audited methods, `security` whose credentials were refused."""
        self.resolver = resolver
        self.metrics = metrics
        self.drain = drain
        self.limits = limits
        self.trail = trail
        self.security = security
        self.unary_in_flight = 0
        self.calls = OpenCalls(
            resolver, max_streams=limits.max_open_streams, max_write_seconds=limits.max_write_seconds
        )
        self.log: structlog.typing.FilteringBoundLogger = structlog.get_logger("grpc").bind()

    @property
    def open_streams(self) -> int:
        """How many streams run now."""
        return self.calls.streams

    def wrap(
        self, service: str, method: str, handler: grpc.RpcMethodHandler[Any, Any], policy: MethodPolicy
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the guarded handler, whatever its kind: unary or stream on either side.

        Raises AccessError for an audited method where there is no trail.
        """
        guarded = _GuardedMethod(self, service, method, handler, policy)
        decode = guarded.decode if handler.request_streaming else None
        if handler.response_streaming:
            call, encode = guarded.stream(), guarded.encode
            if handler.request_streaming:
                return grpc.stream_stream_rpc_method_handler(call, decode, encode)
            return grpc.unary_stream_rpc_method_handler(call, decode, encode)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(guarded.unary(), decode)
        return grpc.unary_unary_rpc_method_handler(guarded.unary())

    def check_unary(self, policy: MethodPolicy) -> None:
        """Refuse a call beyond the limit, itself counted in already. Raises ServiceError OVERLOADED."""
        limit = self.limits.max_unary_in_flight
        if self.unary_in_flight > limit and policy.needs_principal:
            raise ServiceError(ErrorReason.OVERLOADED, metadata={"limit": limit})

    async def write(self, context: _Context, response: Any) -> None:
        """Send a message of a stream; its task is cancelled if the client does not take it for too long."""
        task = asyncio.current_task()
        assert task is not None
        self.calls.write_begins(task)
        await context.write(response)
        self.calls.write_ended(task)


class _GuardedMethod:
    """One method's wrapper: everything that does not change from call to call."""

    def __init__(
        self,
        guard: CallGuard,
        service: str,
        method: str,
        handler: grpc.RpcMethodHandler[Any, Any],
        policy: MethodPolicy,
    ) -> None:
        self._guard = guard
        self._name = f"{service}/{method}"
        self._policy = policy
        self._metrics: MethodMetrics = guard.metrics.of(service, method)
        self._handler = handler
        self._request_decoder: Callable[[bytes], Any] | None = handler.request_deserializer
        self._response_encoder: Callable[[Any], bytes] | None = handler.response_serializer
        self._max_response_bytes = guard.limits.max_response_bytes
        self._streaming = handler.request_streaming or handler.response_streaming

    def decode(self, raw: bytes) -> Any:
        """Decode a request. Raises ServiceError MALFORMED_REQUEST."""
        if self._request_decoder is None:
            return raw
        try:
            return self._request_decoder(raw)
        except (DecodeError, ValueError) as error:
            raise ServiceError(ErrorReason.MALFORMED_REQUEST) from error

    def encode(self, message: Any) -> bytes:
        """Encode a response, or take the bytes that a handler encoded already. Raises ServiceError RESPONSE_TOO_LARGE."""
        if type(message) is bytes or self._response_encoder is None:
            data: bytes = message
        else:
            data = self._response_encoder(message)
        if len(data) > self._max_response_bytes:
            raise ServiceError(ErrorReason.RESPONSE_TOO_LARGE, metadata={"limit": self._max_response_bytes})
        return data

    def unary(self) -> Behaviour:
        """Return the wrapper of a method that answers once."""
        guard, metrics, policy = self._guard, self._metrics, self._policy
        streaming = self._handler.request_streaming
        plain: Any = self._handler.stream_unary if streaming else self._handler.unary_unary
        behaviour = _awaitable(plain)
        if policy.audited:
            if guard.trail is None:
                raise AccessError(f"{self._name} is audited, and this server has no audit trail")
            behaviour = audited(guard.trail, self._name, behaviour)
        behaviour = relaying(plain, behaviour)
        decode, encode, clock, calls = self.decode, self.encode, time.perf_counter, guard.calls

        async def call(raw: Any, context: _Context) -> bytes | None:
            started = clock()
            code, answer, failure = grpc.StatusCode.OK, None, None
            task: asyncio.Task[Any] | None = None
            guard.unary_in_flight += 1
            try:
                principal = await self._begin(context, None if streaming else raw)
                guard.check_unary(policy)
                if principal.user:
                    task = asyncio.current_task()
                    assert task is not None
                    calls.enter_unary(task, principal, started)
                response = await behaviour(raw if streaming else decode(raw), context)
                code = context.code() or code
                if code is grpc.StatusCode.OK:
                    answer = encode(response)
            except BaseException as error:  # noqa: BLE001 - counted by its code; _refuse always raises
                failure = error if task is None else _ended_by_us(calls, task, error)
                code = self._code_of(failure, context)
            if task is not None:
                calls.leave_unary(task)
            # Counted before the answer leaves: who has the answer finds the call in the metrics.
            guard.unary_in_flight -= 1
            seconds = clock() - started
            if code is grpc.StatusCode.OK:
                metrics.ok()
            else:
                metrics.ended(code)
            metrics.observe(seconds)
            if code is not grpc.StatusCode.OK or guard.log.is_enabled_for(logging.DEBUG):
                self._log_end(code, seconds)
            if failure is not None:
                await self._refuse(failure, code, context)
            return answer

        return call

    def stream(self) -> Behaviour:
        """Return the wrapper of a method that answers with a stream."""
        guard, metrics, policy = self._guard, self._metrics, self._policy
        streaming = self._handler.request_streaming
        plain: Any = self._handler.stream_stream if streaming else self._handler.unary_stream
        behaviour = _writer(plain, guard.write)
        decode, clock, calls = self.decode, time.perf_counter, guard.calls

        async def call(raw: Any, context: _Context) -> None:
            started = clock()
            code = grpc.StatusCode.OK
            failure: BaseException | None = None
            task = asyncio.current_task()
            assert task is not None
            metrics.streams.inc()
            try:
                principal = await self._begin(context, None if streaming else raw)
                calls.enter_stream(task, policy, principal)
                await behaviour(raw if streaming else decode(raw), context)
                code = context.code() or code
            except BaseException as error:  # noqa: BLE001 - counted by its code; _refuse always raises
                failure = _ended_by_us(calls, task, error)
                code = self._code_of(failure, context)
            calls.leave_stream(task)
            metrics.streams.dec()
            metrics.ended(code)
            if code is not grpc.StatusCode.OK or guard.log.is_enabled_for(logging.DEBUG):
                self._log_end(code, clock() - started)
            if failure is not None:
                await self._refuse(failure, code, context)

        return call

    async def _begin(self, context: _Context, raw: bytes | None) -> Principal:
        """Bind id, principal and deadline to the call; `raw` is its request, None where requests are a stream.

        Raises ServiceError where it must not run.
        """
        guard, policy = self._guard, self._policy
        metadata = context.invocation_metadata()
        headers = dict(metadata)
        request_id = accepted_request_id(headers.get(REQUEST_ID_KEY))
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        peer = context.peer()
        # Set before the checks, so that the line about a refusal carries the id.
        set_request_context(RequestContext(request_id, ANONYMOUS, deadline, self._name, peer))
        try:
            if CONTENT_HASH_KEY in headers:
                check_content(metadata, raw, streaming=self._streaming)
            if not policy.needs_principal:
                return ANONYMOUS
            if guard.drain.is_set():
                raise ServiceError(ErrorReason.DRAINING)
            if remaining is not None and remaining <= 0.0:
                raise ServiceError(ErrorReason.UPSTREAM_TIMEOUT, "the deadline had passed before the call began")
            found = guard.resolver.resolve(peer, metadata)
            principal = found if isinstance(found, Principal) else await found
            set_request_context(RequestContext(request_id, principal, deadline, self._name, peer))
            policy.check(principal)
        except ServiceError as error:
            self._note_refusal(error, context)
            raise
        return principal

    def _note_refusal(self, error: ServiceError, context: _Context) -> None:
        """Tell the security log of a credential that was refused, or did not suffice."""
        kind = _SECURITY_KINDS.get(error.reason)
        if kind is None or self._guard.security is None:
            return
        call = request_context()
        metadata = context.invocation_metadata()
        self._guard.security.note(
            SecurityEvent(
                kind=SERVICE_REFUSED if kind == TOKEN_REFUSED and SERVICE_KEY in dict(metadata) else kind,
                outcome=error.reason_name,
                actor=call.principal.user or call.principal.account,
                credential=call.principal.credential if call.principal is not ANONYMOUS else "",
                address=client_address(call.peer, metadata),
                action=self._name,
                request_id=call.request_id,
                details=error.message,
            )
        )

    def _code_of(self, error: BaseException, context: _Context) -> grpc.StatusCode:
        if isinstance(error, ServiceError):
            return error.code
        if isinstance(error, grpc.aio.AbortError):
            return context.code() or grpc.StatusCode.UNKNOWN
        if isinstance(error, NotImplementedError) and context.code() is grpc.StatusCode.UNIMPLEMENTED:
            return grpc.StatusCode.UNIMPLEMENTED
        if isinstance(error, (asyncio.CancelledError, cygrpc.ExecuteBatchError)):
            late = context.time_remaining()
            return grpc.StatusCode.CANCELLED if late is None or late > 0 else grpc.StatusCode.DEADLINE_EXCEEDED
        return grpc.StatusCode.INTERNAL

    async def _refuse(self, error: BaseException, code: grpc.StatusCode, context: _Context) -> NoReturn:
        """Send the status that belongs to `error` and raise; a cancellation or an abort passes through untouched."""
        if isinstance(error, (grpc.aio.AbortError, asyncio.CancelledError)) or not isinstance(error, Exception):
            raise error
        if code is grpc.StatusCode.UNIMPLEMENTED:
            await context.abort(code, "this server does not implement the method")
        if isinstance(error, cygrpc.ExecuteBatchError):
            # A read or write failed: the client is gone, its cancellation only not delivered yet.
            raise asyncio.CancelledError from error
        if not isinstance(error, ServiceError):
            self._guard.log.error("unexpected error in a handler", method=self._name, exc_info=error)
            error = ServiceError(ErrorReason.INTERNAL, metadata={"request_id": _request_id(context)})
        trailing = (*context.trailing_metadata(), *error.trailing_metadata())
        await context.abort(error.code, error.message, trailing)

    def _log_end(self, code: grpc.StatusCode, seconds: float) -> None:
        log = self._guard.log
        if code is grpc.StatusCode.OK:
            level = log.debug
        elif code in _SERVER_FAULTS:
            level = log.warning
        else:
            level = log.info
        level("call", method=self._name, code=code.name, ms=round(seconds * 1000, 3))


def _ended_by_us(calls: OpenCalls, task: asyncio.Task[Any], error: BaseException) -> BaseException:
    """The reason for which the server ended the call, as an error; else the error as it is."""
    reason = calls.why_ended(task) if isinstance(error, asyncio.CancelledError) else None
    return error if reason is None else ServiceError(reason)


def _request_id(context: _Context) -> str:
    return next((str(value) for key, value in context.trailing_metadata() if key == REQUEST_ID_KEY), "")


def _awaitable(behaviour: Callable[[Any, _Context], Any]) -> Behaviour:
    """Return the behaviour as a coroutine function; the stubs' defaults, which refuse, are plain functions."""
    if inspect.iscoroutinefunction(behaviour):
        return behaviour

    async def call(request: Any, context: _Context) -> Any:
        result = behaviour(request, context)
        return await result if inspect.isawaitable(result) else result

    return call


def _writer(behaviour: Callable[[Any, _Context], Any], write: Callable[[_Context, Any], Awaitable[None]]) -> Behaviour:
    """Return the behaviour as a coroutine function that writes to the context, whichever way it is written."""
    if inspect.iscoroutinefunction(behaviour):
        return behaviour

    async def call(request: Any, context: _Context) -> None:
        responses = behaviour(request, context)
        if inspect.isawaitable(responses):
            await responses
            return
        # Closed here and now, not by the garbage collector: a subscription must end with its stream.
        async with aclosing(responses) as open_responses:
            async for response in open_responses:
                await write(context, response)

    return call

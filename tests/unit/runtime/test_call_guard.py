"""What the guard does beyond letting in: revoked callers, signed bodies, audited calls, the security log."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from exchange.runtime.access import AccessError, MethodPolicy
from exchange.runtime.audit.contract import AuditEntry, SecurityEvent
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.principal import Principal
from tests.unit.runtime.conftest import Echo
from tests.unit.runtime.test_grpc_server import HELLO, echo, refused

STREAMER = Principal("100001", frozenset({"trader"}), "token", frozenset({"trade"}), user="100001", session="s-1")
AUDITED = MethodPolicy(scope="trade", audited=True)


@dataclass
class Caller:
    """Everybody is this principal, until it is void."""

    principal: Principal = STREAMER
    void: ErrorReason.ValueType | None = None

    def resolve(self, peer, metadata):
        return self.principal

    def why_void(self, principal):
        assert principal is self.principal
        return self.void


@dataclass
class Trail:
    """Keeps what it is told, in order."""

    records: list[tuple[str, AuditEntry, str]] = field(default_factory=list)
    away: bool = False

    async def begun(self, entry: AuditEntry) -> None:
        if self.away:
            raise ServiceError(ErrorReason.AUDIT_UNAVAILABLE)
        self.records.append(("begun", entry, ""))

    async def ended(self, entry: AuditEntry, outcome: str) -> None:
        await asyncio.sleep(0)
        self.records.append(("ended", entry, outcome))

    async def happened(self, entry: AuditEntry, outcome: str = "OK") -> None:
        raise AssertionError("nobody asked for it")

    @property
    def phases(self) -> list[tuple[str, str]]:
        return [(phase, outcome) for phase, _, outcome in self.records]


@dataclass
class Security:
    events: list[SecurityEvent] = field(default_factory=list)

    def note(self, event: SecurityEvent) -> None:
        self.events.append(event)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.002)


# --- calls of who is revoked ---


async def endless(request: Any, context: Any) -> Any:
    yield request
    await asyncio.Event().wait()


async def endless_chat(requests: Any, context: Any) -> Any:
    async for request in requests:
        yield request


@pytest.mark.parametrize("reason", [ErrorReason.CREDENTIAL_REVOKED, ErrorReason.AUTH_UNAVAILABLE])
async def test_an_open_stream_ends_once_its_principal_is_void(start, within, reason):
    caller = Caller()
    running = await start(Echo(stream=endless, chat=endless_chat), resolver=caller)
    stream, chat = running.stream()(HELLO), running.chat()()
    await within(stream.read())
    await within(chat.write(HELLO))
    await within(chat.read())
    caller.void = reason
    for call in (stream, chat):
        _, ended_by, _ = await within(refused(call.read()))
        assert ended_by == ErrorReason.Name(reason)
    assert running.server.guard.open_streams == 0


async def test_streams_of_who_has_no_token_are_not_looked_at(start, within):
    running = await start(Echo(stream=endless), resolver=Caller(Principal("a", frozenset(), "x", frozenset({"trade"}))))
    call = running.stream()(HELLO)
    await within(call.read())
    assert not running.server.guard.calls._held
    call.cancel()


async def test_a_long_call_ends_and_its_cleanup_runs(start, within):
    caller, cleaned = Caller(), asyncio.Event()

    async def long(request, context):
        caller.void = ErrorReason.CREDENTIAL_REVOKED
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    running = await start(Echo(one=long), resolver=caller)
    _, reason, _ = await within(refused(running.one()(HELLO)))
    assert reason == "CREDENTIAL_REVOKED"
    assert cleaned.is_set()
    assert not running.server.guard.calls._held


async def test_a_short_call_that_ends_its_own_session_is_answered(start, within):
    caller = Caller()

    async def log_out(request, context):
        caller.void = ErrorReason.CREDENTIAL_REVOKED
        # Two sweeps would fit in here; a sweep ends only what has run for longer.
        running.server.guard.calls._sweep()
        await asyncio.sleep(0)
        return request

    running = await start(Echo(one=log_out), resolver=caller)
    assert await within(running.one()(HELLO)) == HELLO


async def test_a_client_that_leaves_is_not_taken_for_a_revoked_one(start, within):
    running = await start(Echo(stream=endless), resolver=Caller())
    call = running.stream()(HELLO)
    await within(call.read())
    call.cancel()
    await until(lambda: running.server.guard.open_streams == 0)
    assert running.requests("Stream", "CANCELLED") == 1


async def test_nothing_of_ended_calls_is_kept(start, within):
    running = await start(Echo(one=echo, stream=endless), resolver=Caller())
    for _ in range(50):
        await running.one()(HELLO)
    calls = running.server.guard.calls
    assert (calls._held, calls._ended, calls._writing, calls._streams) == ({}, {}, {}, {})


# --- signed bodies ---


def content(value: str | bytes) -> tuple[tuple[str, str | bytes], ...]:
    return (("x-pincex-content-sha256", value),)


HASH = hashlib.sha256(HELLO.SerializeToString()).hexdigest()
OTHER_HASH = hashlib.sha256(b"").hexdigest()


async def test_a_body_with_its_own_hash_is_taken(start, within):
    running = await start(Echo(one=echo, stream=echo_stream, chat=endless_chat), resolver=Caller())
    assert await running.one()(HELLO, metadata=content(HASH)) == HELLO
    for metadata in (content(HASH), content("stream")):
        assert await within(running.stream()(HELLO, metadata=metadata).read()) == HELLO
    chat = running.chat()(metadata=content("stream"))
    await within(chat.write(HELLO))
    assert await within(chat.read()) == HELLO


async def echo_stream(request: Any, context: Any) -> Any:
    yield request


@pytest.mark.parametrize("given", [OTHER_HASH, "stream", "", HASH.upper(), HASH + "0", HASH[:-1]])
async def test_a_body_of_another_hash_is_refused(start, given):
    ran: list[Any] = []

    async def handler(request, context):
        ran.append(request)
        return request

    running = await start(Echo(one=handler), resolver=Caller())
    error, reason, _ = await refused(running.one()(HELLO, metadata=content(given)))
    assert (error.code(), reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_REFUSED")
    assert ran == []


async def test_streams_and_second_headers_do_not_slip_by(start, within):
    running = await start(Echo(one=echo, stream=echo_stream, chat=endless_chat), resolver=Caller())
    for call in (
        running.chat()(metadata=content(HASH)),
        running.stream()(HELLO, metadata=content(OTHER_HASH)),
        running.stream()(HELLO, metadata=content(OTHER_HASH) + content("stream")),
    ):
        _, reason, _ = await within(refused(call.read()))
        assert reason == "SIGNATURE_REFUSED"
    _, reason, _ = await refused(running.one()(HELLO, metadata=content(OTHER_HASH) + content(HASH)))
    assert reason == "SIGNATURE_REFUSED"


async def test_a_public_method_too_takes_no_other_body_than_was_signed(start):
    running = await start(Echo(one=echo), policy=MethodPolicy(public=True))
    _, reason, _ = await refused(running.one()(HELLO, metadata=content(OTHER_HASH)))
    assert reason == "SIGNATURE_REFUSED"


# --- audited methods ---


async def test_an_audited_call_is_recorded_before_and_after(start):
    trail = Trail()
    seen: list[Any] = []

    async def handler(request, context):
        seen.extend(trail.phases)
        return request

    running = await start(Echo(one=handler), resolver=Caller(), policy=AUDITED, trail=trail)
    await running.one()(HELLO, metadata=(("x-request-id", "r-1"), ("x-forwarded-for", "203.0.113.9, 198.51.100.7")))
    assert seen == [("begun", "")]
    assert trail.phases == [("begun", ""), ("ended", "OK")]
    entry = trail.records[0][1]
    assert trail.records[1][1] is entry
    assert entry == AuditEntry(
        action="pincex.test.Echo/One",
        actor="100001",
        credential="token",
        address="198.51.100.7",
        details=json.dumps("hello"),
        reason="",
        request_id="r-1",
    )


async def test_the_outcome_is_the_reason(start):
    trail = Trail()

    async def refusing(request, context):
        reject(ErrorReason.USER_NOT_FOUND)

    async def failing(request, context):
        raise RuntimeError("a defect")

    for handler in (refusing, failing):
        running = await start(Echo(one=handler), resolver=Caller(), policy=AUDITED, trail=trail)
        await refused(running.one()(HELLO))
    assert [outcome for phase, outcome in trail.phases if phase == "ended"] == ["USER_NOT_FOUND", "INTERNAL"]


async def test_a_call_whose_client_leaves_has_an_outcome(start, within):
    trail, began = Trail(), asyncio.Event()

    async def handler(request, context):
        began.set()
        await asyncio.Event().wait()

    running = await start(Echo(one=handler), resolver=Caller(), policy=AUDITED, trail=trail)
    call = running.one()(HELLO)
    await within(began.wait())
    call.cancel()
    await until(lambda: ("ended", "CANCELLED") in trail.phases)


async def test_what_cannot_be_recorded_is_not_done(start):
    ran: list[Any] = []

    async def handler(request, context):
        ran.append(request)
        return request

    running = await start(Echo(one=handler), resolver=Caller(), policy=AUDITED, trail=Trail(away=True))
    error, reason, _ = await refused(running.one()(HELLO))
    assert (error.code(), reason) == (grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE")
    assert ran == []


async def test_a_caller_who_may_not_is_no_record_but_a_line_of_the_security_log(start):
    trail, security = Trail(), Security()
    policy = MethodPolicy(roles=frozenset({"operator"}), audited=True)
    running = await start(Echo(one=echo), resolver=Caller(), policy=policy, trail=trail, security=security)
    await refused(running.one()(HELLO, metadata=(("x-request-id", "r-9"),)))
    assert trail.records == []
    (event,) = security.events
    assert (event.kind, event.outcome) == ("permission.denied", "PERMISSION_DENIED")
    assert (event.actor, event.credential, event.action) == ("100001", "token", "pincex.test.Echo/One")
    assert (event.address, event.request_id) == ("127.0.0.1", "r-9")


async def test_without_a_trail_an_audited_method_is_not_served(start):
    with pytest.raises(AccessError, match="no audit trail"):
        await start(Echo(one=echo), policy=AUDITED)


# --- the security log ---


@pytest.mark.parametrize(
    ("reason", "metadata", "kind"),
    [
        (ErrorReason.TOKEN_REFUSED, (), "token.refused"),
        (ErrorReason.CREDENTIAL_REVOKED, (), "token.refused"),
        (ErrorReason.TOKEN_REFUSED, (("x-pincex-service", "x"),), "service.refused"),
        (ErrorReason.TOKEN_EXPIRED, (), None),
        (ErrorReason.UNAUTHENTICATED, (), None),
    ],
)
async def test_a_refused_credential_is_noted(start, reason, metadata, kind):
    class Refusing(Caller):
        def resolve(self, peer, metadata):
            raise ServiceError(reason)

    security = Security()
    running = await start(Echo(one=echo), resolver=Refusing(), security=security)
    await refused(running.one()(HELLO, metadata=metadata))
    assert [event.kind for event in security.events] == ([kind] if kind else [])


async def test_what_a_handler_refuses_is_not_noted_twice(start):
    async def handler(request, context):
        reject(ErrorReason.PERMISSION_DENIED)

    security = Security()
    running = await start(Echo(one=handler), resolver=Caller(), security=security)
    await refused(running.one()(HELLO))
    assert security.events == []

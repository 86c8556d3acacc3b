"""Calls between services, over real connections."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from exchange.runtime.access import MethodPolicy
from exchange.runtime.clock import SystemClock
from exchange.runtime.config import Secret
from exchange.runtime.errors import ErrorReason, FieldViolation, QuotaViolation, ServiceError
from exchange.runtime.identity.resolver import NoTokens, TokenResolver
from exchange.runtime.identity.service_token import SERVICE_KEY, ServiceTokens
from exchange.runtime.internal_client import MAX_TRIES, InternalClient
from exchange.runtime.principal import ANONYMOUS, DenyingResolver
from exchange.runtime.request import RequestContext, request_context, set_request_context
from tests.unit.runtime.conftest import SERVICE, Echo, Running, Starter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HELLO = StringValue(value="hello")
SECRET = Secret("what all services of this exchange share")
OPERATORS = MethodPolicy(roles=frozenset({"operator"}))


class Answers:
    """Does what it is told, one instruction for each call, the last one for ever: an error is raised, else it echoes."""

    def __init__(self, *instructions: Exception | None) -> None:
        self.instructions = list(instructions)
        self.calls: list[Any] = []
        self.headers: list[dict[str, Any]] = []

    async def one(self, request: Any, context: Any) -> Any:
        """The handler."""
        self.calls.append(request_context())
        self.headers.append(dict(context.invocation_metadata()))
        told = self.instructions[min(len(self.calls), len(self.instructions)) - 1] if self.instructions else None
        if told is not None:
            raise told
        return request


@pytest.fixture
async def asking(start: Starter) -> AsyncIterator[Any]:
    """Starts a server that takes only services for known callers, and a client of it."""
    clients: list[InternalClient] = []

    async def make(
        answers: Answers, *, secret: Secret = SECRET, policy: MethodPolicy = OPERATORS
    ) -> tuple[InternalClient, Any]:
        resolver = TokenResolver(NoTokens(), ServiceTokens(SECRET, SystemClock()), DenyingResolver())
        running: Running = await start(Echo(one=answers.one), resolver=resolver, policy=policy)
        tokens = ServiceTokens(secret, SystemClock())
        client = InternalClient(f"127.0.0.1:{running.server.port}", "settlement", tokens)
        clients.append(client)
        method = client.channel.unary_unary(
            f"/{SERVICE}/One",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )
        return client, method

    yield make
    for client in clients:
        await client.close()


async def test_a_call_says_which_service_makes_it_and_for_which_call(asking: Any) -> None:
    answers = Answers()
    client, method = await asking(answers)
    set_request_context(RequestContext("the-callers-id", ANONYMOUS, None, "x", "y"))

    assert (await client.call(method, HELLO)).value == "hello"

    (seen,) = answers.calls
    assert (seen.principal.account, seen.principal.source) == ("settlement", "service")
    assert seen.request_id == "the-callers-id"
    assert re.fullmatch(r"settlement\.\d+\.[0-9a-f]{64}", answers.headers[0][SERVICE_KEY])


async def test_what_the_other_service_refuses_is_raised_with_all_that_it_said(asking: Any) -> None:
    raised = ServiceError(
        ErrorReason.OVERLOADED,
        "so much waits",
        metadata={"limit": "engine"},
        retry_after_seconds=0.25,
        field_violations=[FieldViolation("amount", "is too much")],
        quota_violations=[QuotaViolation("account:demo", "used up")],
    )
    answers = Answers(raised)
    client, method = await asking(answers)

    with pytest.raises(ServiceError) as caught:
        await client.call(method, HELLO)

    assert vars(caught.value) == vars(raised)
    assert len(answers.calls) == 1


async def test_a_refused_service_token_is_no_fault_of_who_called_us(asking: Any) -> None:
    answers = Answers()
    client, method = await asking(answers, secret=Secret("of another exchange, which has its own"))

    with pytest.raises(ServiceError) as caught:
        await client.call(method, HELLO, repeatable=True)

    assert caught.value.reason == ErrorReason.INTERNAL
    assert answers.calls == []


async def test_a_repeatable_call_is_made_again_until_it_is_answered(asking: Any) -> None:
    away = ServiceError(ErrorReason.NOT_READY)
    answers = Answers(away, away, None)
    client, method = await asking(answers)

    assert (await client.call(method, HELLO, repeatable=True)).value == "hello"

    assert len(answers.calls) == 3


async def test_a_call_that_may_not_be_repeated_is_made_once(asking: Any) -> None:
    answers = Answers(ServiceError(ErrorReason.NOT_READY), None)
    client, method = await asking(answers)

    with pytest.raises(ServiceError, match=r"."):
        await client.call(method, HELLO)

    assert len(answers.calls) == 1


async def test_a_refusal_for_good_is_not_asked_for_again(asking: Any) -> None:
    answers = Answers(ServiceError(ErrorReason.INSUFFICIENT_FUNDS), None)
    client, method = await asking(answers)

    with pytest.raises(ServiceError) as caught:
        await client.call(method, HELLO, repeatable=True)

    assert (caught.value.reason, len(answers.calls)) == (ErrorReason.INSUFFICIENT_FUNDS, 1)


async def test_repeating_ends_after_so_many_tries(asking: Any) -> None:
    answers = Answers(ServiceError(ErrorReason.NOT_READY))
    client, method = await asking(answers)

    with pytest.raises(ServiceError) as caught:
        await client.call(method, HELLO, repeatable=True)

    assert (caught.value.reason, len(answers.calls)) == (ErrorReason.NOT_READY, MAX_TRIES)


async def test_a_service_that_does_not_answer_is_given_up_at_the_deadline(start: Starter) -> None:
    entered: list[None] = []

    async def never(request: Any, context: Any) -> Any:
        entered.append(None)
        await asyncio.Event().wait()

    running = await start(Echo(one=never))
    client = InternalClient(f"127.0.0.1:{running.server.port}", "settlement", None)
    method: Any = client.channel.unary_unary(
        f"/{SERVICE}/One",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
    started = time.monotonic()

    with pytest.raises(ServiceError) as caught:
        await client.call(method, HELLO, repeatable=True, deadline_s=0.4, try_s=0.1)

    assert caught.value.reason == ErrorReason.UPSTREAM_TIMEOUT
    assert time.monotonic() - started < 2
    assert len(entered) > 1
    await client.close()


async def test_a_service_that_is_not_there_is_unavailable() -> None:
    client = InternalClient("127.0.0.1:1", "settlement", None)
    method: Any = client.channel.unary_unary(f"/{SERVICE}/One", bytes, bytes)

    with pytest.raises(ServiceError) as caught:
        await client.call(method, b"", repeatable=True, deadline_s=0.3)

    assert caught.value.reason == ErrorReason.UPSTREAM_UNAVAILABLE
    await client.close()

"""Who gets through to a handler: what the server makes of the contract's option and of a policy."""

from types import SimpleNamespace

import grpc
import pytest

from exchange.runtime.access import AccessError, MethodPolicy
from exchange.runtime.grpc_server import GrpcServer
from exchange.runtime.principal import DenyingResolver, DevelopmentResolver, Principal
from pincex.trading.v1 import health_service_pb2_grpc
from tests.unit.runtime.conftest import Echo, add_echo_to_server
from tests.unit.runtime.test_grpc_server import HELLO, echo, refused


async def test_a_required_role_is_required(start):
    policy = MethodPolicy(roles=frozenset({"operator", "auditor"}))
    running = await start(Echo(one=echo), policy=policy)
    error, reason, _ = await refused(running.one()(HELLO))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason == "PERMISSION_DENIED"

    ops = await start(Echo(one=echo), resolver=DevelopmentResolver(operator=True), policy=policy)
    assert await ops.one()(HELLO) == HELLO


async def test_nobody_is_known_off_the_development_profile_but_public_methods_answer(start):
    running = await start(Echo(one=echo), resolver=DenyingResolver())
    error, reason, _ = await refused(running.one()(HELLO))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason == "UNAUTHENTICATED"
    public = await start(Echo(one=echo), resolver=DenyingResolver(), policy=MethodPolicy(public=True))
    assert await public.one()(HELLO) == HELLO


async def test_a_service_without_a_word_on_who_may_call_it_is_not_served(start):
    running = await start(Echo(one=echo))
    server = GrpcServer("127.0.0.1:0", resolver=DenyingResolver(), metrics=running.server._metrics)
    with pytest.raises(AccessError, match=r"pincex\.test\.Echo has no contract"):
        server.add(add_echo_to_server, Echo(one=echo))


async def test_no_code_overrides_what_a_contract_says_about_its_callers(start):
    running = await start(Echo(one=echo))
    add = health_service_pb2_grpc.add_HealthServiceServicer_to_server
    servicer = SimpleNamespace(GetHealth=echo, GetOpenApi=echo)
    with pytest.raises(AccessError, match="they alone say"):
        running.server.add(add, servicer, MethodPolicy(public=True))
    running.server.add(add, servicer)


async def test_a_scope_that_is_missing_is_named(start):
    running = await start(Echo(one=echo, stream=echo), policy=MethodPolicy(scope="trade"), resolver=_Reader())
    for call in (running.one()(HELLO), running.stream()(HELLO).read()):
        error, reason, metadata = await refused(call)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert reason == "SCOPE_MISSING"
        assert metadata == {"scope": "trade"}


class _Reader:
    """Knows one caller, who may read."""

    def resolve(self, peer, metadata):
        return Principal("reader", frozenset({"trader"}), "token", frozenset({"read"}))

    def why_void(self, principal):
        return None

"""gRPC and gRPC-Web through the edge, over the whole running exchange."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from pincex.journal.v1 import event_service_pb2, event_service_pb2_grpc
from pincex.trading.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    admin_service_pb2,
    admin_service_pb2_grpc,
    health_service_pb2,
    health_service_pb2_grpc,
)
from tests.edge_http import Answer, call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack_fixture import ExchangeStack

TIMEOUT_S = 10.0
HEALTH_RPC = "/pincex.trading.v1.HealthService/GetHealth"
ADMIN_RPC = "/pincex.trading.v1.TradingAdminService/GetQueueDepth"
TRAILERS = 0x80


@pytest.fixture(scope="module")
def public(exchange_stack: ExchangeStack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(exchange_stack.edge_address) as channel:
        yield channel


@pytest.fixture(scope="module")
def ops(exchange_stack: ExchangeStack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(exchange_stack.ops_address) as channel:
        yield channel


def frame(message: bytes) -> bytes:
    """A message as gRPC and gRPC-Web send it: one byte of flags, four of length."""
    return struct.pack(">BI", 0, len(message)) + message


def frames(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        flags, length = struct.unpack(">BI", body[:5])
        found.append((flags, body[5 : 5 + length]))
        body = body[5 + length :]
    return found


def grpc_web(exchange_stack: ExchangeStack, rpc: str, *, text: bool = False) -> Answer:
    kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
    body = base64.b64encode(frame(b"")) if text else frame(b"")
    headers = {"content-type": kind, "accept": kind, "x-grpc-web": "1", "origin": "http://localhost:5173"}
    return call(f"{exchange_stack.edge_url}{rpc}", "POST", body, headers)


def test_a_unary_call_goes_through(public: grpc.Channel) -> None:
    stub = health_service_pb2_grpc.HealthServiceStub(public)

    stub.GetHealth(health_service_pb2.GetHealthRequest(), timeout=TIMEOUT_S)


def test_a_grpc_web_call_answers_with_message_and_trailers_and_may_be_read_by_a_page(
    exchange_stack: ExchangeStack,
) -> None:
    answer = grpc_web(exchange_stack, HEALTH_RPC)

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/grpc-web+proto"
    assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert "grpc-status" in answer.headers["access-control-expose-headers"]
    (flags, message), (last_flags, trailers) = frames(answer.body)
    health_service_pb2.Health.FromString(message)
    assert (flags, last_flags) == (0, TRAILERS)
    assert b"grpc-status:0" in trailers.replace(b" ", b"")


def test_grpc_web_as_text_works_too(exchange_stack: ExchangeStack) -> None:
    answer = grpc_web(exchange_stack, HEALTH_RPC, text=True)

    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/grpc-web-text")
    assert base64.b64decode(answer.body[: len(answer.body) // 4 * 4])[:1] == b"\x00"


def test_an_operators_rpc_is_unimplemented_on_the_public_edge(public: grpc.Channel) -> None:
    stub = admin_service_pb2_grpc.TradingAdminServiceStub(public)
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetQueueDepth(admin_service_pb2.GetQueueDepthRequest(), timeout=TIMEOUT_S)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

    accounts = account_service_pb2_grpc.AccountServiceStub(public)
    with pytest.raises(grpc.RpcError) as refused:
        accounts.CreditAccount(account_service_pb2.CreditAccountRequest(), timeout=TIMEOUT_S)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_rpc_behind_the_metrics_path_cannot_be_called_by_its_name(public: grpc.Channel) -> None:
    stub = admin_service_pb2_grpc.TradingAdminServiceStub(public)
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetMetrics(
            admin_service_pb2.GetMetricsRequest(),
            timeout=TIMEOUT_S,
            metadata=(("x-envoy-original-path", "/metrics"),),
        )
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_operators_rpc_is_unimplemented_for_grpc_web_too(exchange_stack: ExchangeStack) -> None:
    assert grpc_web(exchange_stack, ADMIN_RPC).headers["grpc-status"] == "12"


def test_the_event_stream_is_for_internal_consumers(public: grpc.Channel) -> None:
    stub = event_service_pb2_grpc.EventServiceStub(public)
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.StreamEvents(event_service_pb2.StreamEventsRequest(), timeout=TIMEOUT_S))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def check(channel: grpc.Channel) -> health_pb2.HealthCheckResponse:
    """The standard health check, by hand: the stub's type does not know its own methods."""
    call_check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    found: health_pb2.HealthCheckResponse = call_check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    return found


def test_health_checks_and_reflection_are_on_the_ops_listener_only(public: grpc.Channel, ops: grpc.Channel) -> None:
    assert check(ops).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refused:
        check(public)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_names_the_services_on_the_ops_listener(ops: grpc.Channel) -> None:
    names = ProtoReflectionDescriptorDatabase(ops).get_services()

    assert "pincex.trading.v1.OrderService" in names
    assert "pincex.trading.v1.TradingAdminService" in names


def test_the_ops_listener_carries_what_the_public_edge_carries(ops: grpc.Channel) -> None:
    stub = health_service_pb2_grpc.HealthServiceStub(ops)

    stub.GetHealth(health_service_pb2.GetHealthRequest(), timeout=TIMEOUT_S)
    admin_service_pb2_grpc.TradingAdminServiceStub(ops).GetQueueDepth(
        admin_service_pb2.GetQueueDepthRequest(),
        timeout=TIMEOUT_S,
    )

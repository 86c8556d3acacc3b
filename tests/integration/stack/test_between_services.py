"""The internal listener: how services reach one another, at a real Envoy with stand-ins behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from exchange.stack.edge.plan import Rates
from pincex.journal.v1 import event_service_pb2, event_service_pb2_grpc
from pincex.trading.v1 import admin_service_pb2, admin_service_pb2_grpc
from tests.edge_http import call
from tests.integration.stack.edge_rig import EdgeRig, running_edge

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "x-pincex-service"
CLAIMS = ((SERVICE, "settlement.1.00"), ("x-pincex-edge", "mine"), ("x-pincex-roles", "admin"))


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeRig]:
    """Nobody gets through without a token, and one request a second at most."""
    folder = tmp_path_factory.mktemp("internal")
    with running_edge(
        folder, anonymous=False, change=lambda plan: replace(plan, rates=Rates(known=1, unknown=1, credentials=1))
    ) as rig:
        yield rig


def seen_behind(port: int | None, *metadata: tuple[str, str]) -> set[str]:
    """The headers that arrive behind a listener, of an operators' call with these."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = admin_service_pb2_grpc.TradingAdminServiceStub(channel)
        _, ended = stub.GetEngineState.with_call(
            admin_service_pb2.GetEngineStateRequest(), metadata=metadata, timeout=10
        )
    told = dict([*(ended.initial_metadata() or ()), *(ended.trailing_metadata() or ())])
    return set(str(told["x-fake-seen"]).split(","))


def test_who_a_service_says_it_is_passes_and_no_other_claim_does(production: EdgeRig) -> None:
    seen = seen_behind(production.plan.internal_port, *CLAIMS)

    assert SERVICE in seen
    assert not {"x-pincex-edge", "x-pincex-roles"} & seen


def test_operators_and_clients_cannot_say_that_they_are_a_service(production: EdgeRig) -> None:
    operator = production.bearer(rol=["operator"], scp=["read", "admin"])

    seen = seen_behind(production.plan.ops_port, *CLAIMS, *operator.items())

    assert SERVICE not in seen


def test_the_exchange_does_not_refuse_itself_by_its_rates(production: EdgeRig) -> None:
    for _ in range(20):
        assert seen_behind(production.plan.internal_port)


def test_streams_go_through(production: EdgeRig) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{production.plan.internal_port}") as channel:
        stream = event_service_pb2_grpc.EventServiceStub(channel).StreamEvents(
            event_service_pb2.StreamEventsRequest(), timeout=10
        )
        assert next(iter(stream)) is not None
        stream.cancel()


def test_only_grpc_and_only_what_operators_ports_carry(production: EdgeRig) -> None:
    url = f"http://127.0.0.1:{production.plan.internal_port}"

    assert [call(f"{url}{path}").status for path in ("/api/v1/health", "/admin/engine/state", "/metrics", "/")] == [
        404
    ] * 4
    with grpc.insecure_channel(f"127.0.0.1:{production.plan.internal_port}") as channel:
        unknown = channel.unary_unary("/pincex.journal.v1.ReplicaService/Link", bytes, bytes)
        with pytest.raises(grpc.RpcError) as caught:
            unknown(b"", timeout=10)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED

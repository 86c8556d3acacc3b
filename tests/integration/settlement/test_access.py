"""Who may ask settlement what: outside the development profile nobody without a credential, and services as operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from exchange.runtime.clock import SystemClock
from exchange.runtime.config import Secret
from exchange.runtime.identity.service_token import SERVICE_KEY, ServiceTokens
from exchange.settlement.settler import State
from pincex.settlement.v1 import settlement_service_pb2 as pb
from pincex.settlement.v1 import statement_service_pb2 as statement_pb
from pincex.settlement.v1 import statement_service_pb2_grpc
from tests.integration.settlement.settlement_app import Settlement, running_settlement
from tests.integration.trading.engine_app import ENVIRONMENT, Exchange, eventually, refused

if TYPE_CHECKING:
    from tests.postgres_fixture import Database


async def test_in_production_nobody_without_a_credential_learns_anything(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database
) -> None:
    async with running_settlement(monkeypatch, exchange, database, PINCEX_PROFILE="production") as settlement:
        await eventually(lambda: settlement.app.settler.state is State.RUNNING, "it settles, by its own header")
        for method in ("GetSettlementStatus", "GetWithdrawalGate", "Reconcile", "RecordLoss", "ApproveCorrection"):
            request = getattr(pb, f"{method}Request")()
            assert (await refused(settlement.ask(method, request))).code == "UNAUTHENTICATED"
        wanted = statement_pb.GetStatementRequest(asset="USD")
        assert (await refused(settlement.statement("GetStatement", wanted, "demo"))).code == "UNAUTHENTICATED"
        token = ServiceTokens(Secret(ENVIRONMENT["JWT_SECRET"]), SystemClock()).mint("wallet")
        as_wallet = ((SERVICE_KEY, token),)
        await settlement.ledger.Reconcile(pb.ReconcileRequest(), metadata=as_wallet, timeout=10)
        assert (await settlement.ledger.GetWithdrawalGate(pb.GetWithdrawalGateRequest(), metadata=as_wallet)).open
        channel: Any = settlement.public
        stub: Any = statement_service_pb2_grpc.StatementServiceStub(channel)
        refusal = await refused(stub.GetStatement(wanted, metadata=as_wallet, timeout=10))
        assert refusal.code == "UNAUTHENTICATED", "services are known on the ops port alone"


async def test_the_ledger_is_not_on_the_public_port(settlement: Settlement) -> None:
    channel: Any = settlement.public
    stub: Any = type(settlement.ledger)(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSettlementStatus(pb.GetSettlementStatusRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

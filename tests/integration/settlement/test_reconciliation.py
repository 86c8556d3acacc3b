"""Engine and ledger are compared at one sequence; what does not agree is on record, and withdrawals stop until it is resolved."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from exchange.settlement.settler import State
from pincex.settlement.v1 import settlement_service_pb2 as pb
from pincex.trading.v1 import funds_service_pb2 as funds_pb
from pincex.trading.v1 import funds_service_pb2_grpc
from tests.integration.settlement.settlement_app import (
    Settlement,
    assert_whole,
    rows,
    running_settlement,
    trade_some,
)
from tests.integration.trading.engine_app import Exchange, eventually, refused

if TYPE_CHECKING:
    from tests.postgres_fixture import Database

RECONCILE = pb.ReconcileRequest(reason="test")
# Behind the engine's back: a balance that no event explains.
TAMPER = "UPDATE ledger_balances SET amount = amount + 1 WHERE kind_id = 1 AND asset = 'USD' AND account_id = %s"


def account_id(database: Database, account: str) -> int:
    """Its number in the ledger."""
    return int(rows(database, "SELECT account_id FROM ledger_accounts WHERE account = %s", account)[0][0])


async def gate(settlement: Settlement) -> pb.WithdrawalGate:
    """What the wallet is told."""
    found: pb.WithdrawalGate = await settlement.ask("GetWithdrawalGate", pb.GetWithdrawalGateRequest())
    return found


async def test_under_load_all_accounts_agree_at_one_sequence(exchange: Exchange, settlement: Settlement) -> None:
    for _ in range(4):
        await trade_some(exchange, 2)
        found = await settlement.ask("Reconcile", RECONCILE)
        assert (found.whole, list(found.breaks)) == (True, [])
        assert found.compared_accounts >= 2
        assert found.compared_balances >= 4
    status = await settlement.ask("GetSettlementStatus", pb.GetSettlementStatusRequest())
    assert (status.reconciled_sequence, status.open_incidents) == (status.settled_sequence, 0)
    assert (status.state, status.withdrawals_stopped, status.instance) == ("RUNNING", False, "settlement-under-test")
    assert status.settled_trades == settlement.app.settler.offset.trade_count > 0
    assert (await gate(settlement)).open


async def test_who_begins_to_write_compares_at_once_so_that_withdrawals_need_not_wait(settlement: Settlement) -> None:
    # Nobody has asked for a comparison, and the next one by itself is ten minutes away.
    assert (await gate(settlement)).open


async def test_lines_beyond_the_engines_sequence_are_counted_back(
    exchange: Exchange, settlement: Settlement, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trade_some(exchange, 2)
    books = settlement.app.reconciler._engine.books

    async def earlier() -> Any:
        found = await books()
        await trade_some(exchange, 2)
        await settlement.settled(exchange)
        return found

    monkeypatch.setattr(settlement.app.reconciler._engine, "books", earlier)
    found = await settlement.ask("Reconcile", RECONCILE)
    assert (found.whole, list(found.breaks)) == (True, [])
    assert found.sequence < settlement.app.settler.offset.sequence


async def test_a_break_is_an_incident_and_stops_withdrawals_until_it_is_resolved(
    exchange: Exchange, settlement: Settlement, database: Database
) -> None:
    await settlement.settled(exchange)
    rows(database, "DELETE FROM settlement_reconciled")
    closed = await gate(settlement)
    assert (closed.open, closed.problem) == (False, "engine and ledger were not compared yet")
    assert (await settlement.ask("Reconcile", RECONCILE)).whole
    assert (await gate(settlement)).open
    number = account_id(database, "demo")
    rows(database, TAMPER, number)

    found = await settlement.ask("Reconcile", RECONCILE)
    assert not found.whole
    (broken,) = found.breaks
    assert (broken.kind, broken.account, broken.asset) == ("engine-ledger", "demo", "USD")
    assert broken.engine_amount != broken.ledger_amount
    await settlement.ask("Reconcile", RECONCILE)
    (incident,) = (await settlement.ask("ListIncidents", pb.ListIncidentsRequest(open_only=True))).incidents
    assert list(incident.breaks) == [broken]
    closed = await gate(settlement)
    assert (closed.open, closed.problem) == (False, "open incidents: 1")
    sample = settlement.app.registry.get_sample_value
    assert sample("pincex_settlement_open_incidents") == 1
    assert sample("pincex_settlement_breaks_total") == 2
    log = (settlement.app.common.runtime.log_dir / "audit.log").read_text()
    assert [one for one in map(json.loads, log.splitlines()) if one["action"] == "settlement.break-found"]

    resolve = pb.ResolveIncidentRequest(incident_id=incident.incident_id, reason="put right by hand")
    refusal = await refused(settlement.ask("ResolveIncident", resolve))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "RECORD_STATE")
    rows(database, TAMPER.replace("+ 1", "- 1"), number)
    assert (await settlement.ask("Reconcile", RECONCILE)).whole
    assert not (await gate(settlement)).open, "whole, and not resolved"
    resolved = await settlement.ask("ResolveIncident", resolve, who="alice")
    assert (resolved.resolved_by, resolved.resolution) == ("alice", "put right by hand")
    assert await settlement.ask("ResolveIncident", resolve, who="bob") == resolved, "a repeat is answered the same"
    assert (await gate(settlement)).open
    assert not (await settlement.ask("ListIncidents", pb.ListIncidentsRequest(open_only=True))).incidents
    assert sample("pincex_settlement_open_incidents") == 0


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE ledger_balances SET amount = amount - 1 WHERE kind_id = 4 AND asset = 'USD'", "custody-liabilities"),
        ("UPDATE orders SET open_quantity = open_quantity + 1 WHERE status = 'PENDING'", "orders"),
        ("UPDATE orders SET status = 'CANCELLED' WHERE status = 'PENDING'", "orders"),
        ("UPDATE orders SET status = 'PENDING' WHERE status = 'FILLED'", "orders"),
        ("DELETE FROM trades WHERE id = (SELECT min(id) FROM trades)", "trades"),
        ("UPDATE orders SET filled_quantity = filled_quantity + 1 WHERE status = 'FILLED'", "trades"),
    ],
)
async def test_each_kind_of_break_is_found(
    exchange: Exchange, settlement: Settlement, database: Database, statement: str, kind: str
) -> None:
    await trade_some(exchange, 2)
    await settlement.settled(exchange)
    rows(database, statement)
    found = await settlement.ask("Reconcile", RECONCILE)
    assert kind in {one.kind for one in found.breaks}


async def test_money_that_left_by_a_network_it_never_came_in_by_is_a_break_and_no_stop(
    exchange: Exchange, settlement: Settlement, database: Database
) -> None:
    channel: Any = exchange.ops
    stub: Any = funds_service_pb2_grpc.FundsServiceStub(channel)
    hold = "withdrawal:nowhere:1"
    await stub.HoldFunds(funds_pb.HoldFundsRequest(account="demo", asset="USD", amount="5", request_id=hold))
    await stub.SettleHold(funds_pb.SettleHoldRequest(account="demo", hold_id=hold, request_id="s"))
    await settlement.settled(exchange)
    assert_whole(database)
    found = await settlement.ask("Reconcile", RECONCILE)
    assert [(one.kind, one.account) for one in found.breaks] == [("custody-liabilities", "custody:nowhere")]


async def test_it_compares_by_itself(monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database) -> None:
    async with running_settlement(monkeypatch, exchange, database, PINCEX_RECONCILE_SECONDS="0.05") as settlement:
        await settlement.settled(exchange)
        found = "SELECT count(*) FROM settlement_reconciled"
        await eventually(lambda: rows(database, found) == [(1,)], "it was compared")
        rows(database, TAMPER, account_id(database, "demo"))
        await eventually(lambda: bool(rows(database, "SELECT * FROM settlement_incidents")), "the break is found")
        assert not (await gate(settlement)).open


async def test_a_ledger_that_stopped_keeps_withdrawals_in_and_is_no_break(
    exchange: Exchange, settlement: Settlement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.settlement.reconciliation.WAIT_S", 0.2)
    await settlement.settled(exchange)
    assert (await settlement.ask("Reconcile", RECONCILE)).whole
    monkeypatch.setattr("exchange.settlement.service.intake.Intake.take", None)
    await exchange.demo.buy("0.1", "40000")
    await eventually(lambda: settlement.app.settler.state is State.STOPPED, "it stops")
    closed = await gate(settlement)
    assert (closed.open, "settlement has stopped" in closed.problem) == (False, True)
    assert (await refused(settlement.ask("Reconcile", RECONCILE))).reason == "SEQUENCE_NOT_REACHED"
    status = await settlement.ask("GetSettlementStatus", pb.GetSettlementStatusRequest())
    assert (status.state, status.withdrawals_stopped, bool(status.problem)) == ("STOPPED", True, True)


async def test_an_old_comparison_and_a_long_lag_keep_withdrawals_in(
    exchange: Exchange, settlement: Settlement, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settlement.settled(exchange)
    await settlement.ask("Reconcile", RECONCILE)
    assert (await gate(settlement)).open
    monkeypatch.setattr(type(settlement.app.settler), "lag_s", 61.0)
    assert "61 s behind" in (await gate(settlement)).problem
    monkeypatch.undo()
    rows(database, "UPDATE settlement_reconciled SET reconciled_at = reconciled_at - interval '3 hours'")
    assert "last found to agree" in (await gate(settlement)).problem


async def test_an_instance_that_stands_by_sends_the_wallet_to_the_writer(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, settlement: Settlement, database: Database
) -> None:
    await settlement.settled(exchange)
    async with running_settlement(monkeypatch, exchange, database, PINCEX_INSTANCE="second") as second:
        await eventually(lambda: second.app.settler.state is State.STANDBY, "it stands by")
        refusal = await refused(gate(second))
        assert (refusal.code, refusal.reason, refusal.details) == (
            "UNAVAILABLE",
            "NOT_READY",
            ("RetryInfo",),
        )
        status = await second.ask("GetSettlementStatus", pb.GetSettlementStatusRequest())
        assert (status.state, status.settled_sequence) == ("STANDBY", settlement.app.settler.offset.sequence)
        assert (await second.ask("Reconcile", RECONCILE)).whole, "anybody can compare"

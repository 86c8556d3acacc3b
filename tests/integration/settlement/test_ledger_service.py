"""The ledger over its contract: balances, postings, losses, corrections by four eyes, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from exchange.runtime.errors import ErrorReason, ServiceError
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

LOSS = pb.RecordLossRequest(
    custody_account="custody:manual", asset="usd", amount="12.5", request_id="reorg-1", reason="a reorg"
)
PROPOSAL = pb.ProposeCorrectionRequest(
    account="demo", asset="USD", amount="-7.25", request_id="c-1", reason="credited twice"
)
BAD_AMOUNTS = [
    ("", "FIELD_REQUIRED"),
    ("0", "NOT_POSITIVE"),
    ("-0", "NOT_POSITIVE"),
    ("1e3", "INVALID_DECIMAL"),
    ("NaN", "INVALID_DECIMAL"),
    ("+1", "INVALID_DECIMAL"),
    ("--1", "INVALID_DECIMAL"),
    (" 1", "INVALID_DECIMAL"),
    ("0.0000000001", "INVALID_FIELD"),
    ("9" * 30, "NUMBER_TOO_LARGE"),
]


def changed(request: Any, **fields: str) -> Any:
    """The request with other values."""
    copy = type(request)()
    copy.CopyFrom(request)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


async def propose(settlement: Settlement, who: str = "alice", **fields: str) -> pb.Correction:
    """A correction on record."""
    found: pb.Correction = await settlement.ask("ProposeCorrection", changed(PROPOSAL, **fields), who)
    return found


async def approve(settlement: Settlement, number: str, who: str = "bob") -> pb.Correction:
    """Approved by another."""
    found: pb.Correction = await settlement.ask(
        "ApproveCorrection", pb.ApproveCorrectionRequest(correction_id=number), who
    )
    return found


async def test_postings_explain_each_balance_page_by_page(exchange: Exchange, settlement: Settlement) -> None:
    await trade_some(exchange, 3)
    sequence = await settlement.settled(exchange)
    account = await settlement.ask("GetLedgerAccount", pb.GetLedgerAccountRequest(account="demo"))
    assert account.sequence == sequence
    lines: list[pb.Posting] = []
    token = ""
    while True:
        page = await settlement.ask(
            "ListPostings", pb.ListPostingsRequest(account="demo", page_size=7, page_token=token)
        )
        lines += page.postings
        token = page.next_page_token
        if not token:
            break
    assert [line.posting_id for line in lines] == sorted({line.posting_id for line in lines}, reverse=True)
    for balance in account.balances:
        of_it = [line for line in lines if (line.asset, line.kind) == (balance.asset, balance.kind)]
        assert sum(Decimal(line.amount) for line in of_it) == Decimal(balance.amount)
        assert of_it[0].balance_after == balance.amount
    only = await settlement.ask("ListPostings", pb.ListPostingsRequest(account="demo", asset="btc", page_size=500))
    assert list(only.postings) == [line for line in lines if line.asset == "BTC"]
    assert {line.cause for line in lines} >= {"trade", "hold", "release", "deposit"}


async def test_an_account_that_nobody_posted_to_is_empty(exchange: Exchange, settlement: Settlement) -> None:
    await settlement.settled(exchange)
    for account in ("nobody", "$suspense", "custody:nowhere", "suspense:losses"):
        assert not (await settlement.ask("GetLedgerAccount", pb.GetLedgerAccountRequest(account=account))).balances
        assert not (await settlement.ask("ListPostings", pb.ListPostingsRequest(account=account))).postings


async def test_a_loss_stands_in_suspense_once(exchange: Exchange, settlement: Settlement, database: Database) -> None:
    await settlement.settled(exchange)
    first = await settlement.ask("RecordLoss", LOSS)
    assert await settlement.ask("RecordLoss", LOSS) == first
    assert (await refused(settlement.ask("RecordLoss", changed(LOSS, amount="13")))).reason == "DUPLICATE_ID"
    held = await settlement.ask("GetLedgerAccount", pb.GetLedgerAccountRequest(account="suspense:losses"))
    assert [(one.asset, one.kind, Decimal(one.amount)) for one in held.balances] == [
        ("USD", "suspense", Decimal("12.5"))
    ]
    (line,) = (await settlement.ask("ListPostings", pb.ListPostingsRequest(account="suspense:losses"))).postings
    assert (line.sequence, line.cause, line.reference) == (0, "loss", "reorg-1")
    await trade_some(exchange, 1)
    await settlement.settled(exchange)
    assert_whole(database)
    assert (await settlement.ask("Reconcile", pb.ReconcileRequest())).whole, "custody + suspense = what is owed"


async def test_a_loss_that_cannot_be_stored_leaves_nothing_behind(
    exchange: Exchange, settlement: Settlement, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settlement.settled(exchange)
    with monkeypatch.context() as patch:

        async def broken(*_: object) -> None:
            raise ServiceError(ErrorReason.NOT_READY)

        patch.setattr("exchange.settlement.store.write", broken)
        assert (await refused(settlement.ask("RecordLoss", LOSS))).reason == "NOT_READY"
    await trade_some(exchange, 1)
    await settlement.settled(exchange)
    assert rows(database, "SELECT * FROM ledger_losses") == []
    assert rows(database, "SELECT * FROM ledger_lines WHERE transaction_id < 0") == []
    assert_whole(database)
    await settlement.ask("RecordLoss", LOSS)
    assert_whole(database)


async def test_custody_cannot_lose_what_it_does_not_have(exchange: Exchange, settlement: Settlement) -> None:
    await settlement.settled(exchange)
    for fields in ({"custody_account": "custody:nowhere"}, {"amount": "30000000000"}):
        assert (await refused(settlement.ask("RecordLoss", changed(LOSS, **fields)))).reason == "INSUFFICIENT_FUNDS"


async def test_a_correction_is_carried_out_once_another_has_approved_it(
    exchange: Exchange, settlement: Settlement, database: Database
) -> None:
    await settlement.settled(exchange)
    before = Decimal((await exchange.demo.balances())["USD"][0])
    proposed = await propose(settlement)
    assert (proposed.status, proposed.proposed_by, proposed.amount) == (pb.PROPOSED, "alice", "-7.25000000")
    assert await propose(settlement) == proposed, "a repeat is answered the same"
    assert (await refused(propose(settlement, amount="7"))).reason == "DUPLICATE_ID"
    refusal = await refused(approve(settlement, proposed.correction_id, "alice"))
    assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "FOUR_EYES")
    assert Decimal((await exchange.demo.balances())["USD"][0]) == before, "nothing moved yet"

    done = await approve(settlement, proposed.correction_id)
    assert (done.status, done.decided_by, done.sequence > 0) == (pb.CARRIED_OUT, "bob", True)
    assert await approve(settlement, proposed.correction_id, "carol") == done
    assert Decimal((await exchange.demo.balances())["USD"][0]) == before - Decimal("7.25")
    await settlement.settled(exchange)
    (line,) = (await settlement.ask("ListPostings", pb.ListPostingsRequest(account="$suspense"))).postings
    assert (line.sequence, line.cause, line.reference) == (
        done.sequence,
        "transfer",
        f"correction:{done.correction_id}",
    )
    reject = pb.RejectCorrectionRequest(correction_id=done.correction_id, reason="too late")
    assert (await refused(settlement.ask("RejectCorrection", reject))).reason == "RECORD_STATE"
    given = await approve(settlement, (await propose(settlement, request_id="c-2", amount="7.25")).correction_id)
    assert given.status == pb.CARRIED_OUT
    assert Decimal((await exchange.demo.balances())["USD"][0]) == before
    assert (await settlement.ask("Reconcile", pb.ReconcileRequest())).whole
    assert_whole(database)
    listed = await settlement.ask("ListCorrections", pb.ListCorrectionsRequest(page_size=1))
    assert (list(listed.corrections), bool(listed.next_page_token)) == ([given], True)
    rest = pb.ListCorrectionsRequest(page_size=1, page_token=listed.next_page_token)
    assert list((await settlement.ask("ListCorrections", rest)).corrections) == [done]


async def test_what_is_rejected_moves_nothing(exchange: Exchange, settlement: Settlement) -> None:
    await settlement.settled(exchange)
    proposed = await propose(settlement)
    reject = pb.RejectCorrectionRequest(correction_id=proposed.correction_id, reason="not so")
    rejected = await settlement.ask("RejectCorrection", reject, "alice")
    assert (rejected.status, rejected.decided_by) == (pb.REJECTED, "alice")
    assert await settlement.ask("RejectCorrection", reject, "bob") == rejected
    assert (await refused(approve(settlement, proposed.correction_id))).reason == "RECORD_STATE"


async def test_what_the_engine_refuses_is_rejected_with_its_reason(exchange: Exchange, settlement: Settlement) -> None:
    await settlement.settled(exchange)
    proposed = await propose(settlement, account="nobody")
    found = await approve(settlement, proposed.correction_id)
    assert (found.status, found.problem.split(": ")[:2]) == (pb.REJECTED, ["INSUFFICIENT_FUNDS", "nobody"])


async def test_approved_and_not_sent_it_is_driven_on_after_a_restart_and_moves_once(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database
) -> None:
    monkeypatch.setattr("exchange.settlement.upkeep.DRIVE_EVERY_S", 0.02)
    before = Decimal((await exchange.demo.balances())["USD"][0])
    async with running_settlement(monkeypatch, exchange, database) as settlement:
        await settlement.settled(exchange)
        number = (await propose(settlement)).correction_id
    # As after a SIGKILL between the approval and the command, and once more between the command and its answer.
    rows(
        database,
        "UPDATE settlement_corrections SET status = 'APPROVED', decided_by = 'bob', decided_at = now(), asked_at = now()",
    )
    async with running_settlement(monkeypatch, exchange, database):
        status = "SELECT status FROM settlement_corrections"
        await eventually(lambda: rows(database, status) == [("CARRIED_OUT",)], "it is driven on")
    rows(database, "UPDATE settlement_corrections SET status = 'APPROVED', sequence = NULL, asked_at = now()")
    async with running_settlement(monkeypatch, exchange, database) as settlement:
        await eventually(lambda: rows(database, status) == [("CARRIED_OUT",)], "it is driven on")
        assert (await approve(settlement, number)).status == pb.CARRIED_OUT
    assert Decimal((await exchange.demo.balances())["USD"][0]) == before - Decimal("7.25")


async def test_a_refusal_is_not_the_last_word_while_an_earlier_call_may_still_arrive(
    exchange: Exchange, settlement: Settlement, database: Database
) -> None:
    await settlement.settled(exchange)
    proposed = await propose(settlement, account="nobody")
    rows(database, "UPDATE settlement_corrections SET asked_at = now() - interval '10 s'")
    found = await approve(settlement, proposed.correction_id)
    assert (found.status, "may still arrive" in found.problem) == (pb.APPROVED, True)
    rows(database, "UPDATE settlement_corrections SET asked_at = now() - interval '61 s'")
    assert (await approve(settlement, proposed.correction_id)).status == pb.REJECTED


async def test_an_engine_that_is_away_leaves_it_approved(
    exchange: Exchange, settlement: Settlement, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settlement.settled(exchange)
    number = (await propose(settlement)).correction_id

    async def away(*_: object) -> int:
        raise ServiceError(ErrorReason.UPSTREAM_UNAVAILABLE)

    monkeypatch.setattr("exchange.settlement.service.engine.EngineLink.transfer", away)
    assert (await approve(settlement, number)).status == pb.APPROVED
    monkeypatch.undo()
    assert (await approve(settlement, number)).status == pb.CARRIED_OUT


async def test_the_service_that_stands_by_records_no_loss(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, settlement: Settlement, database: Database
) -> None:
    await settlement.settled(exchange)
    async with running_settlement(monkeypatch, exchange, database, PINCEX_INSTANCE="second") as second:
        await eventually(lambda: second.app.settler.state is State.STANDBY, "it stands by")
        refusal = await refused(second.ask("RecordLoss", LOSS))
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "NOT_READY")


async def test_bad_input_moves_nothing(exchange: Exchange, settlement: Settlement, database: Database) -> None:
    await settlement.settled(exchange)
    cases: list[tuple[str, Any, str, str]] = []
    for method, good in (("RecordLoss", LOSS), ("ProposeCorrection", PROPOSAL)):
        cases += [(method, changed(good, amount=text), reason, "amount") for text, reason in BAD_AMOUNTS]
        cases += [
            (method, changed(good, request_id=""), "FIELD_REQUIRED", "request_id"),
            (method, changed(good, request_id="a b"), "INVALID_FIELD", "request_id"),
            (method, changed(good, request_id="x" * 65), "INVALID_FIELD", "request_id"),
            (method, changed(good, reason=" "), "FIELD_REQUIRED", "reason"),
            (method, changed(good, reason="x" * 257), "INVALID_FIELD", "reason"),
            (method, changed(good, asset=""), "FIELD_REQUIRED", "asset"),
            (method, changed(good, asset="XXX"), "UNKNOWN_ASSET", ""),
        ]
    cases.append(("RecordLoss", changed(LOSS, amount="-1"), "NOT_POSITIVE", "amount"))
    for text, reason in (
        ("", "FIELD_REQUIRED"),
        ("demo", "INVALID_FIELD"),
        ("custody:", "INVALID_FIELD"),
        ("suspense:losses", "INVALID_FIELD"),
    ):
        cases.append(("RecordLoss", changed(LOSS, custody_account=text), reason, "custody_account"))
    for text, reason in (
        ("", "FIELD_REQUIRED"),
        ("a b", "INVALID_FIELD"),
        ("$suspense", "INVALID_FIELD"),
        ("custody:manual", "INVALID_FIELD"),
        ("x" * 65, "INVALID_FIELD"),
    ):
        cases.append(("ProposeCorrection", changed(PROPOSAL, account=text), reason, "account"))
    for method in ("GetLedgerAccount", "ListPostings"):
        make = pb.GetLedgerAccountRequest if method == "GetLedgerAccount" else pb.ListPostingsRequest
        for text, reason in (
            ("", "FIELD_REQUIRED"),
            ("a b", "INVALID_FIELD"),
            ("custody:", "INVALID_FIELD"),
            ("x" * 65, "INVALID_FIELD"),
            ("$$", "INVALID_FIELD"),
        ):
            cases.append((method, make(account=text), reason, "account"))
    cases += [
        ("ListPostings", pb.ListPostingsRequest(account="demo", page_size=501), "INVALID_FIELD", "page_size"),
        ("ListPostings", pb.ListPostingsRequest(account="demo", page_token="?"), "INVALID_PAGE_TOKEN", "page_token"),
        ("ListPostings", pb.ListPostingsRequest(account="demo", asset="XXX"), "UNKNOWN_ASSET", ""),
        ("ListIncidents", pb.ListIncidentsRequest(page_size=-1), "INVALID_FIELD", "page_size"),
        ("ListCorrections", pb.ListCorrectionsRequest(page_token="x"), "INVALID_PAGE_TOKEN", "page_token"),
        ("Reconcile", pb.ReconcileRequest(reason="x" * 257), "INVALID_FIELD", "reason"),
        ("ResolveIncident", pb.ResolveIncidentRequest(incident_id="7"), "FIELD_REQUIRED", "reason"),
        ("ResolveIncident", pb.ResolveIncidentRequest(reason="x"), "FIELD_REQUIRED", "incident_id"),
        ("ResolveIncident", pb.ResolveIncidentRequest(incident_id="7", reason="x"), "RECORD_NOT_FOUND", ""),
        ("ApproveCorrection", pb.ApproveCorrectionRequest(correction_id="7"), "RECORD_NOT_FOUND", ""),
        ("ApproveCorrection", pb.ApproveCorrectionRequest(correction_id="-7"), "RECORD_NOT_FOUND", ""),
        ("ApproveCorrection", pb.ApproveCorrectionRequest(correction_id="9" * 30), "RECORD_NOT_FOUND", ""),
        ("RejectCorrection", pb.RejectCorrectionRequest(correction_id="7"), "FIELD_REQUIRED", "reason"),
        ("RejectCorrection", pb.RejectCorrectionRequest(correction_id="7", reason="x"), "RECORD_NOT_FOUND", ""),
    ]
    for method, request, reason, field in cases:
        refusal = await refused(settlement.ask(method, request))
        assert (refusal.reason, refusal.metadata.get("field", "")) == (reason, field), (method, request)
    for table in ("ledger_losses", "settlement_corrections", "settlement_incidents"):
        assert rows(database, f"SELECT * FROM {table}") == []


async def test_a_database_that_is_away_is_said_to_be_away(
    exchange: Exchange, settlement: Settlement, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settlement.settled(exchange)
    pool = settlement.app.database._pool
    assert pool is not None

    def away(**_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(type(pool), "acquire", lambda _pool, **_more: away())
    refusal = await refused(settlement.ask("GetLedgerAccount", pb.GetLedgerAccountRequest(account="demo")))
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "NOT_READY")


async def test_a_hold_and_a_deposit_of_a_network_lie_where_they_came_in(
    exchange: Exchange, settlement: Settlement
) -> None:
    channel: Any = exchange.ops
    stub: Any = funds_service_pb2_grpc.FundsServiceStub(channel)
    request = funds_pb.DepositFundsRequest(account="demo", asset="BTC", amount="2", request_id="deposit:bitcoin:1")
    await stub.DepositFunds(request)
    hold = "withdrawal:bitcoin:1"
    await stub.HoldFunds(funds_pb.HoldFundsRequest(account="demo", asset="BTC", amount="0.5", request_id=hold))
    await stub.SettleHold(funds_pb.SettleHoldRequest(account="demo", hold_id=hold, request_id="s"))
    await settlement.settled(exchange)
    found = await settlement.ask("GetLedgerAccount", pb.GetLedgerAccountRequest(account="custody:bitcoin"))
    assert [(one.asset, one.kind, Decimal(one.amount)) for one in found.balances] == [
        ("BTC", "custody", Decimal("1.5"))
    ]

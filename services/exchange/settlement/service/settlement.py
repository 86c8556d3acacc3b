"""SettlementService: the ledger, whether it agrees with the engine, and how it is put right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.fields import amount_units, caller, reason_text, request_id, timestamp
from exchange.settlement import accounts, incidents, losses
from exchange.settlement.corrections import SUSPENSE, Proposal
from exchange.settlement.losses import Loss
from exchange.settlement.service.messages import (
    correction_message,
    incident_message,
    posting_message,
    record_id,
    report_message,
)
from exchange.settlement.settler import NotWriter
from pincex.settlement.v1 import settlement_service_pb2 as pb
from pincex.settlement.v1 import settlement_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.runtime.clock import Clock
    from exchange.runtime.database import Database
    from exchange.settlement.corrections import Corrections
    from exchange.settlement.gate import WithdrawalGate
    from exchange.settlement.reconciliation import Reconciler
    from exchange.settlement.settler import Settler

_CUSTODY = "custody:"


class SettlementService(settlement_service_pb2_grpc.SettlementServiceServicer):
    """See `proto/pincex/settlement/v1/settlement_service.proto`. The guard has checked roles and writes the audit record."""

    def __init__(
        self,
        *,
        settler: Settler,
        database: Database,
        reconciler: Reconciler,
        corrections: Corrections,
        gate: WithdrawalGate,
        clock: Clock,
        instance: str,
    ) -> None:
        self._settler = settler
        self._database = database
        self._reconciler = reconciler
        self._corrections = corrections
        self._gate = gate
        self._clock = clock
        self._instance = instance

    # --- how far, and whether it is whole ---

    async def GetSettlementStatus(self, request: pb.GetSettlementStatusRequest, context: Any) -> pb.SettlementStatus:
        """How far, how fast; what the tables say is the same on every instance."""
        settler = self._settler
        async with self._database.reading() as connection:
            offset = await connection.fetchrow("SELECT sequence, trade_count FROM settlement_offset")
            last = await incidents.reconciled(connection)
            open_incidents = await incidents.open_count(connection)
        sequence, trades = (0, 0) if offset is None else (offset["sequence"], offset["trade_count"])
        try:
            stopped = bool(await self._gate.why_closed())
        except NotWriter:
            stopped = open_incidents > 0
        status = pb.SettlementStatus(
            settled_sequence=sequence,
            head_sequence=max(settler.head_sequence, sequence),
            lag_seconds=settler.lag_s,
            settled_trades=trades,
            open_incidents=open_incidents,
            withdrawals_stopped=stopped,
            state=settler.state,
            problem=settler.problem,
            instance=self._instance,
        )
        if last is not None:
            status.reconciled_sequence = last.sequence
            status.reconciled_time.CopyFrom(timestamp(last.reconciled_at))
        return status

    async def GetWithdrawalGate(self, request: pb.GetWithdrawalGateRequest, context: Any) -> pb.WithdrawalGate:
        """Open only while all is known to be whole."""
        try:
            problem = await self._gate.why_closed()
        except NotWriter:
            _ask_the_writer()
        return pb.WithdrawalGate(open=not problem, problem=problem, settled_sequence=self._settler.offset.sequence)

    async def Reconcile(self, request: pb.ReconcileRequest, context: Any) -> pb.Reconciliation:
        """Compare now."""
        reason_text(request.reason)
        return report_message(await self._reconciler.reconcile())

    # --- the ledger ---

    async def GetLedgerAccount(self, request: pb.GetLedgerAccountRequest, context: Any) -> pb.LedgerAccount:
        """All balances of one account."""
        account = accounts.account_name(request.account)
        sequence, found = await accounts.balances(self._database, account)
        message = pb.LedgerAccount(account=account, sequence=sequence)
        for asset, kind, amount in found:
            message.balances.add(asset=asset, kind=kind, amount=amount)
        return message

    async def ListPostings(self, request: pb.ListPostingsRequest, context: Any) -> pb.ListPostingsResponse:
        """The newest first."""
        account = accounts.account_name(request.account)
        size = paging.page_size(request.page_size)
        asset = request.asset.upper()
        before = _place(paging.read_token(request.page_token, "postings", account, asset))
        found = await accounts.postings(self._database, account, asset, before, size + 1)
        response = pb.ListPostingsResponse(postings=[posting_message(account, line) for line in found[:size]])
        if len(found) > size:
            last = found[size - 1]
            response.next_page_token = paging.make_token(
                f"{last.time_ns}.{last.posting_id}", "postings", account, asset
            )
        return response

    # --- incidents ---

    async def ListIncidents(self, request: pb.ListIncidentsRequest, context: Any) -> pb.ListIncidentsResponse:
        """The newest first."""
        size = paging.page_size(request.page_size)
        before = paging.number_position(request.page_token, "incidents", request.open_only)
        found = await incidents.listed(self._database, open_only=request.open_only, before=before, limit=size + 1)
        response = pb.ListIncidentsResponse(incidents=map(incident_message, found[:size]))
        if len(found) > size:
            response.next_page_token = paging.make_token(
                str(found[size - 1].incident_id), "incidents", request.open_only
            )
        return response

    async def ResolveIncident(self, request: pb.ResolveIncidentRequest, context: Any) -> pb.Incident:
        """Close it, once all was found whole."""
        number = record_id(request.incident_id, "incident_id")
        resolution = reason_text(request.reason, required=True)
        incident = await incidents.resolve(self._database, number, resolution, caller())
        await self._reconciler.count_incidents()
        return incident_message(incident)

    # --- losses and corrections ---

    async def RecordLoss(self, request: pb.RecordLossRequest, context: Any) -> pb.RecordLossResponse:
        """By the writing instance: the loss stands in the same books as all else."""
        account = accounts.account_name(request.custody_account, "custody_account")
        if not account.startswith(_CUSTODY):
            reject(ErrorReason.INVALID_FIELD, field="custody_account", value=account)
        asset, amount = await self._amount(request.asset, request.amount, signed=False)
        reason = reason_text(request.reason, required=True)
        loss = Loss(account, asset, amount, request_id(request.request_id), reason)
        try:
            return pb.RecordLossResponse(posting_id=await losses.record(self._settler, loss, self._clock.time_ns()))
        except NotWriter:
            _ask_the_writer()

    async def ProposeCorrection(self, request: pb.ProposeCorrectionRequest, context: Any) -> pb.Correction:
        """Put it on record."""
        account = accounts.account_name(request.account)
        if ":" in account or account == SUSPENSE:
            reject(ErrorReason.INVALID_FIELD, field="account", value=account)
        asset, amount = await self._amount(request.asset, request.amount, signed=True)
        reason = reason_text(request.reason, required=True)
        proposal = Proposal(account, asset, amount, request_id(request.request_id), reason, caller())
        return correction_message(await self._corrections.propose(proposal))

    async def ApproveCorrection(self, request: pb.ApproveCorrectionRequest, context: Any) -> pb.Correction:
        """Have it carried out."""
        number = record_id(request.correction_id, "correction_id")
        return correction_message(await self._corrections.approve(number, caller(), reason_text(request.reason)))

    async def RejectCorrection(self, request: pb.RejectCorrectionRequest, context: Any) -> pb.Correction:
        """Refuse it."""
        number = record_id(request.correction_id, "correction_id")
        reason = reason_text(request.reason, required=True)
        return correction_message(await self._corrections.reject(number, caller(), reason))

    async def ListCorrections(self, request: pb.ListCorrectionsRequest, context: Any) -> pb.ListCorrectionsResponse:
        """The newest first."""
        size = paging.page_size(request.page_size)
        before = paging.number_position(request.page_token, "corrections")
        found = await self._corrections.listed(before, size + 1)
        response = pb.ListCorrectionsResponse(corrections=map(correction_message, found[:size]))
        if len(found) > size:
            response.next_page_token = paging.make_token(str(found[size - 1].correction_id), "corrections")
        return response

    async def _amount(self, asset: str, amount: str, *, signed: bool) -> tuple[str, int]:
        code = asset.upper()
        async with self._database.connection() as connection:
            decimals = await accounts.decimals_of(connection, code)
        return code, amount_units(amount, decimals, signed=signed)


def _ask_the_writer() -> NoReturn:
    raise ServiceError(ErrorReason.NOT_READY, "this instance does not write the ledger now: ask again")


def _place(position: str) -> tuple[int, int] | None:
    """(time, posting) of a token's position. Raises ServiceError INVALID_PAGE_TOKEN."""
    if not position:
        return None
    parts = position.split(".")
    if len(parts) != 2 or not all(part.isdigit() and len(part) <= paging.MAX_POSITION_DIGITS - 1 for part in parts):
        raise ServiceError(ErrorReason.INVALID_PAGE_TOKEN, metadata={"field": "page_token"})
    return int(parts[0]), int(parts[1])

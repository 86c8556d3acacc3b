"""`ExchangeClient.statements`, and `ExchangeClient.admin.settlement`: the ledger, and whether it agrees with the engine."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import grpc.aio

from pincex.settlement.v1 import (
    settlement_service_pb2 as wire,
)
from pincex.settlement.v1 import (
    settlement_service_pb2_grpc,
    statement_service_pb2,
    statement_service_pb2_grpc,
)
from pincex_client import ledger
from pincex_client.convert import from_wire, plain_decimal, to_timestamp
from pincex_client.errors import Unavailable, decode_error
from pincex_client.paging import all_pages
from pincex_client.transport import Caller, new_id, with_request_id

MAX_PAGE = 500
RECONCILE_TIMEOUT_S = 60.0
REPORT_TIMEOUT_S = 30.0


class Statements:
    """What happened on the calling account. Periods are from, included, to, not included; None leaves an end open."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._caller = caller
        self._statements = statement_service_pb2_grpc.StatementServiceStub(channel)

    async def _call(self, method: Any, request: Any) -> Any:
        return await self._caller.call(method, request, repeatable=True)

    async def get(
        self, asset: str, *, from_time: datetime | None = None, to_time: datetime | None = None
    ) -> ledger.Statement:
        """All lines of a period, the oldest first."""
        request = _statement_request(asset, from_time, to_time)
        whole: ledger.Statement | None = None
        lines: list[ledger.StatementLine] = []
        async for page in all_pages(self._call, self._statements.GetStatement, request):
            found = from_wire(ledger.Statement, page)
            whole = whole or found
            lines += found.lines
        assert whole is not None, "there is a first page"
        return replace(whole, lines=tuple(lines))

    async def csv(self, asset: str, *, from_time: datetime | None = None, to_time: datetime | None = None) -> bytes:
        """The same as a CSV file in UTF-8."""
        parts = self.csv_parts(asset, from_time=from_time, to_time=to_time)
        return b"".join([part async for part in parts])

    async def csv_parts(
        self, asset: str, *, from_time: datetime | None = None, to_time: datetime | None = None
    ) -> AsyncGenerator[bytes]:
        """The same file in parts of whole lines, however long it is.

        Raises `ExchangeError`; Unavailable too when it ends without its closing line: then it is not whole.
        """
        request = statement_service_pb2.ExportStatementRequest(
            asset=asset,
            from_time=None if from_time is None else to_timestamp(from_time),
            to_time=None if to_time is None else to_timestamp(to_time),
        )
        request_id = new_id("r")
        headers = with_request_id(await self._caller.identity.metadata(), request_id)
        stream = self._statements.ExportStatement(request, metadata=headers)
        last = b""
        try:
            async for message in stream:
                last = message.data
                yield last
        except grpc.aio.AioRpcError as failure:
            raise decode_error(failure, request_id) from None
        finally:
            stream.cancel()
        if b",closing," not in last.rstrip().rpartition(b"\n")[2]:
            # Over an edge the error of a stream that has begun may look like its end.
            raise Unavailable("the statement ended without its closing line", reason="UPSTREAM_UNAVAILABLE")

    async def fees(self, *, from_time: datetime | None = None, to_time: datetime | None = None) -> ledger.FeeReport:
        """Fees paid in a period, by market and role."""
        request = statement_service_pb2.GetFeeReportRequest(
            from_time=None if from_time is None else to_timestamp(from_time),
            to_time=None if to_time is None else to_timestamp(to_time),
        )
        answer = await self._caller.call(
            self._statements.GetFeeReport, request, repeatable=True, attempt_timeout=REPORT_TIMEOUT_S
        )
        return from_wire(ledger.FeeReport, answer)


class SettlementAdmin:
    """For operators, support and auditors."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._caller = caller
        self._settlement = settlement_service_pb2_grpc.SettlementServiceStub(channel)

    async def _call(self, method: Any, request: Any) -> Any:
        return await self._caller.call(method, request, repeatable=True)

    async def _list(self, method: Any, request: Any, field: str, kind: Any, limit: int) -> list[Any]:
        """The first so many of a list that comes in pages."""
        found: list[Any] = []
        async for page in all_pages(self._call, method, request, page_size=min(limit, MAX_PAGE)):
            found += [from_wire(kind, one) for one in getattr(page, field)]
            if len(found) >= limit:
                break
        return found[:limit]

    # --- The ledger -------------------------------------------------------------------------------------------------

    async def status(self) -> ledger.SettlementStatus:
        """How far settlement is, and whether all agrees."""
        answer = await self._call(self._settlement.GetSettlementStatus, wire.GetSettlementStatusRequest())
        return from_wire(ledger.SettlementStatus, answer)

    async def account(self, account: str) -> ledger.LedgerAccount:
        """Balances of a user's account, `$fees`, `$suspense` or `custody:<where>`."""
        request = wire.GetLedgerAccountRequest(account=account)
        return from_wire(ledger.LedgerAccount, await self._call(self._settlement.GetLedgerAccount, request))

    async def postings(self, account: str, *, asset: str = "", limit: int = 100) -> list[ledger.Posting]:
        """The newest lines of an account."""
        request = wire.ListPostingsRequest(account=account, asset=asset)
        return await self._list(self._settlement.ListPostings, request, "postings", ledger.Posting, limit)

    # --- Reconciliation ---------------------------------------------------------------------------------------------

    async def reconcile(self, *, reason: str = "") -> ledger.Reconciliation:
        """Have engine and ledger compared now. A break is an answer. A large exchange takes its time: up to a minute."""
        request = wire.ReconcileRequest(reason=reason)
        answer = await self._caller.call(
            self._settlement.Reconcile, request, repeatable=True, attempt_timeout=RECONCILE_TIMEOUT_S
        )
        return from_wire(ledger.Reconciliation, answer)

    async def incidents(self, *, open_only: bool = False, limit: int = 100) -> list[ledger.Incident]:
        """Breaks on record, the newest first."""
        request = wire.ListIncidentsRequest(open_only=open_only)
        return await self._list(self._settlement.ListIncidents, request, "incidents", ledger.Incident, limit)

    async def resolve_incident(self, incident_id: str, *, reason: str) -> ledger.Incident:
        """Close one, once a comparison after it was whole."""
        request = wire.ResolveIncidentRequest(incident_id=incident_id, reason=reason)
        return from_wire(ledger.Incident, await self._call(self._settlement.ResolveIncident, request))

    # --- Corrections ------------------------------------------------------------------------------------------------

    async def corrections(self, *, limit: int = 100) -> list[ledger.Correction]:
        """The newest first."""
        request = wire.ListCorrectionsRequest()
        return await self._list(self._settlement.ListCorrections, request, "corrections", ledger.Correction, limit)

    async def propose_correction(
        self, account: str, asset: str, amount: Decimal | int | str, *, reason: str, request_id: str = ""
    ) -> ledger.Correction:
        """Propose to give an amount to an account from `$suspense`, or with a minus to take it; another approves it."""
        request = wire.ProposeCorrectionRequest(
            account=account,
            asset=asset,
            amount=plain_decimal(amount, "amount"),
            request_id=request_id or new_id(),
            reason=reason,
        )
        return from_wire(ledger.Correction, await self._call(self._settlement.ProposeCorrection, request))

    async def approve_correction(self, correction_id: str, *, reason: str = "") -> ledger.Correction:
        """Have it carried out. Refused to who proposed it."""
        request = wire.ApproveCorrectionRequest(correction_id=correction_id, reason=reason)
        return from_wire(ledger.Correction, await self._call(self._settlement.ApproveCorrection, request))

    async def reject_correction(self, correction_id: str, *, reason: str) -> ledger.Correction:
        """Refuse it."""
        request = wire.RejectCorrectionRequest(correction_id=correction_id, reason=reason)
        return from_wire(ledger.Correction, await self._call(self._settlement.RejectCorrection, request))


def _statement_request(
    asset: str, from_time: datetime | None, to_time: datetime | None
) -> statement_service_pb2.GetStatementRequest:
    return statement_service_pb2.GetStatementRequest(
        asset=asset,
        from_time=None if from_time is None else to_timestamp(from_time),
        to_time=None if to_time is None else to_timestamp(to_time),
    )

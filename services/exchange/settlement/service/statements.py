"""StatementService: what happened on the calling account, from the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.api import httpbody_pb2

from exchange.domain.decimals import format_units
from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.request import request_context
from exchange.settlement import statements
from exchange.settlement.service.messages import timestamp_of
from exchange.settlement.service.statement_file import StatementFiles
from exchange.settlement.statements import Period, Place
from pincex.settlement.v1 import statement_service_pb2 as pb
from pincex.settlement.v1 import statement_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.timestamp_pb2 import Timestamp

    from exchange.runtime.database import Database

MAX_FILE_BYTES: Final = 4_000_000
"""Of a file in one message: more than 4 MiB no gRPC client takes without being told to."""

_CSV: Final = "text/csv; charset=utf-8"
_POSITIONS: Final = 5


class StatementService(statement_service_pb2_grpc.StatementServiceServicer):
    """See `proto/pincex/settlement/v1/statement_service.proto`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._files = StatementFiles(database)

    async def GetStatement(self, request: pb.GetStatementRequest, context: Any) -> pb.Statement:
        """One page; all pages of a statement are of one state of the ledger."""
        account = request_context(context).principal.account
        asset, from_ns, to_ns = _wanted(request)
        size = paging.page_size(request.page_size)
        filters = ("statement", account, asset, from_ns, to_ns)
        page = _page(paging.read_token(request.page_token, *filters), from_ns)
        wanted, after = ((from_ns, to_ns), None) if page is None else page
        found = await statements.draw_up(self._database, account, asset, wanted, after, size)
        decimals = found.decimals
        message = pb.Statement(
            account=account,
            asset=asset,
            opening_balance=format_units(found.opening, decimals),
            closing_balance=format_units(found.closing, decimals),
            change=format_units(found.closing - found.opening, decimals),
            sequence=found.period.sequence,
        )
        for line in found.lines:
            message.lines.add(
                line_time=timestamp_of(line.place.time_ns),
                cause=line.cause,
                reference=line.reference,
                amount=format_units(line.amount, decimals),
                balance=format_units(line.balance, decimals),
                sequence=line.sequence,
            )
        if found.next_place is not None:
            period, place = found.period, found.next_place
            numbers = (period.to_ns, period.last_posting, period.sequence, place.time_ns, place.posting_id)
            message.next_page_token = paging.make_token(".".join(map(str, numbers)), *filters)
        return message

    async def GetStatementCsv(self, request: pb.GetStatementRequest, context: Any) -> httpbody_pb2.HttpBody:
        """All of it, between an opening and a closing line."""
        account = request_context(context).principal.account
        data = bytearray()
        async for part in self._files.parts(account, *_wanted(request)):
            data += part
            if len(data) > MAX_FILE_BYTES:
                raise ServiceError(
                    ErrorReason.RESPONSE_TOO_LARGE,
                    "the file is too long for one message: use ExportStatement, GET /api/v1/statements/export",
                    metadata={"limit": f"{MAX_FILE_BYTES} bytes"},
                )
        return httpbody_pb2.HttpBody(content_type=_CSV, data=bytes(data))

    async def ExportStatement(
        self, request: pb.ExportStatementRequest, context: Any
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """The same file in parts, however long it is."""
        account = request_context(context).principal.account
        async for part in self._files.parts(account, *_wanted(request)):
            yield httpbody_pb2.HttpBody(content_type=_CSV, data=part)

    async def GetFeeReport(self, request: pb.GetFeeReportRequest, context: Any) -> pb.FeeReport:
        """By market and role."""
        account = request_context(context).principal.account
        from_ns, to_ns = _times(request)
        report = pb.FeeReport(account=account)
        for one in await statements.fees(self._database, account, from_ns, to_ns):
            report.lines.add(
                symbol=one.symbol,
                role=one.role,
                asset=one.asset,
                fees=one.fees,
                notional=one.notional,
                trade_count=one.trade_count,
            )
        return report


def _wanted(request: pb.GetStatementRequest | pb.ExportStatementRequest) -> tuple[str, int, int | None]:
    """(asset, from, to)."""
    if not request.asset:
        reject(ErrorReason.FIELD_REQUIRED, field="asset")
    return request.asset.upper(), *_times(request)


def _times(
    request: pb.GetStatementRequest | pb.ExportStatementRequest | pb.GetFeeReportRequest,
) -> tuple[int, int | None]:
    """(from, to) in nanoseconds since 1970, None for what is settled now. Raises ServiceError INVALID_FIELD."""
    from_ns = _nanoseconds(request.from_time, "from_time") if request.HasField("from_time") else 0
    to_ns = _nanoseconds(request.to_time, "to_time") if request.HasField("to_time") else None
    if to_ns is not None and to_ns < from_ns:
        raise ServiceError(ErrorReason.INVALID_FIELD, "to_time lies before from_time", metadata={"field": "to_time"})
    return from_ns, to_ns


def _nanoseconds(stamp: Timestamp, field: str) -> int:
    value = stamp.seconds * 1_000_000_000 + stamp.nanos
    if not 0 <= value < 2**62 or not 0 <= stamp.nanos < 1_000_000_000:
        raise ServiceError(
            ErrorReason.INVALID_FIELD, f"{field} must lie between 1970 and 2116", metadata={"field": field}
        )
    return value


def _page(position: str, from_ns: int) -> tuple[Period, Place] | None:
    """What a token carries: the period of the first page, and after which posting to go on."""
    if not position:
        return None
    parts = position.split(".")
    if len(parts) != _POSITIONS or not all(part.isdigit() and len(part) < paging.MAX_POSITION_DIGITS for part in parts):
        raise ServiceError(ErrorReason.INVALID_PAGE_TOKEN, metadata={"field": "page_token"})
    to_ns, last_posting, sequence, time_ns, posting_id = (min(int(part), 2**62) for part in parts)
    return Period(from_ns, to_ns, last_posting, sequence), Place(time_ns, posting_id)

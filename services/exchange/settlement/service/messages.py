"""Records of settlement as the contract shows them, and its requests' values checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.timestamp_pb2 import Timestamp

from exchange.domain.decimals import format_units
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.fields import timestamp
from pincex.settlement.v1 import settlement_service_pb2 as pb

if TYPE_CHECKING:
    from exchange.settlement.accounts import Line
    from exchange.settlement.corrections import Correction
    from exchange.settlement.incidents import Break, Incident
    from exchange.settlement.reconciliation import Report

_MAX_ID_DIGITS: Final = 18


def timestamp_of(time_ns: int) -> Timestamp:
    """The same of nanoseconds since 1970."""
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


def posting_message(account: str, line: Line) -> pb.Posting:
    """One line of the ledger."""
    return pb.Posting(
        posting_id=line.posting_id,
        sequence=line.sequence,
        account=account,
        asset=line.asset,
        kind=line.kind,
        amount=line.amount,
        cause=line.cause,
        reference=line.reference,
        posting_time=timestamp_of(line.time_ns),
        balance_after=line.balance_after,
    )


def break_message(one: Break) -> pb.Break:
    """One thing that does not agree."""
    return pb.Break(
        kind=one.kind,
        account=one.account,
        asset=one.asset,
        engine_amount=one.engine_amount,
        ledger_amount=one.ledger_amount,
    )


def report_message(report: Report) -> pb.Reconciliation:
    """What a comparison found."""
    return pb.Reconciliation(
        sequence=report.sequence,
        whole=not report.breaks,
        compared_accounts=report.accounts,
        compared_balances=report.balances,
        breaks=map(break_message, report.breaks),
        reconcile_time=timestamp(report.at),
        seconds=report.seconds,
    )


def incident_message(incident: Incident) -> pb.Incident:
    """A break on record."""
    message = pb.Incident(
        incident_id=str(incident.incident_id),
        opened_time=timestamp(incident.opened_at),
        sequence=incident.sequence,
        breaks=map(break_message, incident.breaks),
        resolution=incident.resolution or "",
        resolved_by=incident.resolved_by or "",
    )
    if incident.resolved_at is not None:
        message.resolved_time.CopyFrom(timestamp(incident.resolved_at))
    return message


def correction_message(correction: Correction) -> pb.Correction:
    """A correction as it stands."""
    message = pb.Correction(
        correction_id=str(correction.correction_id),
        account=correction.account,
        asset=correction.asset,
        amount=format_units(correction.amount, correction.decimals),
        reason=correction.reason,
        status=pb.CorrectionStatus.Value(correction.status),
        proposed_by=correction.proposed_by,
        decided_by=correction.decided_by or "",
        sequence=correction.sequence or 0,
        problem=correction.problem or "",
        proposed_time=timestamp(correction.proposed_at),
    )
    if correction.decided_at is not None:
        message.decided_time.CopyFrom(timestamp(correction.decided_at))
    return message


def record_id(text: str, field: str) -> int:
    """The number of an incident or correction. One that this exchange cannot have made is one that it does not know."""
    if not text:
        reject(ErrorReason.FIELD_REQUIRED, field=field)
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_ID_DIGITS):
        raise ServiceError(ErrorReason.RECORD_NOT_FOUND, metadata={field: text})
    return int(text)

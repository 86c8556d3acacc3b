"""Records of settlement as the contract shows them, and its requests' values checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.timestamp_pb2 import Timestamp

from exchange.domain.decimals import DecimalError, PrecisionError, format_units, parse_units
from exchange.domain.symbols import is_client_id
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from pincex.settlement.v1 import settlement_service_pb2 as pb

if TYPE_CHECKING:
    from datetime import datetime

    from exchange.settlement.accounts import Line
    from exchange.settlement.corrections import Correction
    from exchange.settlement.incidents import Break, Incident
    from exchange.settlement.reconciliation import Report

MAX_REASON: Final = 256
"""Characters of what a caller gives as a reason."""
MAX_UNITS: Final = 4_000_000_000_000_000_000
"""The most that the engine holds of an asset."""
_MAX_ID_DIGITS: Final = 18


def timestamp(instant: datetime) -> Timestamp:
    """A time as the wire carries it."""
    message = Timestamp()
    message.FromDatetime(instant)
    return message


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


def reason_text(text: str, *, required: bool = False) -> str:
    """What a caller gave as a reason. Raises ServiceError FIELD_REQUIRED, or INVALID_FIELD where it is too long."""
    text = text.strip()
    if required and not text:
        reject(ErrorReason.FIELD_REQUIRED, field="reason")
    if len(text) > MAX_REASON:
        raise ServiceError(
            ErrorReason.INVALID_FIELD, f"reason is longer than {MAX_REASON} characters", metadata={"field": "reason"}
        )
    return text


def request_id(text: str) -> str:
    """A caller's own id. Raises ServiceError FIELD_REQUIRED, INVALID_FIELD."""
    if not text:
        reject(ErrorReason.FIELD_REQUIRED, field="request_id")
    if not is_client_id(text):
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            "request_id must be 1 to 64 printable ASCII characters without spaces",
            metadata={"field": "request_id", "value": text},
        )
    return text


def record_id(text: str, field: str) -> int:
    """The number of an incident or correction. One that this exchange cannot have made is one that it does not know."""
    if not text:
        reject(ErrorReason.FIELD_REQUIRED, field=field)
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_ID_DIGITS):
        raise ServiceError(ErrorReason.RECORD_NOT_FOUND, metadata={field: text})
    return int(text)


def amount_units(text: str, decimals: int, *, signed: bool = False) -> int:
    """Smallest units of an amount that is not zero, negative only where it may have a sign.

    Raises ServiceError FIELD_REQUIRED, INVALID_DECIMAL, INVALID_FIELD for too many digits, NOT_POSITIVE, NUMBER_TOO_LARGE.
    """
    if not text:
        reject(ErrorReason.FIELD_REQUIRED, field="amount")
    negative = text[:1] == "-"
    try:
        units = parse_units(text[1:] if negative else text, decimals)
    except DecimalError:
        reject(ErrorReason.INVALID_DECIMAL, field="amount", value=text)
    except PrecisionError:
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"amount has more than {decimals} digits behind the point",
            metadata={"field": "amount", "value": text},
        ) from None
    if units == 0 or (negative and not signed):
        reject(ErrorReason.NOT_POSITIVE, field="amount", value=text)
    if units > MAX_UNITS:
        reject(ErrorReason.NUMBER_TOO_LARGE, field="amount", value=text)
    return -units if negative else units

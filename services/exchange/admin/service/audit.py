"""AuditService: the trail by pages, and the proof of it."""

from __future__ import annotations

import re
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from exchange.admin.chain import Anchor, Head, known_problem
from exchange.admin.reader import Filters, RecordReader
from exchange.admin.shared_verification import SharedVerification
from exchange.runtime import paging
from exchange.runtime.audit.hashing import StoredRecord
from exchange.runtime.errors import ErrorReason, ServiceError
from pincex.admin.v1 import audit_service_pb2 as pb
from pincex.admin.v1 import audit_service_pb2_grpc

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_MAX_FILTER: Final = 256
# The largest number of a record: beyond it PostgreSQL has no bigint.
_MAX_SEQUENCE: Final = 2**63 - 1


class AuditService(audit_service_pb2_grpc.AuditServiceServicer):
    """For auditors and operators; see the contract."""

    def __init__(self, reader: RecordReader) -> None:
        self._reader = reader
        self.verification = SharedVerification(reader)

    async def ListAuditRecords(self, request: pb.ListAuditRecordsRequest, context: Any) -> pb.ListAuditRecordsResponse:
        """The newest first. Raises ServiceError INVALID_FIELD, INVALID_PAGE_TOKEN or AUDIT_UNAVAILABLE."""
        size = paging.page_size(request.page_size)
        filters = Filters(
            actor=_filter("actor", request.actor),
            action=_filter("action", request.action),
            request_id=_filter("request_id", request.request_id),
            from_micros=_micros("from_time", request.from_time) if request.HasField("from_time") else None,
            to_micros=_micros("to_time", request.to_time) if request.HasField("to_time") else None,
        )
        before = paging.number_position(request.page_token, filters)
        # One more than asked for tells whether there is another page.
        found = await self._reader.matching(filters, min(before, _MAX_SEQUENCE), size + 1)
        response = pb.ListAuditRecordsResponse(records=[_message(record) for record in found[:size]])
        if len(found) > size:
            response.next_page_token = paging.make_token(str(found[size - 1].sequence), filters)
        return response

    async def VerifyAudit(self, request: pb.VerifyAuditRequest, context: Any) -> pb.VerifyAuditResponse:
        """A break is an answer. Raises ServiceError INVALID_FIELD or AUDIT_UNAVAILABLE."""
        known = _known(request)
        verdict = await self.verification.verdict()
        broken, problem, anchor = verdict.broken, verdict.problem, verdict.anchor
        if known is not None and not broken and not _is_anchor(known, anchor):
            problem = await known_problem(self._reader, known, verdict.head.sequence)
            if problem:
                broken = min(known.sequence, verdict.head.sequence + 1)
        response = pb.VerifyAuditResponse(
            intact=not broken,
            record_count=verdict.records,
            head_sequence=verdict.head.sequence,
            head_hash=verdict.head.digest.hex(),
            broken_sequence=broken,
            problem=problem,
        )
        if anchor is not None:
            response.pruned_sequence = anchor.last.sequence
            response.pruned_hash = anchor.last.digest.hex()
            response.pruned_time.FromMicroseconds(anchor.pruned_micros)
        return response


def _is_anchor(known: Head, anchor: Anchor | None) -> bool:
    """Whether the record that is known is the last that was pruned, whose hash is kept. Raises ServiceError INVALID_FIELD
    for an earlier one: nothing is left to compare it with.
    """
    if anchor is None or known.sequence > anchor.last.sequence:
        return False
    if known.sequence < anchor.last.sequence:
        form = f"of a record that is kept: those up to {anchor.last.sequence} were pruned"
        raise _invalid("known_sequence", form, str(known.sequence))
    return known == anchor.last


def _known(request: pb.VerifyAuditRequest) -> Head | None:
    if not request.known_sequence and not request.known_hash:
        return None
    if not 0 < request.known_sequence <= _MAX_SEQUENCE:
        raise _invalid("known_sequence", "the number of the record whose hash is known", str(request.known_sequence))
    if _HASH.fullmatch(request.known_hash) is None:
        raise _invalid("known_hash", "64 hexadecimal digits in lower case", request.known_hash)
    return Head(request.known_sequence, bytes.fromhex(request.known_hash))


def _filter(name: str, value: str) -> str:
    if len(value) > _MAX_FILTER or "\0" in value:
        raise _invalid(name, f"at most {_MAX_FILTER} characters", value)
    return value


def _micros(name: str, stamp: Timestamp) -> int:
    try:
        return stamp.ToMicroseconds()
    except ValueError:
        raise _invalid(name, "a time between the years 1 and 9999", str(stamp.seconds)) from None


def _invalid(name: str, form: str, value: str) -> ServiceError:
    return ServiceError(ErrorReason.INVALID_FIELD, f"{name} must be {form}", metadata={"field": name, "value": value})


def _message(record: StoredRecord) -> pb.AuditRecord:
    message = pb.AuditRecord(
        sequence=record.sequence,
        phase=pb.AuditPhase.Value(record.phase),
        service=record.service,
        instance=record.instance,
        action=record.action,
        actor=record.actor,
        credential=record.credential,
        address=record.address,
        details=record.details,
        reason=record.reason,
        request_id=record.request_id,
        outcome=record.outcome,
        prev_hash=record.prev_hash.hex(),
        hash=record.hash.hex(),
        record_id=record.record_id,
        writer_role=record.writer_role,
    )
    message.record_time.FromMicroseconds(record.record_micros)
    message.store_time.FromMicroseconds(record.store_micros)
    return message

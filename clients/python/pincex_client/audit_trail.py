"""`ExchangeClient.admin.audit`: the audit trail and its proof, on the ops listener."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import grpc.aio

from pincex.admin.v1 import audit_service_pb2 as wire
from pincex.admin.v1 import audit_service_pb2_grpc
from pincex_client.convert import from_wire, to_timestamp
from pincex_client.paging import all_pages
from pincex_client.transport import Caller

VERIFY_DEADLINE_S: Final = 600.0
"""A long trail takes longer than one call may: the call is repeated, and the exchange goes on meanwhile."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One record of the chain. `phase` is BEGUN, ENDED or HAPPENED; `details` JSON; the hashes hexadecimal."""

    sequence: int
    record_time: datetime | None
    phase: str
    service: str
    instance: str
    action: str
    actor: str
    credential: str
    address: str
    details: str
    reason: str
    request_id: str
    outcome: str
    prev_hash: str
    hash: str
    record_id: str
    store_time: datetime | None
    writer_role: str


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """What the proof of the whole chain found; `broken_sequence` is 0 and `problem` empty while it is intact.

    `pruned_sequence` is the last record that was removed by age, 0 where none was: the proof begins with the next.
    """

    intact: bool
    record_count: int
    head_sequence: int
    head_hash: str
    broken_sequence: int
    problem: str
    pruned_sequence: int
    pruned_hash: str
    pruned_time: datetime | None


class AuditTrail:
    """For auditors and operators."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._caller = caller
        self._audit = audit_service_pb2_grpc.AuditServiceStub(channel)

    async def _call(self, method: Any, request: Any) -> Any:
        return await self._caller.call(method, request, repeatable=True)

    async def records(
        self,
        *,
        actor: str = "",
        action: str = "",
        request_id: str = "",
        from_time: datetime | None = None,
        to_time: datetime | None = None,
        limit: int = 100,
    ) -> list[AuditRecord]:
        """The newest records that match, the newest first."""
        request = wire.ListAuditRecordsRequest(
            actor=actor,
            action=action,
            request_id=request_id,
            from_time=None if from_time is None else to_timestamp(from_time),
            to_time=None if to_time is None else to_timestamp(to_time),
        )
        found: list[AuditRecord] = []
        async for page in all_pages(self._call, self._audit.ListAuditRecords, request, page_size=min(limit, 500)):
            found += [from_wire(AuditRecord, one) for one in page.records]
            if len(found) >= limit:
                break
        return found[:limit]

    async def verify(self, *, known_sequence: int = 0, known_hash: str = "") -> AuditVerdict:
        """Have the whole chain computed anew. A break is an answer.

        With a head that was written down elsewhere a trail whose end was cut off, or that was written anew, is found too.
        """
        request = wire.VerifyAuditRequest(known_sequence=known_sequence, known_hash=known_hash)
        answer = await self._caller.call(
            self._audit.VerifyAudit,
            request,
            repeatable=True,
            deadline=max(VERIFY_DEADLINE_S, self._caller.policy.deadline),
        )
        return from_wire(AuditVerdict, answer)

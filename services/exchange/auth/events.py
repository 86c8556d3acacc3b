"""What the auth service tells the audit trail and the security log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from exchange.runtime.audit.contract import OK, AuditEntry, AuditTrail, SecurityEvent, SecurityLog
from exchange.runtime.request import request_context

# What happened without a call that asks for it.
REFRESH_REUSED: Final = "session.refresh-reused"
OPERATOR_MADE: Final = "user.operator-made"


class Events:
    """Fills in what every record has: the request's id, and users by their id alone."""

    def __init__(self, trail: AuditTrail, log: SecurityLog) -> None:
        self._trail = trail
        self._log = log

    async def happened(self, action: str, *, user_id: int, address: str, details: Mapping[str, str]) -> None:
        """Record it for good. Never raises."""
        await self._trail.happened(
            AuditEntry(
                action=action,
                actor=str(user_id),
                credential="",
                address=address,
                details=json.dumps(details, separators=(",", ":")),
                reason="",
                request_id=request_context().request_id,
            )
        )

    def note(self, kind: str, *, user_id: int | None, address: str, outcome: str = OK, details: str = "") -> None:
        """Write a line to the security log. `user_id` None: not known, and what was typed as a name is never shown."""
        call = request_context()
        self._log.note(
            SecurityEvent(
                kind=kind,
                outcome=outcome,
                actor="" if user_id is None else str(user_id),
                address=address,
                action=call.method,
                request_id=call.request_id,
                details=details,
            )
        )

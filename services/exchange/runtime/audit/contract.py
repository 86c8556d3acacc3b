"""What an audit record says, and what every writer of records can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

OK: Final = "OK"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What a record tells, before the chain gives it a number and a hash.

    `action` is a method ("pincex.auth.v1.AuthAdminService/UnlockAccount") or the name of what happened
    ("account.locked"). `details` is JSON without secrets; `reason` is what the caller gave, perhaps nothing.
    """

    action: str
    actor: str
    credential: str
    address: str
    details: str
    reason: str
    request_id: str


class AuditTrail(Protocol):
    """Writes records; one a process. `exchange.runtime.audit` has the implementations."""

    async def begun(self, entry: AuditEntry) -> None:
        """Record that the action is about to be carried out. Raises ServiceError AUDIT_UNAVAILABLE: then it must not be."""
        ...

    async def ended(self, entry: AuditEntry, outcome: str) -> None:
        """Record its outcome: `OK` or the name of an error's reason. Never raises: what cannot be stored is kept and retried."""
        ...

    async def happened(self, entry: AuditEntry, outcome: str = OK) -> None:
        """Record something that nobody called for. Never raises, as `ended`."""
        ...

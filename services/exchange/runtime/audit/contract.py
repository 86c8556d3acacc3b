"""What an audit record says, and what every writer of records can do; the same for lines of the security log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

OK: Final = "OK"

# Kinds of security events. The names of what trails record as happened (`account.locked`) are kinds too.
LOGIN_SUCCEEDED: Final = "login.succeeded"
LOGIN_FAILED: Final = "login.failed"
LOGIN_THROTTLED: Final = "login.throttled"
SECOND_FACTOR_FAILED: Final = "second-factor.failed"
TOKEN_REFUSED: Final = "token.refused"  # noqa: S105 - what happened
API_KEY_USED: Final = "api-key.used"
API_KEY_REFUSED: Final = "api-key.refused"
SIGNATURE_REFUSED: Final = "signature.refused"
CERTIFICATE_REFUSED: Final = "certificate.refused"
PERMISSION_DENIED: Final = "permission.denied"
SERVICE_REFUSED: Final = "service.refused"
ACTION_REFUSED: Final = "action.refused"
ACTION_DONE: Final = "action.done"


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


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """One line of the security log; nothing in it is secret, and what is not known stays empty.

    `kind` is one of the names above; `outcome` is `OK` or the name of an error's reason ("SIGNATURE_REFUSED"). `action` is
    the method or path that was called. `actor` is a user's id or account, never what somebody typed as a name: people type
    passwords there. `credential` is as in audit records ("api-key ak_..."), `details` what else tells, in words.
    """

    kind: str
    outcome: str
    actor: str = ""
    credential: str = ""
    address: str = ""
    action: str = ""
    request_id: str = ""
    details: str = ""


class SecurityLog(Protocol):
    """Writes security.log; one a process. `exchange.runtime.audit.security` has it.

    Trails write there by themselves what `happened`, what `ended` with another outcome than OK, and what was done to users,
    keys and sessions. Everybody else notes what no record tells: refused credentials, failed log-ins, uses of API keys.
    """

    def note(self, event: SecurityEvent) -> None:
        """Write a line. Never raises and never waits; cheap enough for each refused call.

        Of one kind only so many lines a minute are written; the rest is counted, by credential and address, in one line.
        """
        ...

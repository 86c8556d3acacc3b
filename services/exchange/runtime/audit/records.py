"""A record as a writer hands it on: bounded, without secrets, with an id of its own."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any, Final

from exchange.runtime.audit.contract import AuditEntry
from exchange.runtime.logging import redact_text

BEGUN: Final = "BEGUN"
ENDED: Final = "ENDED"
HAPPENED: Final = "HAPPENED"

MAX_DETAILS_BYTES: Final = 16_384
"""Of a record's details; the same limit stands in the table."""

# Bytes that the table takes of each text.
_LIMITS: Final = {
    "action": 256,
    "actor": 256,
    "credential": 512,
    "address": 128,
    "reason": 2_048,
    "request_id": 128,
    "outcome": 128,
}
_REDACTED: Final = "[redacted]"
# Details come without secrets: the contract marks such fields. These names are cut out whatever the contract says.
_SECRET_NAMES: Final = frozenset({"authorization", "cookie", "recovery_codes", "signature", "token"})
_SECRET_ENDINGS: Final = ("password", "secret", "_token", "totp_code", "recovery_code", "private_key")
_MAX_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What is to be stored. `micros` is when it was so, in microseconds since 1970 UTC; `record_id` a UUID's text."""

    record_id: str
    micros: int
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

    def line(self, sequence: int | None = None, digest: bytes = b"") -> bytes:
        """The record as a line of audit.log; sequence and hash where they are known."""
        fields: dict[str, Any] = {
            "time": iso_time(self.micros),
            "phase": self.phase,
            "service": self.service,
            "instance": self.instance,
            "action": self.action,
            "actor": self.actor,
            "credential": self.credential,
            "address": self.address,
            "details": _parsed(self.details),
            "reason": self.reason,
            "request_id": self.request_id,
            "outcome": self.outcome,
            "record_id": self.record_id,
        }
        if sequence is not None:
            fields["sequence"] = sequence
            fields["hash"] = digest.hex()
        return json_line(fields)


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: a service and which of its instances."""

    service: str
    instance: str

    def record(self, phase: str, entry: AuditEntry, outcome: str) -> AuditRecord:
        """Make the record: texts cut to their limits and fit for the database, secrets cut out."""
        return AuditRecord(
            record_id=str(uuid.uuid4()),
            micros=time.time_ns() // 1_000,
            phase=phase,
            service=self.service,
            instance=self.instance,
            action=clean(entry.action, _LIMITS["action"]),
            actor=clean(entry.actor, _LIMITS["actor"]),
            credential=clean(entry.credential, _LIMITS["credential"]),
            address=clean(entry.address, _LIMITS["address"]),
            details=safe_details(entry.details),
            reason=clean(redact_text(entry.reason), _LIMITS["reason"]),
            request_id=clean(entry.request_id, _LIMITS["request_id"]),
            outcome=clean(outcome, _LIMITS["outcome"]),
        )


def clean(text: str, limit: int) -> str:
    """The text in at most `limit` bytes of UTF-8, without what PostgreSQL cannot hold: NUL and lone surrogates."""
    data = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
    if len(data) > limit:
        data = data[: limit - 3] + b"..."
    return data.decode("utf-8", "ignore")


def safe_details(details: str) -> str:
    """The JSON without secrets, in at most MAX_DETAILS_BYTES; larger details become their beginning, as a JSON text."""
    safe = (
        json.dumps(_without_secrets(_parsed(details), 0), ensure_ascii=False, separators=(",", ":")) if details else ""
    )
    if len(safe.encode("utf-8", "replace")) > MAX_DETAILS_BYTES:
        # Half: quoting may double it.
        safe = json.dumps({"cut": clean(safe, MAX_DETAILS_BYTES // 2 - 32)}, ensure_ascii=False)
    return clean(safe, MAX_DETAILS_BYTES)


def json_line(fields: dict[str, Any]) -> bytes:
    """One line of a log, with its end."""
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


def iso_time(micros: int) -> str:
    """RFC 3339 in UTC with microseconds."""
    seconds, rest = divmod(micros, 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:06d}Z"


def _parsed(details: str) -> Any:
    try:
        return json.loads(details) if details else {}
    except (ValueError, RecursionError):
        # Not what the contract says, but no reason to lose it.
        return redact_text(details)


def _without_secrets(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return "[too deep]"
    if isinstance(value, dict):
        return {
            key: _REDACTED if _is_secret(key) and item else _without_secrets(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(item, depth + 1) for item in value]
    return redact_text(value) if isinstance(value, str) else value


def _is_secret(name: str) -> bool:
    lower = name.lower()
    return lower in _SECRET_NAMES or lower.endswith(_SECRET_ENDINGS)

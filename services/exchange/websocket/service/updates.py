"""Messages of the exchange's streams as `Update`, and as JSON: the same JSON that REST shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import json_format

from exchange.runtime.errors import ErrorReason
from exchange.websocket.updates import Kind, Update

if TYPE_CHECKING:
    from google.protobuf.message import Message

_KINDS: Final = {
    "snapshot": Kind.SNAPSHOT,
    "heartbeat": Kind.HEARTBEAT,
    "drain": Kind.DRAIN,
    "end": Kind.END,
}


def as_json(message: Message) -> dict[str, Any]:
    """A message as the edge prints it: all fields, by their names, 64-bit numbers as texts."""
    found: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def update_of(message: Any) -> Update:
    """A message of any stream of a book, of trades, of market data, or of an account."""
    content = message.WhichOneof(message.DESCRIPTOR.oneofs[0].name)
    kind = _KINDS.get(content, Kind.CHANGE)
    # Streams of newest values say it by a field of its own.
    if kind is Kind.CHANGE and getattr(message, "snapshot", False) is True:
        kind = Kind.SNAPSHOT
    return Update(
        kind=kind,
        sequence=message.sequence,
        prev_sequence=message.prev_sequence,
        resume_token=getattr(message, "resume_token", ""),
        body=as_json(message),
        reason=_reason(message.end.reason) if kind is Kind.END else 0,
        # Large accounts get their open orders in several messages.
        partial=content == "snapshot" and getattr(message.snapshot, "complete", True) is False,
    )


def _reason(name: str) -> int:
    known = name in ErrorReason.keys()  # noqa: SIM118 - an enum's wrapper is no mapping
    return ErrorReason.Value(name) if known else ErrorReason.UPSTREAM_UNAVAILABLE

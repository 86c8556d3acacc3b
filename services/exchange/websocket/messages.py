"""The messages of the protocol that are not the contracts' own, as `docs/WEBSOCKET.md` describes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from exchange.websocket.payload import Payload

if TYPE_CHECKING:
    from exchange.runtime.errors import ServiceError
    from exchange.websocket.channels import Key
    from exchange.websocket.limits import Limits

UPDATE: Final = "update"


def update(key: Key, body: dict[str, Any]) -> Payload:
    """A message of a channel: the same for all who follow it."""
    return Payload({"type": UPDATE, **key.header, "data": body})


def welcome(instance: str, account: str, expires: float, limits: Limits) -> Payload:
    """The first message of a connection; `account` is empty for who has not logged in, `expires` as in `logged_in`."""
    return Payload(
        {
            "type": "welcome",
            "instance": instance,
            "account": account,
            **({"expire_time": _time(expires)} if account and expires else {}),
            "limits": {
                "subscriptions": limits.subscriptions,
                "messages_per_second": int(limits.messages_per_second),
                "message_bytes": limits.message_bytes,
                "ping_interval_ms": int(limits.ping_interval_s * 1000),
                "idle_ms": int(limits.idle_s * 1000),
            },
        }
    )


def subscribed(request_id: str, key: Key) -> Payload:
    """A subscription began; what it shows follows."""
    return _answer("subscribed", request_id, key.header)


def unsubscribed(request_id: str, key: Key) -> Payload:
    """A subscription is over, or there was none."""
    return _answer("unsubscribed", request_id, key.header)


def logged_in(request_id: str, account: str, expires: float) -> Payload:
    """Who the connection belongs to from now on; `expires` in seconds since 1970, 0 for never."""
    fields: dict[str, Any] = {"account": account}
    if expires:
        fields["expire_time"] = _time(expires)
    return _answer("logged_in", request_id, fields)


def result(request_id: str, op: str, body: dict[str, Any]) -> Payload:
    """What an order request came to."""
    return _answer("result", request_id, {"op": op, "data": body})


def pong(request_id: str, now: float) -> Payload:
    """The answer to a ping of the protocol's own, for clients that cannot send those of WebSocket."""
    return _answer("pong", request_id, {"server_time": _time(now)})


def error(failure: ServiceError, request_id: str = "", op: str = "") -> Payload:
    """A request was refused."""
    fields = _failure(failure)
    if op:
        fields["op"] = op
    return _answer("error", request_id, fields)


def ended(key: Key, failure: ServiceError, resume_token: str) -> Payload:
    """The server ended a subscription."""
    fields = {**key.header, **_failure(failure)}
    if resume_token:
        fields["resume_token"] = resume_token
    return Payload({"type": "ended", **fields})


def notice(failure: ServiceError, key: Key | None = None) -> Payload:
    """Something the client should know of, and no answer: of a subscription, or of the connection."""
    return Payload({"type": "notice", **(key.header if key is not None else {}), **_failure(failure)})


def drain(deadline: float) -> Payload:
    """The server is about to stop; `deadline` in seconds since 1970."""
    return Payload({"type": "drain", "deadline_time": _time(deadline)})


def _answer(kind: str, request_id: str, fields: dict[str, Any]) -> Payload:
    return Payload({"type": kind, **({"id": request_id} if request_id else {}), **fields})


def _failure(failure: ServiceError) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "reason": failure.reason_name,
        "code": failure.code.name,
        "message": failure.message,
        "metadata": failure.metadata,
    }
    if failure.retry_after_seconds is not None:
        fields["retry_after_ms"] = int(failure.retry_after_seconds * 1000)
    return fields


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

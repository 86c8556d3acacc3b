"""What clients send: one JSON object a message, with `op`, an `id` of the client's choice, and the fields of the operation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from exchange.domain.symbols import is_client_id
from exchange.runtime.errors import ErrorReason, ServiceError

LOGIN, SUBSCRIBE, UNSUBSCRIBE, PING = "login", "subscribe", "unsubscribe", "ping"
PLACE, CANCEL, REPLACE, REDUCE, CANCEL_ALL = "place", "cancel", "replace", "reduce", "cancel_all"
ORDER_OPS: Final = frozenset({PLACE, CANCEL, REPLACE, REDUCE, CANCEL_ALL})
OPS: Final = (LOGIN, SUBSCRIBE, UNSUBSCRIBE, PING, PLACE, CANCEL, REPLACE, REDUCE, CANCEL_ALL)
# Of order operations everything else stands in `request`.
_FIELDS: Final = {
    LOGIN: frozenset({"token", "account"}),
    PING: frozenset[str](),
    **dict.fromkeys(ORDER_OPS, frozenset({"request"})),
}


@dataclass(frozen=True, slots=True)
class Request:
    """`id` is empty where the client gave none; `fields` is everything but `op` and `id`."""

    op: str
    id: str
    fields: dict[str, Any]


class Unreadable(Exception):
    """What was sent is no request. `error` is for the client, with as much as could be read of what it belongs to."""

    def __init__(self, error: ServiceError, request_id: str = "", op: str = "") -> None:
        super().__init__(error.message)
        self.error = error
        self.request_id = request_id
        self.op = op


def read(text: str | bytes) -> Request:
    """Read one message. Raises Unreadable."""
    if isinstance(text, bytes):
        raise Unreadable(ServiceError(ErrorReason.MALFORMED_REQUEST, "send text messages: JSON is no binary message"))
    try:
        found = msgspec.json.decode(text)
        _refuse_repeated_names(text)
    except msgspec.DecodeError as error:
        raise Unreadable(ServiceError(ErrorReason.MALFORMED_REQUEST, f"this is no JSON: {error}")) from None
    except RecursionError:
        raise Unreadable(ServiceError(ErrorReason.MALFORMED_REQUEST, "the JSON is nested too deep")) from None
    if not isinstance(found, dict):
        raise Unreadable(ServiceError(ErrorReason.MALFORMED_REQUEST, "a message must be a JSON object"))
    request_id = found.pop("id", None)
    if request_id is not None and not (isinstance(request_id, str) and is_client_id(request_id)):
        message = "id must be a text of 1 to 64 printable ASCII characters without spaces"
        raise Unreadable(ServiceError(ErrorReason.INVALID_FIELD, message, metadata={"field": "id"}))
    request_id = request_id or ""
    op = found.pop("op", "")
    if not op:
        raise Unreadable(ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": "op"}), request_id)
    if not isinstance(op, str) or op not in OPS:
        message = f"op must be one of {', '.join(OPS)}"
        unknown = ServiceError(ErrorReason.INVALID_FIELD, message, metadata={"field": "op", "value": op})
        raise Unreadable(unknown, request_id)
    allowed = _FIELDS.get(op)
    if allowed is not None:
        for field in found:
            if field not in allowed:
                extra = ServiceError(ErrorReason.FIELD_NOT_ALLOWED, metadata={"field": field})
                raise Unreadable(extra, request_id, op)
    return Request(op, request_id, found)


def _refuse_repeated_names(text: str) -> None:
    """Who reads such an order takes one of the two values, and the client may have meant the other. Raises Unreadable."""

    def once(pairs: list[tuple[str, Any]]) -> None:
        if len(pairs) > 1 and len(dict(pairs)) < len(pairs):
            raise Unreadable(ServiceError(ErrorReason.MALFORMED_REQUEST, "a field is given twice"))

    json.loads(text, object_pairs_hook=once, parse_int=_nothing, parse_float=_nothing)


def _nothing(_number: str) -> None:
    """A number's value does not matter to its name."""


def body_of(request: Request) -> dict[str, Any]:
    """The `request` of an order operation. Raises ServiceError."""
    body = request.fields.get("request")
    if body is None:
        raise ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": "request"})
    if not isinstance(body, dict):
        message = "request must be a JSON object"
        raise ServiceError(ErrorReason.INVALID_FIELD, message, metadata={"field": "request", "value": body})
    return body


def resume_token_of(request: Request) -> str:
    """Of a subscription; empty without one. Raises ServiceError INVALID_RESUME_TOKEN."""
    token = request.fields.get("resume_token", "")
    if not isinstance(token, str):
        raise ServiceError(ErrorReason.INVALID_RESUME_TOKEN, metadata={"field": "resume_token"})
    return token

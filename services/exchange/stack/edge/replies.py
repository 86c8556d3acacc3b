"""Envoy's own refusals in the exchange's error model.

REST clients get `google.rpc.Status` as JSON with an `ErrorInfo`; native gRPC and gRPC-Web clients keep plain text, which
Envoy puts into `grpc-message`. The reasons are those of `pincex.common.v1.ErrorReason`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from google.protobuf import json_format

from exchange.runtime.errors import STATUS_DETAILS_KEY, ErrorReason, ServiceError
from exchange.stack.edge.identity import UNJUDGED
from exchange.stack.edge.plan import TYPE, Json

DOMAIN = "pincex"
ERROR_INFO = f"{TYPE}google.rpc.ErrorInfo"

RETRY_INFO = f"{TYPE}google.rpc.RetryInfo"
# The pages that routes answer by themselves: content type, and what `accept` must name for it; the last fits all.
PAGES = (("text/html; charset=utf-8", "text/html"), ("application/json", ""))

_LOCAL_TEXT = "%LOCAL_REPLY_BODY%"
_PLAIN: Json = {"text_format_source": {"inline_string": _LOCAL_TEXT}}


@dataclass(frozen=True, slots=True)
class Reply:
    """For one HTTP status: the gRPC code, the reason, and a message where Envoy's own says too little."""

    http: int
    grpc: int
    reason: str
    message: str = _LOCAL_TEXT
    # After how long to try again; 0: do not say so.
    retry_s: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Who may not pass: `when` is Envoy's filters that must all fit, `http` another status than the one that it would send."""

    when: tuple[Json, ...]
    error: ServiceError
    retry_s: int | None = None
    http: int | None = None


REPLIES = (
    Reply(400, 3, "MALFORMED_REQUEST"),
    Reply(403, 7, "PERMISSION_DENIED", "This path is for callers on this machine only."),
    Reply(404, 5, "UNKNOWN_PATH", "No such path with this HTTP method: see /api/v1/openapi.json."),
    Reply(405, 12, "UNKNOWN_PATH", "No such path with this HTTP method: see /api/v1/openapi.json."),
    Reply(408, 4, "MALFORMED_REQUEST", "The request did not arrive in time."),
    Reply(413, 8, "BODY_TOO_LARGE", "The request body is larger than 1 MiB."),
    Reply(415, 3, "MALFORMED_REQUEST"),
    Reply(431, 3, "MALFORMED_REQUEST", "The request headers are too large."),
    Reply(500, 13, "INTERNAL"),
    Reply(502, 14, "UPSTREAM_UNAVAILABLE", "The exchange's answer could not be read; try again."),
    Reply(503, 14, "UPSTREAM_UNAVAILABLE", "No server of the exchange answers now; try again.", retry_s=1),
    Reply(504, 4, "UPSTREAM_TIMEOUT", "No answer in time; the outcome is unknown: ask again with the same id."),
)


def local_reply_config() -> Json:
    """The first mapper that fits decides: what is no refusal and native gRPC before all, then one for each status."""
    fallback = _status_json(Reply(0, 2, "INTERNAL"))
    return {
        "body_format": fallback,
        "mappers": [
            *(_own_page(kind, accept) for kind, accept in PAGES),
            _gates_own(),
            *(mapper for refusal in REFUSALS for mapper in _refusal_mappers(refusal)),
            {"filter": _native_grpc(), "body_format_override": _PLAIN},
            *(_mapper(reply) for reply in REPLIES),
        ],
    }


def _own_page(content_type: str, accept: str) -> Json:
    # A direct response of ours counts as a local reply too, and goes out as it is.
    filters: list[Json] = [_status("LE", 299)]
    if accept:
        filters.append(_header({"name": "accept", "string_match": {"contains": accept}}))
    # One filter cannot stand in an and_filter alone.
    combined = {"and_filter": {"filters": filters}} if accept else filters[0]
    return {"filter": combined, "body_format_override": {**_PLAIN, "content_type": content_type}}


def _gates_own() -> Json:
    """What the auth service's gate refused goes out as it said it: a `google.rpc.Status` in JSON."""
    refused = {"and_filter": {"filters": [_GATE, _status("LE", 499)]}}
    return {"filter": refused, "body_format_override": {**_PLAIN, "content_type": "application/json"}}


def _refusal_mappers(refusal: Refusal) -> tuple[Json, Json]:
    """For native gRPC, whose details go into a trailer, and for REST."""
    status = refusal.error.to_status()
    details = base64.b64encode(status.SerializeToString()).decode().rstrip("=")
    headers = [] if refusal.retry_s is None else [("retry-after", str(refusal.retry_s))]
    grpc: Json = {
        "filter": {"and_filter": {"filters": [_native_grpc(), *refusal.when]}},
        "body_format_override": {"text_format_source": {"inline_string": status.message}},
        "headers_to_add": _headers([*headers, (STATUS_DETAILS_KEY, details)]),
    }
    rest: Json = {
        "filter": {"and_filter": {"filters": list(refusal.when)}} if len(refusal.when) > 1 else refusal.when[0],
        "body_format_override": {
            "json_format": json_format.MessageToDict(status),
            "content_type": "application/json",
        },
        "headers_to_add": _headers(headers),
    }
    if refusal.http is not None:
        grpc["status_code"] = rest["status_code"] = refusal.http
    return grpc, rest


def _headers(headers: list[tuple[str, str]]) -> list[Json]:
    action = "OVERWRITE_IF_EXISTS_OR_ADD"
    return [{"header": {"key": key, "value": value}, "append_action": action} for key, value in headers]


def _native_grpc() -> Json:
    # A transcoded request looks like gRPC by then, except for the header that keeps its REST path.
    grpc = _header({"name": "content-type", "string_match": {"prefix": "application/grpc"}})
    not_transcoded = _header({"name": "x-envoy-original-path", "present_match": True, "invert_match": True})
    return {"and_filter": {"filters": [grpc, not_transcoded]}}


def _details(text: str) -> Json:
    """Whether Envoy's own word for what happened contains this."""
    expression = f"response.code_details.contains('{text}')"
    kind = f"{TYPE}envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {"@type": kind, "expression": expression},
        },
    }


def _header(matcher: Json) -> Json:
    return {"header_filter": {"header": matcher}}


def _status(operator: str, status: int) -> Json:
    value = {"default_value": status, "runtime_key": f"edge.status_{status}"}
    return {"status_code_filter": {"comparison": {"op": operator, "value": value}}}


def _mapper(reply: Reply) -> Json:
    mapper: Json = {"filter": _status("EQ", reply.http), "body_format_override": _status_json(reply)}
    if reply.retry_s:
        mapper["headers_to_add"] = _headers([("retry-after", str(reply.retry_s))])
    return mapper


def _status_json(reply: Reply) -> Json:
    details: list[Json] = [{"@type": ERROR_INFO, "reason": reply.reason, "domain": DOMAIN, "metadata": {}}]
    if reply.retry_s:
        details.append({"@type": RETRY_INFO, "retryDelay": f"{reply.retry_s}s"})
    return {
        "json_format": {"code": reply.grpc, "message": reply.message, "details": details},
        "content_type": "application/json",
    }


# The gate, and what failed on the way to it.
_GATE: Json = {"response_flag_filter": {"flags": ["UAEX"]}}

# Refused as an RPC, not by its path.
_RPC: Json = {
    "or_filter": {
        "filters": [
            _header({"name": "content-type", "string_match": {"prefix": "application/grpc"}}),
            _header({"name": "x-envoy-original-path", "present_match": True}),
        ],
    },
}

REFUSALS = (
    Refusal((_GATE, _status("EQ", 503)), ServiceError(ErrorReason.AUTH_UNAVAILABLE), retry_s=1),
    Refusal((_status("EQ", 403), _details(UNJUDGED)), ServiceError(ErrorReason.AUTH_UNAVAILABLE), retry_s=1, http=503),
    # No keys to verify with: the caller may well be known.
    Refusal((_status("EQ", 401), _details("fetch")), ServiceError(ErrorReason.AUTH_UNAVAILABLE), retry_s=1, http=503),
    Refusal((_status("EQ", 401), _details("expired")), ServiceError(ErrorReason.TOKEN_EXPIRED)),
    Refusal((_status("EQ", 401), _details("missing")), ServiceError(ErrorReason.UNAUTHENTICATED)),
    Refusal((_status("EQ", 401),), ServiceError(ErrorReason.TOKEN_REFUSED)),
    Refusal((_status("EQ", 403), _details("Audience")), ServiceError(ErrorReason.TOKEN_REFUSED), http=401),
    Refusal((_status("EQ", 403), _RPC), ServiceError(ErrorReason.PERMISSION_DENIED, "this needs a role of staff")),
    Refusal(
        (_status("EQ", 429),),
        ServiceError(ErrorReason.QUOTA_EXCEEDED, metadata={"limit": "requests per second"}, retry_after_seconds=1),
        retry_s=1,
    ),
)

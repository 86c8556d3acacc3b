"""Envoy's own refusals in the exchange's error model.

REST clients get `google.rpc.Status` as JSON with an `ErrorInfo`; native gRPC and gRPC-Web clients keep plain text, which
Envoy puts into `grpc-message`. The reasons are those of `pincex.common.v1.ErrorReason`.
"""

from __future__ import annotations

from dataclasses import dataclass

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


REPLIES = (
    Reply(400, 3, "MALFORMED_REQUEST"),
    Reply(403, 7, "PERMISSION_DENIED", "This path is for callers on this machine only."),
    Reply(404, 5, "UNKNOWN_PATH", "No such path with this HTTP method: see /api/v1/openapi.json."),
    Reply(405, 12, "UNKNOWN_PATH", "No such path with this HTTP method: see /api/v1/openapi.json."),
    Reply(408, 4, "MALFORMED_REQUEST", "The request did not arrive in time."),
    Reply(413, 8, "BODY_TOO_LARGE", "The request body is larger than 1 MiB."),
    Reply(415, 3, "MALFORMED_REQUEST"),
    Reply(429, 8, "OVERLOADED", retry_s=1),
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
            _native_grpc(),
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


def _native_grpc() -> Json:
    # A transcoded request looks like gRPC by then, except for the header that keeps its REST path.
    grpc = _header({"name": "content-type", "string_match": {"prefix": "application/grpc"}})
    not_transcoded = _header({"name": "x-envoy-original-path", "present_match": True, "invert_match": True})
    return {"filter": {"and_filter": {"filters": [grpc, not_transcoded]}}, "body_format_override": _PLAIN}


def _header(matcher: Json) -> Json:
    return {"header_filter": {"header": matcher}}


def _status(operator: str, status: int) -> Json:
    value = {"default_value": status, "runtime_key": f"edge.status_{status}"}
    return {"status_code_filter": {"comparison": {"op": operator, "value": value}}}


def _mapper(reply: Reply) -> Json:
    mapper: Json = {"filter": _status("EQ", reply.http), "body_format_override": _status_json(reply)}
    if reply.retry_s:
        header = {"key": "retry-after", "value": str(reply.retry_s)}
        mapper["headers_to_add"] = [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    return mapper


def _status_json(reply: Reply) -> Json:
    details: list[Json] = [{"@type": ERROR_INFO, "reason": reply.reason, "domain": DOMAIN, "metadata": {}}]
    if reply.retry_s:
        details.append({"@type": RETRY_INFO, "retryDelay": f"{reply.retry_s}s"})
    return {
        "json_format": {"code": reply.grpc, "message": reply.message, "details": details},
        "content_type": "application/json",
    }

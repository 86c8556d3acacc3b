"""The HTTP filters of a listener, in the order in which a request meets them."""

from __future__ import annotations

from exchange.stack.edge.identity import gate_filter, judged_filter, roles_filter, token_filter
from exchange.stack.edge.plan import TYPE, EdgePlan, Json
from exchange.stack.edge.rates import rate_filter, signed_rate_filter
from exchange.stack.edge.routes import BUFFER_FILTER, RBAC_FILTER
from exchange.stack.edge.transcoder import TRANSCODER_FILTER, transcoder

_HTTP = f"{TYPE}envoy.extensions.filters.http."
# Browsers on this machine; a front end served by the edge itself needs no CORS.
LOCAL_ORIGINS = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?"
ALLOWED_HEADERS = (
    "authorization,content-type,grpc-timeout,x-api-key,x-grpc-web,x-pincex-account,x-pincex-content-sha256,"
    "x-pincex-nonce,x-pincex-signature,x-pincex-timestamp,x-request-id,x-user-agent"
)
EXPOSED_HEADERS = (
    "grpc-message,grpc-status,grpc-status-details-bin,retry-after,x-ratelimit-limit,x-ratelimit-remaining,"
    "x-ratelimit-reset,x-request-id"
)


def http_filters(plan: EdgePlan, *, public: bool, certificates: bool = False) -> list[Json]:
    """CORS first, so that a refusal can be read by a page too; the gate before the transcoder, for a signature is of what was
    sent; the transcoder before whatever must see RPC paths. Who calls is known before anybody is counted.

    `certificates`: callers showed one, and the gate is asked about every request.
    """
    identity = plan.identity
    found: list[Json] = [
        {"name": "envoy.filters.http.cors", "typed_config": {"@type": f"{_HTTP}cors.v3.Cors"}},
        {"name": RBAC_FILTER, "disabled": True, "typed_config": {"@type": f"{_HTTP}rbac.v3.RBAC"}},
        # Off but for the REST catch-all: it holds back the whole body, and a gRPC stream has no end.
        {
            "name": BUFFER_FILTER,
            "disabled": True,
            "typed_config": {
                "@type": f"{_HTTP}buffer.v3.Buffer",
                "max_request_bytes": plan.limits.rest_body_bytes,
            },
        },
        {"name": "envoy.filters.http.grpc_web", "typed_config": {"@type": f"{_HTTP}grpc_web.v3.GrpcWeb"}},
    ]
    if identity is not None:
        found.append(signed_rate_filter(plan.rates))
        found.append(gate_filter(plan, identity, always=certificates))
    found.append(judged_filter())
    found.append({"name": TRANSCODER_FILTER, "typed_config": transcoder(plan, _services(plan, public=public))})
    if identity is not None:
        found.append(token_filter(identity))
    if plan.checks_roles(public=public):
        found.append(roles_filter())
    return [*found, rate_filter(plan.rates), router_filter()]


def router_filter() -> Json:
    """The last of every listener, and the only one where services ask one another."""
    router = {"@type": f"{_HTTP}router.v3.Router", "suppress_envoy_headers": True}
    return {"name": "envoy.filters.http.router", "typed_config": router}


def _services(plan: EdgePlan, *, public: bool) -> list[str]:
    return list(dict.fromkeys(method.service for method in plan.served(public=public)))


def cors_policy() -> Json:
    """For the whole virtual host: pages served from this machine, credentials allowed."""
    return {
        "@type": f"{_HTTP}cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"safe_regex": {"regex": LOCAL_ORIGINS}}],
        "allow_methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
        "allow_headers": ALLOWED_HEADERS,
        "expose_headers": EXPOSED_HEADERS,
        "max_age": "600",
        "allow_credentials": True,
    }

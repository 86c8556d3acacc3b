"""Who calls: signed requests are judged by the auth service's gate, access tokens by Envoy, with the auth service's keys.

Every service verifies tokens again and decides what each caller may do. What is refused here costs the services nothing,
and nothing gets further because this is down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.runtime.edge_proof import EDGE_PROOF_KEY, PROTOCOL_GRPC, PROTOCOL_KEY, PROTOCOL_REST
from exchange.stack.edge.plan import TYPE, Json, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exchange.runtime.access import MethodPolicy
    from exchange.stack.edge.plan import EdgePlan, Identity

JWT_FILTER = "envoy.filters.http.jwt_authn"
ROLES_FILTER = "pincex.filters.http.roles"
API_KEY_HEADER = "x-api-key"
KEYS_PATH = "/jwks.json"
UNJUDGED = "unjudged"
# Where the filter leaves the claims of a token that it has verified.
CLAIMS = "claims"
ISSUER = AUDIENCE = "pincex"
# Roles of people who work for the exchange; they count only in tokens that have the scope admin.
STAFF = ("admin", "auditor", "operator", "support")
ADMIN = "admin"

KEYS_TIMEOUT_S = 1
GATE_TIMEOUT_S = 2
# Tokens that were verified and need not be again, on each listener.
KEPT_TOKENS = 2_000

# Of a signed request the gate sees all that was signed, and where it comes from. Not its content type: Envoy would take the
# question for a gRPC call as well, and answer itself, where there is no gate, with 200 and a gRPC status. 200 opens.
_TO_GATE = (
    "user-agent",
    "x-api-key",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-pincex-content-sha256",
    "x-pincex-nonce",
    "x-pincex-signature",
    "x-pincex-timestamp",
    "x-request-id",
)
# What the gate may set in a request that it lets through, and in the answer to one that it refuses.
_FROM_GATE = ("authorization",)
_TO_CLIENT = ("content-type", "grpc-message", "grpc-status", "grpc-status-details-bin", "retry-after")

_HTTP = f"{TYPE}envoy.extensions.filters.http."
_TOKEN, _TOKEN_IF_ANY, _NO_TOKEN = "token", "token-if-any", "no-token"


def gate_filter(plan: EdgePlan, identity: Identity, *, always: bool = False) -> Json:
    """Asks the gate about requests with an API key, or with `always` about every one: in front of the transcoder, for what was
    signed is what was sent. REST comes with its body; of gRPC the gate gets a header with its hash, and the service compares.
    """
    key = _header_like(API_KEY_HEADER, ".*")
    # As the transcoder tells it: what is no gRPC to it comes with its body.
    grpc = _header_like("content-type", r"application/grpc(\+.*)?")
    ask_grpc, ask_rest = _ask(identity), _ask(identity, body_bytes=plan.limits.rest_body_bytes)
    matchers: list[Json] = [
        {"predicate": grpc if always else {"and_matcher": {"predicate": [key, grpc]}}, "on_match": ask_grpc},
    ]
    if not always:
        matchers.append({"predicate": key, "on_match": ask_rest})
    tree: Json = {"matcher_list": {"matchers": matchers}}
    if always:
        tree["on_no_match"] = ask_rest
    return {
        "name": "pincex.filters.http.gate",
        "typed_config": {
            "@type": f"{TYPE}envoy.extensions.common.matching.v3.ExtensionWithMatcher",
            "extension_config": {"name": "composite", "typed_config": {"@type": f"{_HTTP}composite.v3.Composite"}},
            "xds_matcher": tree,
        },
    }


def judged_filter() -> Json:
    """Behind the gate's filter: the gate removes the API key of what it lets through, so one that is still there was never
    judged, for whatever reason.
    """
    key: Json = {"header": {"name": API_KEY_HEADER, "present_match": True}}
    policy: Json = {"permissions": [key], "principals": [{"any": True}]}
    rules: Json = {"action": "DENY", "policies": {UNJUDGED: policy}}
    return {
        "name": "pincex.filters.http.judged",
        "typed_config": {"@type": f"{_HTTP}rbac.v3.RBAC", "rules": rules},
    }


def _ask(identity: Identity, *, body_bytes: int = 0) -> Json:
    protocol = PROTOCOL_REST if body_bytes else PROTOCOL_GRPC
    asked: Json = {
        "@type": f"{_HTTP}ext_authz.v3.ExtAuthz",
        "http_service": {
            "server_uri": {
                "uri": f"http://{identity.gate}",
                "cluster": identity.gate,
                "timeout": seconds(GATE_TIMEOUT_S),
            },
            "authorization_request": {
                "headers_to_add": [
                    {"key": EDGE_PROOF_KEY, "value": identity.proof},
                    {"key": PROTOCOL_KEY, "value": protocol},
                ],
            },
            "authorization_response": {
                "allowed_upstream_headers": _any_of(_FROM_GATE),
                "allowed_client_headers": _any_of(_TO_CLIENT),
            },
        },
        "allowed_headers": _any_of(_TO_GATE),
        # A gate that does not answer is no reason to open.
        "failure_mode_allow": False,
        "status_on_error": {"code": "ServiceUnavailable"},
        "stat_prefix": protocol,
    }
    if body_bytes:
        asked["with_request_body"] = {"max_request_bytes": body_bytes, "allow_partial_message": False}
    return {
        "action": {
            "name": "ask",
            "typed_config": {
                "@type": f"{_HTTP}composite.v3.ExecuteFilterAction",
                "typed_config": {"name": "envoy.filters.http.ext_authz", "typed_config": asked},
            },
        },
    }


def _any_of(headers: Iterable[str]) -> Json:
    return {"patterns": [{"exact": header} for header in headers]}


def _header_like(header: str, regex: str) -> Json:
    """A request has this header, and all of it is like this."""
    kind = f"{TYPE}envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
    like: Json = {"safe_regex": {"google_re2": {}, "regex": regex}}
    source: Json = {"name": header, "typed_config": {"@type": kind, "header_name": header}}
    return {"single_predicate": {"input": source, "value_match": like}}


def token_filter(identity: Identity) -> Json:
    """Verifies bearer tokens, and leaves their claims for the filters behind it. `token_route` says which method needs one."""
    provider: Json = {"provider_name": "pincex"}
    return {
        "name": JWT_FILTER,
        "typed_config": {
            "@type": f"{_HTTP}jwt_authn.v3.JwtAuthentication",
            "providers": {"pincex": _provider(identity)},
            "requirement_map": {
                _TOKEN: provider,
                _TOKEN_IF_ANY: _one_of(provider, {"allow_missing": {}}),
                _NO_TOKEN: _one_of(provider, {"allow_missing_or_failed": {}}),
            },
        },
    }


def _one_of(*requirements: Json) -> Json:
    return {"requires_any": {"requirements": list(requirements)}}


def _provider(identity: Identity) -> Json:
    uri = f"http://{identity.keys}{KEYS_PATH}"
    return {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "require_expiration": True,
        "remote_jwks": {
            "http_uri": {"uri": uri, "cluster": identity.keys, "timeout": seconds(KEYS_TIMEOUT_S)},
            "cache_duration": seconds(identity.keys_age_s),
            # Keys that were fetched so are kept until others come, however long the auth service is away. (Those that are
            # fetched for a token, before the first of these, are forgotten after the duration above.)
            "async_fetch": {"failed_refetch_duration": "1s"},
        },
        # From nowhere else: a token in a query would stand in logs.
        "from_headers": [{"name": "Authorization", "value_prefix": "Bearer "}],
        # The service looks for itself.
        "forward": True,
        "payload_in_metadata": CLAIMS,
        # Verified once; of a token that is found here the time is still looked at.
        "jwt_cache_config": {"jwt_cache_size": KEPT_TOKENS},
        "clock_skew_seconds": 1,
    }


def token_route(policy: MethodPolicy, *, anonymous: bool) -> Json:
    """What a route says to the token filter. A public method takes everybody, those with a stale token too."""
    name = _NO_TOKEN if not policy.needs_principal else _TOKEN_IF_ANY if anonymous else _TOKEN
    return {"@type": f"{_HTTP}jwt_authn.v3.PerRouteConfig", "requirement_name": name}


def roles_filter() -> Json:
    """Refuses everybody; `roles_route` says whom a route lets through. For a listener whose every method is decided so."""
    return {"name": ROLES_FILTER, "typed_config": {"@type": f"{_HTTP}rbac.v3.RBAC", "rules": {"action": "ALLOW"}}}


def roles_route(policy: MethodPolicy) -> Json:
    """Whom the route of a method of the ops listener lets through: by the roles of the method, or any of staff. A method that
    needs no principal takes everybody.
    """
    if not policy.needs_principal:
        return _allow({"any": True})
    roles = sorted({*policy.roles, ADMIN}) if policy.roles else STAFF
    holds: list[Json] = [{"or_ids": {"ids": [_claim("rol", role) for role in roles]}}, _claim("scp", ADMIN)]
    return _allow({"and_ids": {"ids": holds}})


def _allow(principal: Json) -> Json:
    policy: Json = {"permissions": [{"any": True}], "principals": [principal]}
    rules: Json = {"action": "ALLOW", "policies": {"roles": policy}}
    return {"@type": f"{_HTTP}rbac.v3.RBACPerRoute", "rbac": {"rules": rules}}


def _claim(claim: str, value: str) -> Json:
    """A claim that is a list and holds this value."""
    path: list[Json] = [{"key": CLAIMS}, {"key": claim}]
    one_of: Json = {"list_match": {"one_of": {"string_match": {"exact": value}}}}
    matcher: Json = {"filter": JWT_FILTER, "path": path, "value": one_of}
    return {"sourced_metadata": {"metadata_matcher": matcher, "metadata_source": "DYNAMIC"}}

"""Which request goes where: one allow-list of RPCs a listener, taken from the contracts."""

from __future__ import annotations

import json
from typing import Any

from exchange.runtime.access import MethodPolicy
from exchange.stack.edge.clusters import NOWHERE
from exchange.stack.edge.contract import HEALTH_SERVICE, INFRASTRUCTURE_SERVICES, Method
from exchange.stack.edge.identity import JWT_FILTER, ROLES_FILTER, STAFF, roles_route, token_route
from exchange.stack.edge.landing import landing_html, landing_json
from exchange.stack.edge.plan import TYPE, WEBSOCKET_PATH, EdgePlan, Json, Limits, seconds
from exchange.stack.edge.rates import RATE_FILTER, credentials_route
from exchange.stack.edge.transcoder import TRANSCODER_FILTER, TRANSCODER_OFF, transcoder

BUFFER_FILTER = "envoy.filters.http.buffer"
RBAC_FILTER = "envoy.filters.http.rbac"

# Never reached a server: safe to repeat for every method.
RETRY_ALWAYS = "connect-failure,refused-stream"
# May have reached one: only where the contract declares `idempotency_level`.
RETRY_REPEATABLE = f"{RETRY_ALWAYS},reset-before-request,reset,unavailable,cancelled"

METRICS_PATH = "/metrics"

_PREVIOUS_PRIORITIES = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
_OTHER_UPSTREAM: Json = {
    "retry_priority": {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": {"@type": TYPE + _PREVIOUS_PRIORITIES, "update_frequency": 1},
    },
}

_EVERYBODY = MethodPolicy(public=True)
_STAFF = MethodPolicy(roles=frozenset(STAFF))


def routes(plan: EdgePlan, *, public: bool) -> list[Json]:
    """All routes of one listener; the first that matches wins.

    A REST request matches twice: by its path before it is transcoded, and by `/package.Service/Method` after. So the
    fixed paths and the catch-all are for the first time, the list of methods is for the second and for native gRPC.
    """
    found = [*_landing(plan), *_loopback_metrics(plan), *_websocket(plan)] if public else []
    for method in plan.served(public=public):
        cluster = plan.cluster_of(method, public=public)
        if cluster is not None:
            route = _method_route(plan, method, cluster, public=public)
            if public and cluster in {one.cluster for one in plan.preferred}:
                _try_others(route)
            found.append(route)
    if not public:
        found.extend(_infrastructure_route(plan, service) for service in INFRASTRUCTURE_SERVICES)
    # An RPC that is not listed: UNIMPLEMENTED for gRPC and gRPC-Web, from the edge itself.
    unlisted = {"header": "content-type", "string_match": {"prefix": "application/grpc"}}
    found.append(
        {
            "match": {
                "prefix": "/",
                "headers": [{"name": unlisted["header"], "string_match": unlisted["string_match"]}],
            },
            "direct_response": {"status": 404, "body": {"inline_string": "no such method"}},
        },
    )
    found.append(_rest_catch_all(plan.limits))
    return found


def _try_others(route: Json) -> None:
    """Where a cluster is several upstreams, the next try goes to another of them: the first may be dead as a whole."""
    action: Any = route["route"]
    action["retry_policy"] |= _OTHER_UPSTREAM


def internal_routes(plan: EdgePlan) -> list[Json]:
    """What services ask one another: the RPCs of the ops ports, in gRPC only. Who asks is for the service to verify."""
    found: list[Json] = []
    for method in plan.served(public=False):
        upstream = plan.upstream_of(method.package, public=False)
        if upstream is not None:
            action = _method_action(method, upstream, plan.limits)
            found.append({"match": {"path": method.grpc_path, "grpc": {}}, "route": action})
    unknown: Json = {"status": 404, "body": {"inline_string": "no such method"}}
    return [*found, {"match": {"prefix": "/"}, "direct_response": unknown}]


def _landing(plan: EdgePlan) -> list[Json]:
    bindings = {(path, verb) for method in plan.served(public=True) for verb, path in method.http}
    paths = [f"{verb} {path}" for path, verb in sorted(bindings)]
    read: Json = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
    wants_html: Json = {"name": "accept", "string_match": {"contains": "text/html"}}
    as_json = json.dumps(landing_json(paths), indent=2) + "\n"
    return [
        _page(landing_html(paths), "text/html; charset=utf-8", [read, wants_html]),
        _page(as_json, "application/json", [read]),
    ]


def _infrastructure_route(plan: EdgePlan, service: str) -> Json:
    policy = _EVERYBODY if service == HEALTH_SERVICE else _STAFF
    return {
        "match": {"prefix": f"/{service}/"},
        "route": {
            "cluster": plan.infrastructure_upstream,
            "timeout": "0s",
            "idle_timeout": seconds(plan.limits.stream_idle_timeout_s),
        },
        "typed_per_filter_config": _callers(plan, policy, public=False),
    }


def _callers(plan: EdgePlan, policy: MethodPolicy, *, public: bool) -> Json:
    """What a route says to the filters that decide who may pass."""
    found: Json = {}
    if plan.identity is not None:
        found[JWT_FILTER] = token_route(policy, anonymous=plan.anonymous)
    if plan.checks_roles(public=public):
        found[ROLES_FILTER] = roles_route(policy)
    return found


def _method_route(plan: EdgePlan, method: Method, upstream: str, *, public: bool) -> Json:
    action = _method_action(method, upstream, plan.limits)
    filters = _callers(plan, method.access, public=public)
    if method.takes_credentials:
        filters[RATE_FILTER] = credentials_route(plan.rates)
    return {"match": {"path": method.grpc_path}, "route": action, "typed_per_filter_config": filters}


def _method_action(method: Method, upstream: str, limits: Limits) -> Json:
    action: Json = {"cluster": upstream, "retry_policy": _retry_policy(method, limits)}
    if method.streaming:
        action["timeout"] = "0s"
        action["idle_timeout"] = seconds(limits.stream_idle_timeout_s)
    else:
        action["timeout"] = seconds(method.deadline_s or limits.unary_timeout_s)
    return action


def _retry_policy(method: Method, limits: Limits) -> Json:
    # A stream has begun to answer before it fails, and is then resumed by its client: only its connection is retried.
    repeatable = method.repeatable and not method.streaming
    policy: Json = {
        "retry_on": RETRY_REPEATABLE if repeatable else RETRY_ALWAYS,
        "num_retries": limits.repeatable_retries if repeatable else limits.retries,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": f"{TYPE}envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                },
            },
        ],
        "host_selection_retry_max_attempts": 3,
    }
    if repeatable:
        # What is known to take long is not begun again because it does.
        policy["per_try_timeout"] = seconds(method.deadline_s or limits.repeat_try_timeout_s)
    return policy


def _rest_catch_all(limits: Limits) -> Json:
    """Every REST request before it is transcoded, with the limit on its body.

    It must be a real route: the CORS filter skips direct responses. Nothing gets through it, for the transcoder sends
    on what it knows and refuses the rest, and the cluster is empty.
    """
    return {
        "match": {"prefix": "/"},
        "route": {
            "cluster": NOWHERE,
            "timeout": seconds(limits.unary_timeout_s),
            "idle_timeout": seconds(limits.request_idle_timeout_s),
        },
        "typed_per_filter_config": {
            BUFFER_FILTER: {
                "@type": f"{TYPE}envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
                "buffer": {"max_request_bytes": limits.rest_body_bytes},
            },
        },
    }


def _websocket(plan: EdgePlan) -> list[Json]:
    """Where a handshake becomes a connection. A token in it is verified, as that of any call; most clients send theirs later.

    Pings of the server keep it from being idle. What is no handshake is for the server to refuse.
    """
    if plan.websocket is None:
        return []
    filters: Json = {TRANSCODER_FILTER: TRANSCODER_OFF}
    if plan.identity is not None:
        filters[JWT_FILTER] = token_route(_STAFF, anonymous=True)
    return [
        {
            "match": {"path": WEBSOCKET_PATH},
            "route": {
                "cluster": plan.websocket,
                "timeout": "0s",
                "idle_timeout": seconds(plan.limits.stream_idle_timeout_s),
                "upgrade_configs": [{"upgrade_type": "websocket", "enabled": True}],
                "retry_policy": {"retry_on": RETRY_ALWAYS, "num_retries": plan.limits.retries},
            },
            "typed_per_filter_config": filters,
        },
    ]


def _loopback_metrics(plan: EdgePlan) -> list[Json]:
    """`/metrics` on the public edge, though its RPC is for operators: for peers on this machine, by their own address.

    The second route is for the request once it is transcoded. Only this edge can have set the header that it asks for:
    a client's own is removed.
    """
    method = plan.contract.method_at(METRICS_PATH)
    upstream = plan.upstream_of(method.package, public=False) if method else None
    if method is None or upstream is None:
        return []
    loopback = [
        {"direct_remote_ip": {"address_prefix": "127.0.0.0", "prefix_len": 8}},
        {"direct_remote_ip": {"address_prefix": "::1", "prefix_len": 128}},
    ]
    policy = {"permissions": [{"any": True}], "principals": [{"or_ids": {"ids": loopback}}]}
    asked: Json = {
        "match": {"path": METRICS_PATH},
        "route": {"cluster": NOWHERE},
        "typed_per_filter_config": {
            TRANSCODER_FILTER: transcoder(plan, [method.service]),
            RBAC_FILTER: {
                "@type": f"{TYPE}envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
                "rbac": {"rules": {"action": "ALLOW", "policies": {"loopback": policy}}},
            },
        },
    }
    transcoded = _method_route(plan, method, upstream, public=True)
    original = {"name": "x-envoy-original-path", "string_match": {"exact": METRICS_PATH}}
    transcoded["match"] = {"path": method.grpc_path, "headers": [original]}
    return [asked, transcoded]


def _page(text: str, content_type: str, headers: list[Json]) -> Json:
    header = {"key": "content-type", "value": content_type}
    return {
        "match": {"path": "/", "headers": headers},
        "direct_response": {"status": 200, "body": {"inline_string": text}},
        "response_headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        "typed_per_filter_config": {TRANSCODER_FILTER: TRANSCODER_OFF},
    }

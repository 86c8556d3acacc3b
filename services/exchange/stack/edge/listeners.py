"""The listeners: the public edge, plain and over TLS, the ops listener, and the one between services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.stack.edge import tls
from exchange.stack.edge.filters import cors_policy, http_filters, router_filter
from exchange.stack.edge.plan import TYPE, EdgePlan, Json, TlsListener, seconds, socket_address
from exchange.stack.edge.replies import local_reply_config
from exchange.stack.edge.routes import internal_routes, routes
from exchange.stack.edge.stats import rest_loggers

if TYPE_CHECKING:
    from pathlib import Path

# Headers by which the inside of the exchange knows something. From outside they are removed before anything reads them:
# who calls is decided by the port, and Envoy's own headers would change its time-outs and retries.
SERVICE_HEADER = "x-pincex-service"
INSIDE_HEADERS = (
    SERVICE_HEADER,
    "x-pincex-edge",
    "x-forwarded-client-cert",
    "x-envoy-external-address",
    "x-envoy-original-path",
    "x-envoy-original-method",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-upstream-alt-stat-name",
)

# Whatever begins so would be a claim about who calls.
INSIDE_PREFIXES = ("x-pincex-principal", "x-pincex-role")

_MANAGER = "envoy.filters.network.http_connection_manager"
_MUTATION = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"


def listeners(plan: EdgePlan) -> list[Json]:
    """All listeners of the plan, the public one first, then the one for operators and the one for services."""
    plain = [
        _listener("public", socket_address(plan.edge_port), _outer_manager(plan, "public", public=True)),
        _listener("ops", socket_address(plan.ops_port), _outer_manager(plan, "ops", public=False)),
    ]
    if plan.internal_port is not None:
        plain.append(_internal_listener(plan, plan.internal_port))
    return [*plain, *(_tls_listener(plan, described) for described in plan.tls_listeners)]


def _tls_listener(plan: EdgePlan, described: TlsListener) -> Json:
    manager = _outer_manager(plan, described.name, public=True, certificates=described.client_certificates)
    if described.client_certificates:
        # Whatever a client sends by this name is gone by then: see INSIDE_HEADERS.
        manager["forward_client_cert_details"] = "SANITIZE_SET"
        manager["set_current_client_cert_details"] = {"uri": True}
    transport: Json = {
        "transport_socket": tls.downstream(described, plan.secrets_dir),
        "transport_socket_connect_timeout": seconds(tls.HANDSHAKE_TIMEOUT_S),
    }
    found = _listener(described.name, socket_address(described.port, described.host), manager, transport)
    return {**found, "access_log": [tls.refusals_log(described, plan.access_log)]}


def _internal_listener(plan: EdgePlan, port: int) -> Json:
    """Where services ask one another. By what they say they are nobody gets in here who could not at a service itself: it
    verifies that. So there is no filter, and nothing is counted: the exchange must not refuse itself.
    """
    manager = _connection_manager(
        plan, "internal", {"routes": internal_routes(plan)}, [router_filter()], _early_mutations(kept=SERVICE_HEADER)
    )
    return _listener("internal", socket_address(port), manager)


def _listener(name: str, address: Json, manager: Json, transport: Json | None = None) -> Json:
    return {
        "name": name,
        "address": address,
        "per_connection_buffer_limit_bytes": 1 << 20,
        # A second Envoy on the same port must fail, not share its connections.
        "enable_reuse_port": False,
        "filter_chains": [{"filters": [{"name": _MANAGER, "typed_config": manager}], **(transport or {})}],
    }


def _outer_manager(plan: EdgePlan, name: str, *, public: bool, certificates: bool = False) -> Json:
    """Of a listener for clients or operators."""
    host: Json = {
        "routes": routes(plan, public=public),
        "typed_per_filter_config": {"envoy.filters.http.cors": cors_policy()},
    }
    filters = http_filters(plan, public=public, certificates=certificates)
    return _connection_manager(plan, name, host, filters, _early_mutations())


def _connection_manager(plan: EdgePlan, name: str, host: Json, filters: list[Json], mutations: Json) -> Json:
    limits = plan.limits
    return {
        "@type": f"{TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "use_remote_address": True,
        # For a client on this machine Envoy would name the machine's outer address; `_early_mutations` names the real one.
        "skip_xff_append": True,
        "normalize_path": True,
        "merge_slashes": True,
        # BTC%2FUSD is one path segment.
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "max_request_headers_kb": limits.headers_kib,
        "request_headers_timeout": seconds(limits.request_headers_timeout_s),
        "stream_idle_timeout": seconds(limits.stream_idle_timeout_s),
        "drain_timeout": seconds(limits.drain_s),
        "common_http_protocol_options": {
            "idle_timeout": seconds(limits.connection_idle_timeout_s),
            "headers_with_underscores_action": "DROP_HEADER",
            "max_headers_count": limits.headers_count,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": limits.streams_per_connection,
            "initial_stream_window_size": 1 << 18,
            "initial_connection_window_size": 1 << 20,
        },
        "early_header_mutation_extensions": [mutations],
        "access_log": [*rest_loggers(name), _access_log(name, plan.access_log)],
        "local_reply_config": local_reply_config(),
        "route_config": {
            "name": name,
            "max_direct_response_body_size_bytes": 4 << 20,
            "virtual_hosts": [{"name": name, "domains": ["*"], **host}],
        },
        "http_filters": filters,
    }


def _early_mutations(*, kept: str = "") -> Json:
    """Before anything reads the headers: no claims from outside but the header `kept`, and the peer's own address after
    forwarded ones.
    """
    peer: Json = {
        "append": {
            "header": {"key": "x-forwarded-for", "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"},
            "append_action": "APPEND_IF_EXISTS_OR_ADD",
        },
    }
    removed = ({"remove": header} for header in INSIDE_HEADERS if header != kept)
    claims = ({"remove_on_match": {"key_matcher": {"prefix": prefix}}} for prefix in INSIDE_PREFIXES)
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": TYPE + _MUTATION,
            "mutations": [*claims, *removed, peer],
        },
    }


def _access_log(name: str, path: Path) -> Json:
    """Failures only: a line for each order would cost more than the order. The series count everything."""
    failed = {"comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "edge.access_log_status"}}}
    return {
        "name": "envoy.access_loggers.file",
        "filter": {"or_filter": {"filters": [{"status_code_filter": failed}, {"response_flag_filter": {}}]}},
        "typed_config": {
            "@type": f"{TYPE}envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {
                "json_format": {
                    "time": "%START_TIME%",
                    "listener": name,
                    "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
                    "path": "%PATH(NQ:ORIG_OR_PATH)%",
                    "rpc": "%PATH(NQ:PATH)%",
                    "status": "%RESPONSE_CODE%",
                    "grpc_status": "%GRPC_STATUS(SNAKE_STRING)%",
                    "flags": "%RESPONSE_FLAGS%",
                    "details": "%RESPONSE_CODE_DETAILS%",
                    "duration_ms": "%DURATION%",
                    "received_bytes": "%BYTES_RECEIVED%",
                    "sent_bytes": "%BYTES_SENT%",
                    "upstream": "%UPSTREAM_HOST%",
                    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                    "request_id": "%REQ(X-REQUEST-ID)%",
                },
            },
        },
    }

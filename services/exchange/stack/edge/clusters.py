"""Upstream clusters and the endpoint files that name their instances."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from exchange.stack.edge import tls
from exchange.stack.edge.plan import TYPE, EdgePlan, Json, Limits, Preferred, seconds, socket_address

if TYPE_CHECKING:
    from collections.abc import Sequence

# Has no endpoints: where a request goes that no route may carry further.
NOWHERE = "nowhere"

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_ASSIGNMENT = f"{TYPE}envoy.config.endpoint.v3.ClusterLoadAssignment"


def clusters(plan: EdgePlan) -> list[Json]:
    """Every cluster of the plan, and the empty one."""
    nowhere: Json = {"name": NOWHERE, "type": "STATIC", "load_assignment": {"cluster_name": NOWHERE}}
    found = [_grpc_cluster(upstream, plan) for upstream in plan.upstreams]
    if plan.identity is not None:
        found += [_http_cluster(upstream, plan) for upstream in (plan.identity.gate, plan.identity.keys)]
    if plan.websocket is not None:
        found.append(_websocket_cluster(plan.websocket, plan))
    return [*found, *(_aggregate(one) for one in plan.preferred), nowhere]


def _aggregate(preferred: Preferred) -> Json:
    """Several upstreams as one: the first that has healthy instances, each with its own checks, limits and TLS."""
    return {
        "name": preferred.cluster,
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": f"{TYPE}envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": list(preferred.upstreams),
            },
        },
    }


def endpoint_file(plan_dir: Path, upstream: str) -> Path:
    """Where the endpoints of an upstream are written."""
    return plan_dir / f"{upstream}.json"


def write_endpoints(
    plan_dir: Path, upstream: str, ports: Sequence[int], health_ports: Sequence[int] | None = None
) -> None:
    """Names the loopback ports of an upstream's instances; Envoy takes the file over without dropping a connection.

    `health_ports` are where they say whether they are well, if that is at other ports.

    The file is replaced by a rename: that is the only change which Envoy's watch of the folder acts on, and a reader
    never sees half of it.
    """
    endpoints: list[Json] = [{"endpoint": {"address": socket_address(port)}} for port in ports]
    if health_ports is not None:
        endpoints = [
            {"endpoint": {"address": socket_address(port), "health_check_config": {"port_value": health_port}}}
            for port, health_port in zip(ports, health_ports, strict=True)
        ]
    assignment = {"@type": _ASSIGNMENT, "cluster_name": upstream, "endpoints": [{"lb_endpoints": endpoints}]}
    version = hashlib.sha256(json.dumps(assignment).encode()).hexdigest()[:16]
    text = json.dumps({"version_info": version, "resources": [assignment]}, indent=1)
    plan_dir.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=plan_dir.parent, prefix=f".{upstream}-")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(temporary).replace(endpoint_file(plan_dir, upstream))


def _grpc_cluster(upstream: str, plan: EdgePlan) -> Json:
    return {
        **_cluster(upstream, plan),
        "health_checks": [{**_health_check(), "grpc_health_check": {"service_name": ""}}],
        "typed_extension_protocol_options": {_HTTP_OPTIONS: _http2_options()},
    }


def _http_cluster(upstream: str, plan: EdgePlan) -> Json:
    return {
        **_cluster(upstream, plan),
        "health_checks": [{**_health_check(), "http_health_check": {"path": "/readyz"}}],
    }


def _websocket_cluster(upstream: str, plan: EdgePlan) -> Json:
    """Each client has a connection of its own there."""
    limits = plan.limits
    bounds = {**_thresholds(limits), "max_connections": limits.connections, "max_requests": limits.connections}
    return {**_http_cluster(upstream, plan), "circuit_breakers": {"thresholds": [bounds]}}


def _cluster(upstream: str, plan: EdgePlan) -> Json:
    cluster: Json = {
        "name": upstream,
        "type": "EDS",
        "eds_cluster_config": {
            "eds_config": {
                "resource_api_version": "V3",
                "path_config_source": {
                    "path": str(endpoint_file(plan.endpoints_dir, upstream)),
                    "watched_directory": {"path": str(plan.endpoints_dir)},
                },
            },
        },
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [_thresholds(plan.limits)]},
        "outlier_detection": _outliers(),
        "common_lb_config": {
            # Without healthy instances answer UNAVAILABLE at once, instead of trying the unhealthy ones.
            "healthy_panic_threshold": {"value": 0},
            # Act on a change of health at once; by default Envoy gathers such changes for a second.
            "update_merge_window": "0s",
        },
    }
    if upstream in plan.tls_services:
        # Health checks go over it too.
        cluster["transport_socket"] = tls.upstream(plan.tls_services[upstream], plan.secrets_dir)
    return cluster


def _thresholds(limits: Limits) -> Json:
    return {
        "max_connections": limits.upstream_connections,
        "max_pending_requests": limits.upstream_pending,
        "max_requests": limits.upstream_requests,
        "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 10},
        "track_remaining": True,
    }


def _outliers() -> Json:
    """Leaves out an instance whose connections fail. What an instance answers does not count: while nobody leads, or too much
    waits, all answer UNAVAILABLE or RESOURCE_EXHAUSTED alike, and each that is left out is missed.
    """
    answers = ("consecutive_5xx", "consecutive_gateway_failure", "success_rate", "local_origin_success_rate")
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 5,
        **{f"enforcing_{kind}": 0 for kind in answers},
        "interval": "1s",
        # Or until a health check succeeds.
        "base_ejection_time": "5s",
        # So a single engine never is.
        "max_ejection_percent": 50,
    }


def _health_check() -> Json:
    # The time-out is longer than any pause of a loaded engine. A stopped one is known before pings end its connections: who is
    # cut off there must not be sent there again. A refused connection is known at once.
    return {
        "timeout": seconds(1),
        "interval": seconds(0.25),
        "unhealthy_interval": seconds(0.2),
        "no_traffic_interval": seconds(0.1),
        "no_traffic_healthy_interval": seconds(0.25),
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
    }


def _http2_options() -> Json:
    # A stopped process keeps its connections and says nothing on them: pings without an answer end them, and who waits there
    # asks another instance. gRPC answers pings however busy Python is; its servers allow two a second.
    return {
        "@type": TYPE + _HTTP_OPTIONS,
        "explicit_http_config": {
            "http2_protocol_options": {"connection_keepalive": {"interval": seconds(1), "timeout": seconds(1.5)}},
        },
    }

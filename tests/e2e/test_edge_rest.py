"""The public edge as REST clients and browsers meet it, over the whole running exchange."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.edge_http import Answer, call
from tests.stack_fixture import eventually

if TYPE_CHECKING:
    from tests.stack_fixture import ExchangeStack

ORDERS = "/api/v1/orders"
ORIGIN = "http://localhost:5173"


def test_health_answers_with_json_and_a_request_id(exchange_stack: ExchangeStack) -> None:
    answer = call(f"{exchange_stack.edge_url}/api/v1/health")

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-request-id"])
    assert isinstance(answer.json(), dict)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nowhere"),
        ("GET", "/api/v1/nowhere"),
        ("GET", "/api/v2/orders"),
        ("PUT", ORDERS),
        ("DELETE", ORDERS),
        ("POST", "/"),
        ("GET", "/admin/nowhere"),
        ("GET", "/api/v1/../../nowhere"),
        # An RPC's own path is no REST path.
        ("POST", "/pincex.trading.v1.OrderService/GetOrder"),
    ],
)
def test_an_unknown_path_or_method_is_404_in_json(exchange_stack: ExchangeStack, method: str, path: str) -> None:
    answer = call(f"{exchange_stack.edge_url}{path}", method, "{}" if method == "POST" else None)

    assert (answer.status, answer.json()["code"], answer.reason()) == (404, 5, "UNKNOWN_PATH")


@pytest.mark.parametrize(
    "body",
    [
        '{"symbol":',
        "not json",
        "[1, 2]",
        '{"symbol": 1}',
        '{"symbol": {"nested": true}}',
        '{"post_only": "perhaps"}',
        '{"side": "SIDEWAYS"}',
        '{"expire_time": "yesterday"}',
        b"\xff\xfe\x00",
    ],
)
def test_a_body_that_does_not_fit_the_contract_is_400_with_the_place(
    exchange_stack: ExchangeStack,
    body: str | bytes,
) -> None:
    answer = call(f"{exchange_stack.edge_url}{ORDERS}", "POST", body, {"content-type": "application/json"})

    assert (answer.status, answer.json()["code"], answer.reason()) == (400, 3, "MALFORMED_REQUEST")


@pytest.mark.parametrize("query", ["nonsense=1", "page_size=many", "page_size=99999999999999999999"])
def test_an_unknown_or_wrong_query_parameter_is_400(exchange_stack: ExchangeStack, query: str) -> None:
    answer = call(f"{exchange_stack.edge_url}{ORDERS}?{query}")

    assert (answer.status, answer.json()["code"], answer.reason()) == (400, 3, "MALFORMED_REQUEST")


@pytest.mark.parametrize("size", [(1 << 20) + 1, 8_000_000])
def test_a_body_above_one_mebibyte_is_413(exchange_stack: ExchangeStack, size: int) -> None:
    answer = call(f"{exchange_stack.edge_url}{ORDERS}", "POST", b'{"symbol":"' + b"x" * size)

    assert (answer.status, answer.json()["code"], answer.reason()) == (413, 8, "BODY_TOO_LARGE")


def test_headers_beyond_their_limit_are_431(exchange_stack: ExchangeStack) -> None:
    answer = call(f"{exchange_stack.edge_url}/api/v1/health", headers={"x-large": "x" * 40_000})

    assert (answer.status, answer.reason()) == (431, "MALFORMED_REQUEST")


def test_bad_input_leaves_the_exchange_answering(exchange_stack: ExchangeStack) -> None:
    for body in ('{"symbol":', b"\x00" * 2_000_000, "null"):
        call(f"{exchange_stack.edge_url}{ORDERS}", "POST", body)

    assert call(f"{exchange_stack.edge_url}/api/v1/health").status == 200


def preflight(exchange_stack: ExchangeStack, origin: str) -> Answer:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-grpc-web",
    }
    return call(f"{exchange_stack.edge_url}{ORDERS}", "OPTIONS", headers=headers)


def test_a_page_of_this_machine_may_call_and_read_even_a_refusal(exchange_stack: ExchangeStack) -> None:
    allowed = preflight(exchange_stack, ORIGIN)
    assert allowed.status == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert "x-grpc-web" in allowed.headers["access-control-allow-headers"]

    refused = call(f"{exchange_stack.edge_url}/api/v1/nowhere", headers={"origin": ORIGIN})
    assert refused.status == 404
    assert refused.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost.evil.example", "http://localhost:1x"])
def test_a_page_of_another_machine_may_not(exchange_stack: ExchangeStack, origin: str) -> None:
    assert "access-control-allow-origin" not in preflight(exchange_stack, origin).headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/queue/depth"),
        ("GET", "/admin/metrics"),
        ("GET", "/admin/orderbook/BTCUSD"),
        ("POST", "/admin/circuit-breaker/enable"),
        ("POST", "/admin/accounts/demo/credits"),
        ("GET", "/admin/events"),
        ("GET", "//admin/queue/depth"),
        ("GET", "/api/../admin/queue/depth"),
    ],
)
def test_operators_paths_are_not_on_the_public_edge(exchange_stack: ExchangeStack, method: str, path: str) -> None:
    answer = call(f"{exchange_stack.edge_url}{path}", method, "{}" if method == "POST" else None)

    assert (answer.status, answer.reason()) == (404, "UNKNOWN_PATH")


def test_operators_paths_are_on_the_ops_listener_as_plain_text_where_the_runbooks_read_it(
    exchange_stack: ExchangeStack,
) -> None:
    depth = call(f"{exchange_stack.ops_url}/admin/queue/depth")

    assert depth.status == 200
    assert depth.headers["content-type"].startswith("text/plain")
    assert call(f"{exchange_stack.ops_url}/api/v1/health").status == 200


@pytest.mark.parametrize("path", ["edge_url/metrics", "ops_url/metrics", "ops_url/admin/metrics"])
def test_metrics_have_the_engines_series_and_those_of_the_edge(exchange_stack: ExchangeStack, path: str) -> None:
    listener, _, rest = path.partition("/")
    url = f"{getattr(exchange_stack, listener)}/{rest}"
    call(f"{exchange_stack.edge_url}/api/v1/health")

    def shows(series: str) -> bool:
        answer = call(url)
        return answer.status == 200 and series in answer.text

    for series in (
        "order_queue",
        'http_requests_total{status="200",method="GET",listener="public"}',
        'http_request_duration_seconds_bucket{status="200",method="GET",listener="public",le="0.001"}',
    ):
        eventually(lambda series=series: shows(series), f"{series} is in {path}")  # type: ignore[misc]


def test_who_comes_through_a_proxy_from_elsewhere_may_not_read_metrics(exchange_stack: ExchangeStack) -> None:
    for url in (exchange_stack.edge_url, exchange_stack.ops_url):
        answer = call(f"{url}/metrics", headers={"x-forwarded-for": "203.0.113.7"})
        assert (answer.status, answer.reason()) == (401, "UNAUTHENTICATED")


def test_the_landing_page_names_every_public_path_and_no_other(exchange_stack: ExchangeStack) -> None:
    found = call(f"{exchange_stack.edge_url}/")
    page = call(f"{exchange_stack.edge_url}/", headers={"accept": "text/html,application/xhtml+xml"})

    assert (found.status, found.headers["content-type"]) == (200, "application/json")
    assert "POST /api/v1/orders" in found.json()["paths"]
    assert not [path for path in found.json()["paths"] if "/admin" in path]
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "POST /api/v1/orders" in page.text


def envoy_count(exchange_stack: ExchangeStack, status: int, method: str) -> int:
    text = call(f"{exchange_stack.envoy_admin_url}/stats/prometheus?usedonly&filter=^pincex_edge[.]").text
    from exchange.runtime.edge_metrics import edge_metrics

    line = rf'http_requests_total\{{status="{status}",method="{method}",listener="public"\}} (\d+)'
    found = re.search(line, edge_metrics(text))
    return int(found[1]) if found else 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/v1/health", None, 200),
        ("GET", "/nowhere", None, 404),
        ("POST", ORDERS, "{", 400),
        ("POST", ORDERS, "x" * 2_000_000, 413),
    ],
)
def test_rest_requests_are_counted_as_the_client_saw_them(
    exchange_stack: ExchangeStack,
    method: str,
    path: str,
    body: str | None,
    status: int,
) -> None:
    before = envoy_count(exchange_stack, status, method)

    assert call(f"{exchange_stack.edge_url}{path}", method, body).status == status

    eventually(lambda: envoy_count(exchange_stack, status, method) == before + 1, "it is counted once")


def test_a_method_of_the_clients_invention_makes_no_series(exchange_stack: ExchangeStack) -> None:
    call(f"{exchange_stack.edge_url}/api/v1/health", "BREW")

    eventually(lambda: envoy_count(exchange_stack, 400, "OTHER") > 0, "it is counted as OTHER")
    assert envoy_count(exchange_stack, 400, "BREW") == 0


def test_the_length_of_requests_is_a_histogram_in_seconds(exchange_stack: ExchangeStack) -> None:
    from exchange.runtime.edge_metrics import edge_metrics

    call(f"{exchange_stack.edge_url}/api/v1/health")

    def series() -> str:
        url = f"{exchange_stack.envoy_admin_url}/stats/prometheus?usedonly&filter=^pincex_edge[.]"
        return edge_metrics(call(url).text)

    eventually(lambda: "http_request_duration_seconds_count" in series(), "the histogram is there")
    text = series()
    assert 'http_request_duration_seconds_bucket{status="200",method="GET",listener="public",le="0.001"}' in text
    for le, count in re.findall(r'_bucket\{status="200",method="GET",listener="public",le="([^"]+)"\} (\d+)', text):
        if le == "10":
            assert int(count) > 0

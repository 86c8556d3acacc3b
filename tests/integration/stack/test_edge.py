"""What the edge itself does, over a real Envoy; the engine behind it does what each call's headers say."""

from __future__ import annotations

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.edge_http import Answer, call
from tests.stack_fixture import eventually

if TYPE_CHECKING:
    from tests.stack_fixture import ExchangeStack

HEALTH = "/api/v1/health"
ORDERS = "/api/v1/orders"
# Well before the call's own 10 s.
STOPPED_IS_NOTICED_S = 5.0


def calls_seen(stack: ExchangeStack, key: str) -> int:
    """How many calls with this key reached the engine."""
    return int(call(f"{stack.edge_url}{HEALTH}", headers={"x-fake-key": key}).headers["x-fake-calls"]) - 1


def test_a_call_is_repeated_only_where_the_contract_says_that_it_may_be(fake_stack: ExchangeStack) -> None:
    keys = {method: uuid.uuid4().hex for method in ("GET", "POST")}
    for method, path, body in (("GET", HEALTH, None), ("POST", ORDERS, "{}")):
        headers = {"x-fake-status": "UNAVAILABLE", "x-fake-key": keys[method]}
        assert call(f"{fake_stack.edge_url}{path}", method, body, headers).status == 503

    assert calls_seen(fake_stack, keys["GET"]) > 1
    assert calls_seen(fake_stack, keys["POST"]) == 1


def test_a_client_cannot_ask_for_retries_or_other_time_outs(fake_stack: ExchangeStack) -> None:
    key = uuid.uuid4().hex
    headers = {
        "x-fake-status": "UNAVAILABLE",
        "x-fake-key": key,
        "x-envoy-retry-on": "5xx,unavailable",
        "x-envoy-retry-grpc-on": "unavailable",
        "x-envoy-max-retries": "5",
    }
    call(f"{fake_stack.edge_url}{ORDERS}", "POST", "{}", headers)
    assert calls_seen(fake_stack, key) == 1

    slow = {"x-fake-sleep-ms": "300", "x-envoy-upstream-rq-timeout-ms": "1"}
    assert call(f"{fake_stack.edge_url}{HEALTH}", headers=slow).status == 200


@pytest.mark.parametrize("listener", ["edge_url", "ops_url"])
def test_who_a_caller_claims_to_be_does_not_reach_the_engine(fake_stack: ExchangeStack, listener: str) -> None:
    claims = ("x-pincex-principal", "x-pincex-roles", "x-forwarded-client-cert")
    headers = {**dict.fromkeys(claims, "admin"), "X-PinCEX-Roles": "operator", "x-pincex-account": "maker"}

    seen = call(f"{getattr(fake_stack, listener)}{HEALTH}", headers=headers).headers["x-fake-seen"].split(",")

    assert not set(claims) & set(seen)
    assert "x-pincex-account" in seen


@pytest.fixture(scope="module")
def slow_answers(fake_stack: ExchangeStack) -> dict[str, Answer]:
    """Three calls that take longer than ten seconds, made at the same time."""
    edge = fake_stack.edge_url
    slow = {"x-fake-sleep-ms": "12000"}
    with ThreadPoolExecutor() as pool:
        unary = pool.submit(call, f"{edge}{ORDERS}", "POST", "{}", slow)
        stream = pool.submit(call, f"{edge}/api/v1/orderbook-stream/BTCUSD", headers=slow)
        # Says that a hundred bytes come, sends two.
        stalled = pool.submit(call, f"{edge}{ORDERS}", "POST", "{}", {"content-length": "100"})
        return {"unary": unary.result(), "stream": stream.result(), "stalled": stalled.result()}


def test_an_answer_that_takes_too_long_is_a_deadline_with_an_unknown_outcome(slow_answers: dict[str, Answer]) -> None:
    answer = slow_answers["unary"]

    assert (answer.status, answer.json()["code"], answer.reason()) == (504, 4, "UPSTREAM_TIMEOUT")
    assert "unknown" in answer.json()["message"]


def test_a_stream_may_be_quiet_for_longer_than_a_unary_call_may_take(slow_answers: dict[str, Answer]) -> None:
    assert slow_answers["stream"].status == 200
    assert len(slow_answers["stream"].text.splitlines()) == 3


def test_a_body_that_stalls_is_given_up(slow_answers: dict[str, Answer]) -> None:
    answer = slow_answers["stalled"]

    assert (answer.status, answer.json()["code"], answer.reason()) == (408, 4, "MALFORMED_REQUEST")


@pytest.mark.parametrize("path", ["/api/v1/orderbook/BTC/USD", "/api/v1/orderbook/BTC%2FUSD"])
def test_a_symbol_with_a_slash_arrives_as_it_is_meant(fake_stack: ExchangeStack, path: str) -> None:
    assert call(f"{fake_stack.edge_url}{path}").json()["symbol"] == "BTC/USD"


def test_a_server_stream_comes_as_one_json_object_a_line(fake_stack: ExchangeStack) -> None:
    answer = call(f"{fake_stack.edge_url}/api/v1/orderbook-stream/BTCUSD")

    assert answer.status == 200
    lines = answer.text.splitlines()
    assert len(lines) == 3
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_an_engine_that_is_not_serving_gets_no_calls(fake_stack: ExchangeStack) -> None:
    switch = fake_stack.home / "switches" / "NOT_SERVING"
    switch.touch()
    try:
        eventually(lambda: call(f"{fake_stack.edge_url}{HEALTH}").status == 503, "the edge refuses")
        answer = call(f"{fake_stack.edge_url}{HEALTH}")
    finally:
        switch.unlink()
    assert (answer.status, answer.json()["code"], answer.reason()) == (503, 14, "UPSTREAM_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"
    eventually(lambda: call(f"{fake_stack.edge_url}{HEALTH}").status == 200, "the edge answers again")


def test_without_an_engine_the_edge_says_so_and_recovers(fake_stack: ExchangeStack) -> None:
    fake_stack.kill("trading-engine-1")

    eventually(lambda: call(f"{fake_stack.edge_url}{HEALTH}").status == 503, "the edge refuses")
    eventually(lambda: call(f"{fake_stack.edge_url}{HEALTH}").status == 200, "the edge answers again")


def test_a_stopped_engine_is_noticed(fake_stack: ExchangeStack) -> None:
    fake_stack.kill("trading-engine-1", "STOP")
    try:
        eventually(lambda: call(f"{fake_stack.edge_url}{HEALTH}").status in {503, 504}, "the edge refuses")
    finally:
        fake_stack.kill("trading-engine-1", "CONT")
    eventually(lambda: call(f"{fake_stack.edge_url}{HEALTH}").status == 200, "the edge answers again")


@pytest.mark.parametrize(
    ("claimed", "told"),
    [(None, "127.0.0.1"), ("203.0.113.7", "203.0.113.7,127.0.0.1"), ("127.0.0.1", "127.0.0.1,127.0.0.1")],
)
def test_the_peers_own_address_is_the_last_of_those_forwarded(
    fake_stack: ExchangeStack,
    claimed: str | None,
    told: str,
) -> None:
    headers = {"x-forwarded-for": claimed, "x-envoy-external-address": claimed} if claimed else {}

    answer = call(f"{fake_stack.edge_url}{HEALTH}", headers=headers)

    assert answer.headers["x-fake-forwarded"].replace(" ", "") == told


def test_scaling_and_killing_one_of_several_drops_no_call(fake_stack: ExchangeStack) -> None:
    refused: list[Answer] = []
    stop = threading.Event()
    sent = [0]

    def keep_calling() -> None:
        while not stop.is_set():
            answer = call(f"{fake_stack.edge_url}{HEALTH}")
            sent[0] += 1
            if answer.status != 200:
                refused.append(answer)

    caller = threading.Thread(target=keep_calling)
    caller.start()
    try:
        for count in (3, 2, 1):
            scaled = fake_stack.folder.command("scale", f"trading-engine={count}")
            assert scaled.returncode == 0, scaled.stderr
            names = [s["name"] for s in fake_stack.status()["services"] if s["service"] == "trading-engine"]
            assert names == [f"trading-engine-{number}" for number in range(1, count + 1)]
            if count == 3:
                fake_stack.restart("trading-engine-2")
    finally:
        stop.set()
        caller.join()
    assert sent[0] > 50
    assert refused == []


def test_what_engines_answer_leaves_none_of_them_out(fake_stack: ExchangeStack) -> None:
    assert fake_stack.folder.command("scale", "trading-engine=2").returncode == 0
    try:
        before = ejections(fake_stack)
        for status in ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL"):
            for _ in range(50):
                call(f"{fake_stack.edge_url}{ORDERS}", "POST", "{}", {"x-fake-status": status})
        assert ejections(fake_stack) == before
    finally:
        assert fake_stack.folder.command("scale", "trading-engine=1").returncode == 0


def ejections(stack: ExchangeStack) -> int:
    """How often Envoy has left an engine out for what it saw of its calls."""
    name = "cluster.trading.outlier_detection.ejections_enforced_total"
    return int(call(f"{stack.envoy_admin_url}/stats?filter=^{name}$").text.split()[-1])


def test_who_waits_at_an_engine_that_stopped_is_told_so(fake_stack: ExchangeStack) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(call, f"{fake_stack.edge_url}{ORDERS}", "POST", "{}", {"x-fake-sleep-ms": "9000"})
        eventually(lambda: "1" in in_flight(fake_stack), "the engine has the call")
        fake_stack.kill("trading-engine-1", "STOP")
        try:
            answer = waiting.result(STOPPED_IS_NOTICED_S)
        finally:
            fake_stack.kill("trading-engine-1", "CONT")
    assert (answer.status, answer.reason()) == (503, "UPSTREAM_UNAVAILABLE")
    eventually(lambda: call(f"{fake_stack.edge_url}{HEALTH}").status == 200, "the edge answers again")


def in_flight(stack: ExchangeStack) -> list[str]:
    """Calls that Envoy has sent to the engine and that have no answer yet, as it says itself."""
    return call(f"{stack.envoy_admin_url}/stats?filter=^cluster.trading.upstream_rq_active$").text.split()


def test_an_answer_of_megabytes_comes_whole_and_one_beyond_the_limit_fails_plainly(fake_stack: ExchangeStack) -> None:
    # A test before this one may have killed the engine.
    eventually(lambda: call(f"{fake_stack.ops_url}/admin/metrics").status == 200, "the engine answers")
    whole = call(f"{fake_stack.ops_url}/admin/metrics", headers={"x-fake-bytes": "3000000"})
    beyond = call(f"{fake_stack.ops_url}/admin/metrics", headers={"x-fake-bytes": "9000000"})

    assert (whole.status, len(whole.body)) == (200, 3_000_000)
    assert (beyond.status, beyond.reason()) == (500, "INTERNAL")


def test_more_instances_than_this_version_can_run_are_refused(fake_stack: ExchangeStack) -> None:
    refused = fake_stack.folder.command("scale", "trading-engine=4")

    assert refused.returncode == 1
    assert "trading-engine runs at most 3 instances" in refused.stderr


def test_restarting_the_edge_keeps_the_engines(fake_stack: ExchangeStack) -> None:
    before = fake_stack.instance("trading-engine-1")["pid"]
    fake_stack.restart("envoy")

    eventually(lambda: call(f"{fake_stack.edge_url}{HEALTH}").status == 200, "the edge answers again")
    assert fake_stack.instance("trading-engine-1")["pid"] == before

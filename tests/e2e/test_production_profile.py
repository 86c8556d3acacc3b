"""The production profile from its first start on: how its operator gets in, and that nobody else does."""

from __future__ import annotations

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from exchange.auth import bootstrap
from exchange.stack import first_operator
from exchange.stack.catalogue import CATALOGUE
from exchange.stack.config import default_image
from exchange.stack.edge.contract import Method, read_contract
from exchange.stack.services import ROUTES
from pincex.trading.v1 import admin_service_pb2, admin_service_pb2_grpc
from tests.edge_http import call
from tests.stack_fixture import eventually

if TYPE_CHECKING:
    from tests.stack_fixture import ProductionStack

BALANCES, LOGIN, LOCKED = "/api/v1/balances", "/api/v1/auth/login", "/admin/accounts/locked"
SIGNED = {"x-api-key": "ak_x", "x-pincex-timestamp": "1", "x-pincex-nonce": "n", "x-pincex-signature": "s"}


def test_the_first_start_says_once_how_to_log_in_and_keeps_the_password_nowhere(
    production_stack: ProductionStack,
) -> None:
    exchange = production_stack.exchange
    assert (first_operator.OPERATOR_EMAIL, first_operator.PASSWORD_FILE) == (bootstrap.EMAIL, bootstrap.PASSWORD_FILE)
    assert production_stack.email == bootstrap.EMAIL

    again = exchange.folder.command("up", "--detach")

    assert "the exchange is running already" in again.stdout
    assert "password" not in again.stdout
    kept = subprocess.run(
        ["grep", "-rlF", "--", production_stack.password, str(exchange.home)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert kept.stdout == ""


def test_the_operator_logs_in_as_the_first_start_said_and_uses_the_ops_listener(
    production_stack: ProductionStack,
) -> None:
    exchange, headers = production_stack.exchange, production_stack.bearer()

    locked = call(f"{exchange.ops_url}{LOCKED}", headers=headers)
    made = call(f"{exchange.ops_url}/admin/assets", "POST", json.dumps(ASSET), headers)
    with grpc.insecure_channel(exchange.ops_address) as channel:
        state = admin_service_pb2_grpc.TradingAdminServiceStub(channel).GetEngineState(
            admin_service_pb2.GetEngineStateRequest(), metadata=tuple(headers.items()), timeout=10
        )

    assert (locked.status, locked.json()["accounts"]) == (200, [])
    assert made.status == 200, made.text
    assert state.role
    query = "action=pincex.trading.v1.TradingAdminService/CreateAsset"
    records = call(f"{exchange.ops_url}/admin/audit/records?{query}", headers=headers).json()["records"]
    assert {record["phase"] for record in records} == {"BEGUN", "ENDED"}
    assert {record["credential"] for record in records} == {"token"}


ASSET = {"code": "XAU", "scale": 4, "request_id": "asset-xau"}


def test_a_session_without_the_scope_admin_is_a_traders_whatever_its_user_is(production_stack: ProductionStack) -> None:
    exchange, headers = production_stack.exchange, production_stack.bearer(scopes=["READ"])

    assert call(f"{exchange.edge_url}{BALANCES}", headers=headers).status == 200
    refused = call(f"{exchange.ops_url}{LOCKED}", headers=headers)
    assert (refused.status, refused.reason()) == (403, "PERMISSION_DENIED")


def served(*, public: bool) -> list[Method]:
    packages = {route.package for route in (*ROUTES, *(route for entry in CATALOGUE for route in entry.routes))}
    return [one for one in read_contract(default_image()).carried(public=public) if one.package in packages]


@pytest.mark.parametrize("public", [True, False], ids=["public edge", "ops listener"])
def test_without_a_token_nothing_is_open_but_what_the_contract_calls_public(
    production_stack: ProductionStack, *, public: bool
) -> None:
    exchange = production_stack.exchange
    url = exchange.edge_url if public else exchange.ops_url
    closed = [
        (verb, re.sub(r"\{[^}]*\}", "x", path))
        for method in served(public=public)
        if not method.access.public
        for verb, path in method.http
    ]
    assert len(closed) > (20 if public else 60)

    def status(binding: tuple[str, str]) -> int:
        verb, path = binding
        return call(f"{url}{path}", verb, "{}" if verb not in {"GET", "DELETE"} else None).status

    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(closed, pool.map(status, closed), strict=True))
    assert {binding: answer for binding, answer in found.items() if answer != 401} == {}


def test_settlement_follows_the_engine_as_the_service_that_it_proves_to_be(production_stack: ProductionStack) -> None:
    exchange, headers = production_stack.exchange, production_stack.bearer()
    made = call(f"{exchange.ops_url}/admin/assets", "POST", json.dumps({"code": "XDR", "decimals": 2}), headers)
    assert made.status == 200, made.text
    body = json.dumps({"asset": "XDR", "amount": "12.50", "request_id": "production-books"})
    credited = call(f"{exchange.ops_url}/admin/accounts/production-books/credits", "POST", body, headers)
    assert credited.status == 200, credited.text

    def balances() -> list[dict[str, str]]:
        found: list[dict[str, str]] = (
            call(f"{exchange.ops_url}/admin/ledger/accounts/production-books", headers=headers)
            .json()
            .get("balances", [])
        )
        return found

    eventually(
        lambda: balances() == [{"asset": "XDR", "kind": "available", "amount": "12.50"}], "the credit is settled"
    )
    compared = call(f"{exchange.ops_url}/admin/settlement/reconcile", "POST", "{}", headers)
    assert compared.json()["whole"], compared.text


@pytest.mark.parametrize("claim", [(), (("x-pincex-service", f"settlement.1.{'0' * 64}"),)], ids=["nothing", "a guess"])
def test_between_services_nobody_is_let_in_who_is_none(
    production_stack: ProductionStack, claim: tuple[tuple[str, str], ...]
) -> None:
    port = production_stack.exchange.instance("envoy")["ports"]["internal"]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as caught:
        admin_service_pb2_grpc.TradingAdminServiceStub(channel).GetEngineState(
            admin_service_pb2.GetEngineStateRequest(), metadata=claim, timeout=10
        )
    refused: Any = caught.value
    assert refused.code() is grpc.StatusCode.UNAUTHENTICATED


def test_while_the_auth_service_is_away_tokens_keep_trading_and_nothing_opens(
    production_stack: ProductionStack,
) -> None:
    exchange, headers = production_stack.exchange, production_stack.bearer()
    password = json.dumps({"email": production_stack.email, "password": production_stack.password})
    assert exchange.folder.command("scale", "auth-service=0").returncode == 0
    try:
        known = call(f"{exchange.edge_url}{BALANCES}", headers=headers)
        stranger = call(f"{exchange.edge_url}{BALANCES}")
        login = call(f"{exchange.edge_url}{LOGIN}", "POST", password)
        signed = call(f"{exchange.edge_url}{BALANCES}", headers=SIGNED)
    finally:
        assert exchange.folder.command("scale", "auth-service=1").returncode == 0

    assert known.status == 200
    assert (stranger.status, stranger.reason()) == (401, "UNAUTHENTICATED")
    assert (login.status, login.reason()) == (503, "UPSTREAM_UNAVAILABLE")
    assert (signed.status, signed.reason()) == (503, "AUTH_UNAVAILABLE")
    eventually(lambda: call(f"{exchange.edge_url}{LOGIN}", "POST", password).status == 200, "logging in works again")

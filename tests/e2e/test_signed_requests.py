"""Signed requests on the running exchange: client library, Envoy, gate, services."""

from __future__ import annotations

import base64
import json
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from pincex.auth.v1 import auth_service_pb2, auth_service_pb2_grpc, user_service_pb2, user_service_pb2_grpc
from pincex.trading.v1 import account_service_pb2, account_service_pb2_grpc
from pincex_client.signing import CONTENT_SHA256, Ed25519Signer, HmacSigner
from tests.edge_http import Answer, call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pincex_client.signing import RequestSigner
    from tests.stack_fixture import ProductionStack

TIMEOUT_S = 10.0
ACCOUNT = "/api/v1/account"
GET_USER = "/pincex.auth.v1.UserService/GetUser"
LIST_KEYS = "/pincex.auth.v1.UserService/ListApiKeys"
EXCHANGE = "/pincex.auth.v1.AuthService/ExchangeApiKey"
_numbers = count(1)


@pytest.fixture(scope="module")
def session(production_stack: ProductionStack) -> dict[str, str]:
    """The header of a log-in session, which makes and revokes keys."""
    return production_stack.bearer()


@pytest.fixture(scope="module")
def channel(production_stack: ProductionStack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(production_stack.exchange.edge_address) as found:
        yield found


@pytest.fixture(scope="module")
def signer(production_stack: ProductionStack, session: dict[str, str]) -> HmacSigner:
    """A key for tests that leave it alone."""
    return make_key(production_stack, session)


def make_key(stack: ProductionStack, session: dict[str, str], **fields: object) -> HmacSigner:
    body = {"label": "e2e", "scopes": ["READ", "TRADE"], "request_id": f"e2e-{next(_numbers)}", **fields}
    made = call(f"{stack.exchange.edge_url}/api/v1/account/api-keys", "POST", json.dumps(body), headers=session)
    assert made.status == 200, made.text
    found = made.json()
    return HmacSigner(found["key"]["api_key"], base64.b64decode(found["secret"]))


def ask(
    stack: ProductionStack, signer: RequestSigner, path: str = ACCOUNT, *, signed_path: str = "", **headers: str
) -> Answer:
    """A GET whose signature is over `signed_path`, by default over what is asked."""
    signed = signer.rest_headers("GET", signed_path or path)
    return call(f"{stack.exchange.edge_url}{path}", headers={**signed, **headers})


def refusal(make: Callable[[], Any]) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo]:
    with pytest.raises(grpc.RpcError) as caught:
        make()
    error: Any = caught.value
    info = error_details_pb2.ErrorInfo()
    raw = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert status_pb2.Status.FromString(raw).details[0].Unpack(info)
    return error.code(), info


def test_a_signed_request_is_let_in_and_counts_once(production_stack: ProductionStack, signer: HmacSigner) -> None:
    headers = signer.rest_headers("GET", ACCOUNT)
    url = f"{production_stack.exchange.edge_url}{ACCOUNT}"
    first, again = call(url, headers=headers), call(url, headers=headers)
    assert first.status == 200, first.text
    assert first.json()["email"] == production_stack.email
    assert (again.status, again.reason()) == (401, "NONCE_REUSED")


def test_a_body_is_part_of_what_is_signed(production_stack: ProductionStack, signer: HmacSigner) -> None:
    path, body = "/api/v1/auth/exchange", b"{}"
    url = f"{production_stack.exchange.edge_url}{path}"
    headers = {"content-type": "application/json"}
    given = call(url, "POST", body, headers={**headers, **signer.rest_headers("POST", path, body)})
    assert given.status == 200, given.text
    assert given.json()["session_id"] == signer.api_key
    altered = call(url, "POST", b"{} ", headers={**headers, **signer.rest_headers("POST", path, body)})
    assert (altered.status, altered.reason()) == (401, "SIGNATURE_REFUSED")


def test_a_path_is_signed_as_it_is_sent(production_stack: ProductionStack, signer: HmacSigner) -> None:
    # There are no markets in this exchange: it got through to the engine.
    assert ask(production_stack, signer, "/api/v1/orderbook/BTC%2FUSD?depth=5").reason() == "UNKNOWN_SYMBOL"
    refused = ask(production_stack, signer, "/api/v1/orderbook/BTC%2FUSD", signed_path="/api/v1/orderbook/BTC/USD")
    assert (refused.status, refused.reason()) == (401, "SIGNATURE_REFUSED")
    metadata = refused.json()["details"][0]["metadata"]
    assert metadata["signed"].split("\n")[4] == "/api/v1/orderbook/BTC%2FUSD"
    assert abs(int(metadata["server_time"]) - time.time() * 1_000) < 60_000


def test_a_client_that_is_told_the_time_signs_again(production_stack: ProductionStack, signer: HmacSigner) -> None:
    late = HmacSigner(signer.api_key, signer._secret, clock_ms=lambda: time.time_ns() // 1_000_000 - 3_600_000)
    refused = ask(production_stack, late)
    assert (refused.status, refused.reason()) == (401, "TIMESTAMP_OUT_OF_WINDOW")
    late.follow(int(refused.json()["details"][0]["metadata"]["server_time"]))
    assert ask(production_stack, late).status == 200


def test_a_foreign_address_does_not_pass_for_an_allowed_one(
    production_stack: ProductionStack, session: dict[str, str]
) -> None:
    elsewhere = make_key(production_stack, session, allowed_addresses=["198.51.100.0/24"])
    forged = {"x-forwarded-for": "198.51.100.7", "x-envoy-external-address": "198.51.100.7"}
    for headers in ({}, forged):
        refused = ask(production_stack, elsewhere, **headers)
        assert (refused.status, refused.reason()) == (403, "ADDRESS_NOT_ALLOWED")
    here = make_key(production_stack, session, allowed_addresses=["127.0.0.1"])
    assert ask(production_stack, here).status == 200


def test_grpc_calls_are_signed_too(channel: grpc.Channel, signer: HmacSigner) -> None:
    stub = user_service_pb2_grpc.UserServiceStub(channel)
    request = user_service_pb2.GetUserRequest()
    metadata = signer.grpc_headers(GET_USER, request.SerializeToString())
    assert stub.GetUser(request, metadata=metadata, timeout=TIMEOUT_S).user_id
    code, info = refusal(lambda: stub.GetUser(request, metadata=metadata, timeout=TIMEOUT_S))
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "NONCE_REUSED")
    code, info = refusal(lambda: stub.GetUser(request, metadata=signer.grpc_headers(LIST_KEYS, b""), timeout=TIMEOUT_S))
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_REFUSED")
    assert info.metadata["signed"].split("\n")[4] == GET_USER


@pytest.mark.parametrize("hashed", [b"", None], ids=["another message", "a stream"])
def test_a_grpc_message_that_was_not_signed_is_refused_by_the_service(
    channel: grpc.Channel, signer: HmacSigner, hashed: bytes | None
) -> None:
    stub = user_service_pb2_grpc.UserServiceStub(channel)
    request = user_service_pb2.ListApiKeysRequest(page_size=3)
    good = signer.grpc_headers(LIST_KEYS, request.SerializeToString())
    assert len(stub.ListApiKeys(request, metadata=good, timeout=TIMEOUT_S).keys) <= 3
    code, info = refusal(
        lambda: stub.ListApiKeys(request, metadata=signer.grpc_headers(LIST_KEYS, hashed), timeout=TIMEOUT_S)
    )
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_REFUSED")
    # Nor does it help to leave the hash out.
    code, info = refusal(
        lambda: stub.ListApiKeys(
            request, metadata=tuple(pair for pair in good if pair[0] != CONTENT_SHA256), timeout=TIMEOUT_S
        )
    )
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_REFUSED")


def test_a_key_pair_of_the_clients_own_gets_a_token_for_a_stream(
    production_stack: ProductionStack, session: dict[str, str], channel: grpc.Channel
) -> None:
    private = bytes(range(32))
    body = {"label": "pair", "scopes": ["READ"], "algorithm": "ED25519", "request_id": f"pair-{next(_numbers)}"}
    body["public_key"] = Ed25519Signer("", private).public_key
    made = call(
        f"{production_stack.exchange.edge_url}/api/v1/account/api-keys", "POST", json.dumps(body), headers=session
    ).json()
    assert made["secret"] == ""
    signer = Ed25519Signer(made["key"]["api_key"], private)
    request = auth_service_pb2.ExchangeApiKeyRequest()
    signed = signer.grpc_headers(EXCHANGE, request.SerializeToString())
    tokens = auth_service_pb2_grpc.AuthServiceStub(channel).ExchangeApiKey(request, metadata=signed, timeout=TIMEOUT_S)
    bearer = (("authorization", f"Bearer {tokens.access_token}"),)
    accounts = account_service_pb2_grpc.AccountServiceStub(channel)
    accounts.ListBalances(account_service_pb2.ListBalancesRequest(), metadata=bearer, timeout=TIMEOUT_S)


def test_a_revoked_key_is_dead_within_a_second(production_stack: ProductionStack, session: dict[str, str]) -> None:
    key = make_key(production_stack, session)
    assert ask(production_stack, key).status == 200
    url = f"{production_stack.exchange.edge_url}/api/v1/account/api-keys/{key.api_key}"
    revoked = call(url, "DELETE", headers=session)
    assert revoked.status == 200, revoked.text
    deadline = time.monotonic() + 1.0
    while (answer := ask(production_stack, key)).status == 200:
        assert time.monotonic() < deadline, "it is still taken"
    assert (answer.status, answer.reason()) == (401, "CREDENTIAL_REVOKED")


def test_the_log_of_the_auth_service_names_each_use_and_no_secret(
    production_stack: ProductionStack, signer: HmacSigner
) -> None:
    headers = signer.rest_headers("GET", ACCOUNT)
    url = f"{production_stack.exchange.edge_url}{ACCOUNT}"
    call(url, headers={**headers, "x-request-id": "the-first"})
    call(url, headers={**headers, "x-request-id": "the-second"})
    log = production_stack.exchange.folder.log("auth-service-1")
    lines = {line["request_id"]: line for line in map(json.loads, log.splitlines()) if line.get("key")}
    assert lines["the-first"]["event"] == "api key used"
    assert (lines["the-second"]["event"], lines["the-second"]["outcome"]) == ("api key refused", "NONCE_REUSED")
    assert {lines[name]["key"] for name in ("the-first", "the-second")} == {signer.api_key}
    for secret in (headers["x-pincex-signature"], headers["x-pincex-nonce"], base64.b64encode(signer._secret).decode()):
        assert secret not in log

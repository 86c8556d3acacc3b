"""Who gets through the edge: tokens, roles, signed requests and rates, tried at a real Envoy with stand-ins behind it."""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from exchange.stack.edge.plan import Identity, Rates
from pincex.trading.v1 import account_service_pb2, account_service_pb2_grpc
from tests.edge_http import Answer, call
from tests.integration.stack.edge_rig import BAD_KEY, GOOD_KEY, PROOF, EdgeRig, SigningKey, running_edge
from tests.stack_fixture import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BALANCES, ORDERS, LOGIN = "/api/v1/balances", "/api/v1/orders", "/api/v1/auth/login"
HEALTH, LOCKED = "/api/v1/health", "/admin/accounts/locked"
STAFF = {"rol": ["support"], "scp": ["read", "admin"]}


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeRig]:
    with running_edge(tmp_path_factory.mktemp("production"), anonymous=False) as rig:
        yield rig


@pytest.fixture(scope="module")
def development(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeRig]:
    with running_edge(tmp_path_factory.mktemp("development"), anonymous=True) as rig:
        yield rig


@pytest.fixture(params=[False, True], ids=["production", "development"])
def either(request: pytest.FixtureRequest) -> EdgeRig:
    rig: EdgeRig = request.getfixturevalue("development" if request.param else "production")
    return rig


def grpc_refusal(url: str, metadata: dict[str, str]) -> tuple[str, str]:
    """How a native gRPC call for balances ends: status and reason, both "OK" if it succeeds."""
    with grpc.insecure_channel(url.removeprefix("http://")) as channel:
        try:
            account_service_pb2_grpc.AccountServiceStub(channel).ListBalances(
                account_service_pb2.ListBalancesRequest(), metadata=tuple(metadata.items()), timeout=10
            )
        except grpc.RpcError as error:
            status: Any = rpc_status.from_call(error)  # type: ignore[arg-type]  # it is a call too
            if status is None:
                return error.code().name, ""
            info = error_details_pb2.ErrorInfo()
            assert status.details[0].Unpack(info)
            return error.code().name, info.reason
    return "OK", "OK"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def confused(rig: EdgeRig) -> str:
    """A token signed with HMAC, whose key is the public key that everybody can read."""
    public = rig.key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = rig.key.token().split(".")[1]
    header = encoded(json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": rig.key.key_id}).encode())
    return f"{header}.{claims}.{encoded(hmac.digest(public, f'{header}.{claims}'.encode(), 'sha256'))}"


def unsigned(rig: EdgeRig) -> str:
    claims = jwt.decode(rig.key.token(), options={"verify_signature": False})
    return jwt.encode(claims, "", "none", {"kid": rig.key.key_id})


TOKENS: dict[str, tuple[Callable[[EdgeRig], str], str]] = {
    "expired": (lambda rig: rig.key.token(exp=int(time.time()) - 5), "TOKEN_EXPIRED"),
    "for another audience": (lambda rig: rig.key.token(aud="elsewhere"), "TOKEN_REFUSED"),
    "of another issuer": (lambda rig: rig.key.token(iss="elsewhere"), "TOKEN_REFUSED"),
    "signed by a stranger": (lambda rig: SigningKey(rig.key.key_id).token(), "TOKEN_REFUSED"),
    "not signed": (unsigned, "TOKEN_REFUSED"),
    "of a confused algorithm": (confused, "TOKEN_REFUSED"),
    "without an end": (lambda rig: rig.key.token(exp=None), "TOKEN_REFUSED"),
    "no token at all": (lambda _: "abc", "TOKEN_REFUSED"),
}


@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_that_is_not_good_is_refused_on_every_protocol(either: EdgeRig, kind: str) -> None:
    make, reason = TOKENS[kind]
    headers = bearer(make(either))

    answer = call(f"{either.edge_url}{BALANCES}", headers=headers)

    assert (answer.status, answer.json()["code"], answer.reason()) == (401, 16, reason)
    assert grpc_refusal(either.edge_url, headers) == ("UNAUTHENTICATED", reason)


def test_a_token_that_was_good_is_refused_once_it_expires(production: EdgeRig) -> None:
    headers = production.bearer(exp=int(time.time()) + 2)
    assert call(f"{production.edge_url}{BALANCES}", headers=headers).status == 200

    refused: list[Answer] = []

    def is_refused() -> bool:
        answer = call(f"{production.edge_url}{BALANCES}", headers=headers)
        refused.append(answer)
        return answer.status == 401

    eventually(is_refused, "the token expires", 10)
    assert refused[-1].reason() == "TOKEN_EXPIRED"


def test_a_good_token_gets_through_and_the_service_sees_it(either: EdgeRig) -> None:
    answer = call(f"{either.edge_url}{BALANCES}", headers=either.bearer())

    assert answer.status == 200
    assert "authorization" in answer.headers["x-fake-seen"].split(",")
    assert grpc_refusal(either.edge_url, either.bearer()) == ("OK", "OK")


def test_without_a_token_callers_get_through_in_development_only(production: EdgeRig, development: EdgeRig) -> None:
    answer = call(f"{production.edge_url}{BALANCES}")

    assert (answer.status, answer.reason()) == (401, "UNAUTHENTICATED")
    assert grpc_refusal(production.edge_url, {}) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    assert call(f"{development.edge_url}{BALANCES}").status == 200


def test_a_token_in_the_query_counts_for_nothing(production: EdgeRig) -> None:
    answer = call(f"{production.edge_url}{BALANCES}?access_token={production.key.token()}")

    assert answer.status in {400, 401}


@pytest.mark.parametrize("headers", [{}, bearer("abc")], ids=["no token", "a bad token"])
def test_what_is_public_takes_everybody(either: EdgeRig, headers: dict[str, str]) -> None:
    assert call(f"{either.edge_url}{HEALTH}", headers=headers).status == 200
    assert call(f"{either.edge_url}{LOGIN}", "POST", "{}", headers).status == 200
    assert call(f"{either.ops_url}{HEALTH}", headers=headers).status == 200


@pytest.mark.parametrize(
    ("path", "claims", "status"),
    [
        (LOCKED, {}, 403),
        (LOCKED, {"rol": ["support"]}, 403),
        (LOCKED, STAFF, 200),
        (LOCKED, {**STAFF, "rol": ["trader", "admin"]}, 200),
        ("/admin/metrics", STAFF, 403),
        ("/admin/metrics", {**STAFF, "rol": ["auditor"]}, 200),
        (BALANCES, {}, 403),
        (BALANCES, STAFF, 200),
    ],
)
def test_in_production_operators_paths_ask_for_the_role_of_each(
    production: EdgeRig, path: str, claims: dict[str, object], status: int
) -> None:
    answer = call(f"{production.ops_url}{path}", headers=production.bearer(**claims))

    assert answer.status == status
    if status == 403:
        assert answer.reason() == "PERMISSION_DENIED"


def test_in_production_operators_paths_are_closed_to_strangers(production: EdgeRig, development: EdgeRig) -> None:
    assert call(f"{production.ops_url}{LOCKED}").reason() == "UNAUTHENTICATED"
    assert call(f"{production.ops_url}/metrics").reason() == "UNAUTHENTICATED"
    assert call(f"{development.ops_url}{LOCKED}").status == 200


def test_no_role_opens_operators_paths_on_the_public_edge(either: EdgeRig) -> None:
    answer = call(f"{either.edge_url}{LOCKED}", headers=either.bearer(**STAFF))

    assert (answer.status, answer.reason()) == (404, "UNKNOWN_PATH")


def test_in_production_reflection_is_for_staff_and_health_for_everybody(production: EdgeRig) -> None:
    with grpc.insecure_channel(production.ops_url.removeprefix("http://")) as channel:
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        check: Any = health_pb2_grpc.HealthStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")

        with pytest.raises(grpc.RpcError) as refused:
            list(reflection(iter([question]), timeout=10))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as missing:
            list(reflection(iter([question]), timeout=10, metadata=tuple(production.bearer(**STAFF).items())))
        # Let through: the stand-in has none.
        assert missing.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert check.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1


@pytest.mark.parametrize("listener", ["edge_url", "ops_url"])
def test_what_only_the_inside_may_say_does_not_come_in(development: EdgeRig, listener: str) -> None:
    claims = (
        "x-pincex-principal",
        "x-pincex-principal-scopes",
        "x-pincex-roles",
        "x-pincex-service",
        "x-pincex-edge",
        "x-forwarded-client-cert",
    )
    headers = {**dict.fromkeys(claims, "admin"), "X-PinCEX-Principal-Roles": "admin", "x-pincex-account": "maker"}

    seen = call(f"{getattr(development, listener)}{HEALTH}", headers=headers).headers["x-fake-seen"].split(",")

    assert not [name for name in seen if name.startswith("x-pincex-") and name != "x-pincex-account"]
    assert "x-forwarded-client-cert" not in seen
    assert "x-pincex-account" in seen


def signed(key: str) -> dict[str, str]:
    return {
        "x-api-key": key,
        "x-pincex-timestamp": "1",
        "x-pincex-nonce": "n",
        "x-pincex-signature": "s",
        "content-type": "application/json",
    }


def test_a_signed_rest_request_is_judged_as_it_was_sent_and_goes_on_with_a_token(either: EdgeRig) -> None:
    body = '{"symbol" : "BTC/USD"}'

    answer = call(f"{either.edge_url}{ORDERS}", "POST", body, signed(GOOD_KEY))

    asked = either.auth.asked[-1]
    assert (asked["method"], asked["path"], asked["body"]) == ("POST", ORDERS, body.encode())
    assert asked["headers"]["x-pincex-edge"] == PROOF
    assert asked["headers"]["x-pincex-protocol"] == "rest"
    assert asked["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert (answer.status, answer.json()["symbol"]) == (200, "BTC/USD")
    seen = answer.headers["x-fake-seen"].split(",")
    assert "authorization" in seen
    assert not {"x-api-key", "x-pincex-signature", "x-pincex-edge"} & set(seen)


def test_the_query_is_part_of_what_is_judged(either: EdgeRig) -> None:
    assert call(f"{either.edge_url}{ORDERS}?page_size=5&symbol=BTC%2FUSD", headers=signed(GOOD_KEY)).status == 200

    assert either.auth.asked[-1]["path"] == f"{ORDERS}?page_size=5&symbol=BTC%2FUSD"


def test_of_a_signed_grpc_call_the_gate_gets_the_hash_and_the_service_too(either: EdgeRig) -> None:
    headers = {**signed(GOOD_KEY), "x-pincex-content-sha256": "ab"}
    del headers["content-type"]

    assert grpc_refusal(either.edge_url, headers) == ("OK", "OK")

    asked = either.auth.asked[-1]
    assert (asked["path"], asked["body"]) == ("/pincex.trading.v1.AccountService/ListBalances", b"")
    assert (asked["headers"]["x-pincex-protocol"], asked["headers"]["x-pincex-content-sha256"]) == ("grpc", "ab")


@pytest.mark.parametrize("content_type", ["application/grpcx", "application/grpc-web+proto", "application/json"])
def test_what_becomes_a_rest_request_is_judged_with_its_body_whatever_it_calls_itself(
    either: EdgeRig, content_type: str
) -> None:
    headers = {**signed(GOOD_KEY), "content-type": content_type}

    call(f"{either.edge_url}{ORDERS}", "POST", '{"symbol":"A"}', headers)

    asked = either.auth.asked[-1]
    assert (asked["headers"]["x-pincex-protocol"] == "rest") is (asked["body"] != b"")
    assert (asked["headers"]["x-pincex-protocol"] == "grpc") is (content_type == "application/grpc-web+proto")


def test_the_gates_refusal_reaches_the_client_as_the_gate_said_it(either: EdgeRig) -> None:
    answer = call(f"{either.edge_url}{ORDERS}", "POST", "{}", signed(BAD_KEY))

    assert (answer.status, answer.reason()) == (401, "SIGNATURE_REFUSED")
    assert grpc_refusal(either.edge_url, {"x-api-key": BAD_KEY})[0] == "UNAUTHENTICATED"
    assert call(f"{either.edge_url}{ORDERS}", "POST", "{}", {"x-api-key": ""}).status == 401


def test_a_bearer_token_does_not_help_a_bad_signature(either: EdgeRig) -> None:
    answer = call(f"{either.edge_url}{ORDERS}", "POST", "{}", {**signed(BAD_KEY), **either.bearer()})

    assert (answer.status, answer.reason()) == (401, "SIGNATURE_REFUSED")


def test_a_signed_body_beyond_the_limit_is_refused_before_the_gate_sees_it(production: EdgeRig) -> None:
    before = len(production.auth.asked)

    answer = call(f"{production.edge_url}{ORDERS}", "POST", b"x" * 1_100_000, signed(GOOD_KEY))

    assert (answer.status, answer.reason()) == (413, "BODY_TOO_LARGE")
    assert len(production.auth.asked) == before


def preflight(rig: EdgeRig, origin: str) -> Answer:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-api-key,x-pincex-signature",
    }
    return call(f"{rig.edge_url}{ORDERS}", "OPTIONS", headers=headers)


def test_pages_of_this_machine_may_sign_requests_and_foreign_ones_may_not(production: EdgeRig) -> None:
    allowed = preflight(production, "http://localhost:5173").headers["access-control-allow-headers"].split(",")
    assert {"x-api-key", "x-pincex-timestamp", "x-pincex-nonce", "x-pincex-signature", "authorization"} <= set(allowed)

    for origin in ("https://evil.example", "http://localhost.evil.example", "null"):
        refused = preflight(production, origin)
        assert not [name for name in refused.headers if name.startswith("access-control-")]
        read = call(f"{production.edge_url}{BALANCES}", headers={"origin": origin, **production.bearer()})
        assert "access-control-allow-origin" not in read.headers


@pytest.mark.parametrize("anonymous", [False, True], ids=["production", "development"])
def test_while_the_auth_service_is_away_tokens_stay_good_and_nothing_opens(tmp_path: Any, *, anonymous: bool) -> None:
    with running_edge(
        tmp_path, anonymous=anonymous, change=lambda plan: with_identity(plan, Identity(PROOF, keys_age_s=1))
    ) as rig:
        rig.auth.stop()
        # Longer than the age at which keys are fetched again.
        gone = time.monotonic() + 3
        while time.monotonic() < gone:
            assert call(f"{rig.edge_url}{BALANCES}", headers=rig.bearer()).status == 200
        assert call(f"{rig.edge_url}{BALANCES}", headers=bearer(SigningKey("k1").token())).status == 401

        for headers in (signed(GOOD_KEY), {**signed(GOOD_KEY), **rig.bearer()}):
            answer = call(f"{rig.edge_url}{ORDERS}", "POST", "{}", headers)
            assert (answer.status, answer.json()["code"], answer.reason()) == (503, 14, "AUTH_UNAVAILABLE")
            assert answer.headers["retry-after"] == "1"
        # Envoy's own answer to its question would be HTTP 200 if it took that for a gRPC call.
        assert grpc_refusal(rig.edge_url, {"x-api-key": GOOD_KEY}) == ("UNAVAILABLE", "AUTH_UNAVAILABLE")

        rig.auth.start()
        eventually(
            lambda: call(f"{rig.edge_url}{ORDERS}", "POST", "{}", signed(GOOD_KEY)).status == 200,
            "signed requests are judged again",
        )


def test_a_new_signing_key_is_known_soon_and_the_old_one_stays_good(tmp_path: Any) -> None:
    with running_edge(
        tmp_path, anonymous=False, change=lambda plan: with_identity(plan, Identity(PROOF, keys_age_s=1))
    ) as rig:
        new = SigningKey("k2")
        eventually(
            lambda: call(f"{rig.edge_url}{BALANCES}", headers=bearer(new.token())).status == 401, "the key is not known"
        )
        rig.auth.keys.append(new)

        eventually(
            lambda: call(f"{rig.edge_url}{BALANCES}", headers=bearer(new.token())).status == 200, "the key is known"
        )

        assert call(f"{rig.edge_url}{BALANCES}", headers=rig.bearer()).status == 200


def with_identity(plan: Any, identity: Identity) -> Any:
    return replace(plan, identity=identity)


def test_with_no_keys_to_verify_with_a_caller_is_told_to_come_again(tmp_path: Any) -> None:
    with running_edge(
        tmp_path, anonymous=True, known=False, change=lambda plan: with_identity(plan, Identity(PROOF, keys="none"))
    ) as rig:
        answer = call(f"{rig.edge_url}{BALANCES}", headers=rig.bearer())

        assert (answer.status, answer.reason()) == (503, "AUTH_UNAVAILABLE")
        assert grpc_refusal(rig.edge_url, rig.bearer()) == ("UNAVAILABLE", "AUTH_UNAVAILABLE")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeRig]:
    """An edge that lets through next to nothing."""
    rates = Rates(known=5, unknown=3, credentials=2)
    with running_edge(tmp_path_factory.mktemp("narrow"), anonymous=True, rates=rates) as rig:
        yield rig


def until_not(status: int, ask: Callable[[], Answer]) -> Answer:
    for _ in range(200):
        answer = ask()
        if answer.status != status:
            return answer
    pytest.fail("nothing changes")


def until_refused(ask: Callable[[], Answer]) -> Answer:
    return until_not(200, ask)


def from_address(address: str, url: str) -> int:
    """The status of a GET from another address of this machine."""
    host = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host[0], timeout=10, source_address=(address, 0))
    try:
        connection.request("GET", f"/{host[2]}")
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_user_has_one_rate_over_all_its_tokens_and_others_have_theirs(narrow: EdgeRig) -> None:
    balances = f"{narrow.edge_url}{BALANCES}"
    session, key = narrow.bearer(sub="7", sid="s1"), narrow.bearer(sub="7", sid=None, key="ak_x")
    first = call(balances, headers=session)
    assert (first.status, first.headers["x-ratelimit-limit"]) == (200, "5")
    assert int(first.headers["x-ratelimit-remaining"]) < 5
    assert "x-ratelimit-reset" in first.headers

    turns = iter([session, key] * 100)
    refused = until_refused(lambda: call(balances, headers=next(turns)))

    assert (refused.status, refused.json()["code"], refused.reason()) == (429, 8, "QUOTA_EXCEEDED")
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["x-ratelimit-remaining"] == "0"
    quota = [one for one in refused.json()["details"] if one["@type"].endswith("QuotaFailure")]
    assert quota, refused.json()
    assert call(balances, headers=narrow.bearer(sub="8")).status == 200


def test_grpc_callers_are_told_in_the_same_way(narrow: EdgeRig) -> None:
    headers = narrow.bearer(sub="9")
    found = {grpc_refusal(narrow.edge_url, headers) for _ in range(30)}

    assert found == {("OK", "OK"), ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")}


def test_who_comes_without_a_token_is_counted_by_address(narrow: EdgeRig) -> None:
    health = f"{narrow.edge_url}{HEALTH}"
    refused = until_refused(lambda: call(health))

    assert (refused.status, refused.headers["x-ratelimit-limit"]) == (429, "3")
    assert from_address("127.0.0.2", health) == 200
    assert call(health, headers=narrow.bearer(sub="10")).status == 200


def test_an_address_in_a_header_is_no_way_around_the_count(narrow: EdgeRig) -> None:
    numbers = iter(range(1, 250))
    until_refused(
        lambda: call(f"{narrow.edge_url}{HEALTH}", headers={"x-forwarded-for": f"203.0.113.{next(numbers)}"}),
    )


def test_an_address_cannot_keep_the_gate_busy(narrow: EdgeRig) -> None:
    refused = until_not(401, lambda: call(f"{narrow.edge_url}{ORDERS}", "POST", "{}", signed(BAD_KEY)))

    assert (refused.status, refused.reason()) == (429, "QUOTA_EXCEEDED")


def test_logging_in_is_slower_than_all_else_whoever_asks(narrow: EdgeRig) -> None:
    refused = until_refused(
        lambda: call(f"{narrow.edge_url}{LOGIN}", "POST", json.dumps({}), narrow.bearer(sub="11")),
    )

    assert (refused.status, refused.headers["x-ratelimit-limit"], refused.reason()) == (429, "2", "QUOTA_EXCEEDED")

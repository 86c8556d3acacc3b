"""The gate: what is signed gets the token of its key, and everything else is refused with a reason."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import psycopg
import pytest
import pytest_asyncio

from exchange.auth import revocations
from exchange.auth.certificates import Certificates
from exchange.auth.signatures import ED25519, HMAC_SHA256
from exchange.auth.standing import Standing
from pincex_client.signing import CONTENT_SHA256, HmacSigner
from tests.integration.auth.gate_rig import ORDERS, WINDOW_MS, GateRig, running_gate
from tests.integration.auth.rig import HERE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.postgres_fixture import Database, PostgresServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = count(1)
BODY = b'{"symbol":"BTCUSD","side":"BUY"}'
PLACE = "/pincex.trading.v1.OrderService/PlaceOrder"
ELSEWHERE = "203.0.113.9"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(postgres_server: PostgresServer) -> AsyncIterator[GateRig]:
    """One gate for the module, each of whose tests makes a user of its own."""
    database = postgres_server.create_database()
    async with running_gate(database) as found:
        yield found
    postgres_server.drop_database(database.name)


@pytest.fixture
def gate(shared: GateRig) -> GateRig:
    """The shared gate, with nothing recorded yet."""
    shared.recorded.entries.clear()
    shared.recorded.events.clear()
    return shared


@pytest_asyncio.fixture(loop_scope="module")
async def own_gate(shared: GateRig) -> AsyncIterator[GateRig]:
    """Another instance over the same database, for tests that move its clock or cut it off."""
    async with running_gate(shared.database) as found:
        yield found


@pytest.fixture
def database(shared: GateRig) -> Database:
    return shared.database


@pytest.fixture
def user_id(database: Database) -> int:
    return add_user(database, f"trader-{next(_numbers)}@example.com")


def add_user(database: Database, email: str) -> int:
    with psycopg.connect(database.auth_url) as connection:
        row = connection.execute(
            "INSERT INTO users (email, password_hash, email_verified) VALUES (%s, 'none', true) RETURNING user_id",
            (email,),
        ).fetchone()
    assert row is not None
    found: int = row[0]
    return found


@pytest.mark.parametrize("algorithm", [HMAC_SHA256, ED25519])
async def test_a_signed_request_gets_the_token_of_its_key(gate: GateRig, user_id: int, algorithm: str) -> None:
    key, signer = await gate.make_key(
        user_id, algorithm=algorithm, lives=timedelta(hours=1), max_orders_per_second=7, max_open_orders=9
    )
    path = f"{ORDERS}?symbol=BTC%2FUSD&x=%7e"
    answer = await gate.signed(signer, "POST", path, BODY)
    claims = answer.token
    assert key.expires_at is not None
    assert claims["key"] == key.api_key
    assert (claims["sub"], claims["acc"]) == (str(user_id), str(user_id))
    assert claims["scp"] == ["read", "trade"]
    assert (claims["ops"], claims["opn"]) == (7, 9)
    assert claims["sxp"] == int(key.expires_at.timestamp())
    assert "sid" not in claims
    removed = answer.headers["x-envoy-auth-headers-to-remove"].split(",")
    # What the service must not take for a hash of its own, and what nobody behind the edge needs.
    assert {"x-api-key", "x-pincex-signature", "x-pincex-nonce", "x-pincex-timestamp", CONTENT_SHA256} <= set(removed)


async def test_a_signed_grpc_call_keeps_the_hash_of_its_message(gate: GateRig, user_id: int) -> None:
    _, signer = await gate.make_key(user_id)
    for request in (b"\x0a\x06BTCUSD", None):
        answer = await gate.ask(dict(signer.grpc_headers(PLACE, request)), "POST", PLACE, grpc=True)
        assert answer.token["sub"] == str(user_id)
        assert CONTENT_SHA256 not in answer.headers["x-envoy-auth-headers-to-remove"]


@pytest.mark.parametrize("part", ["body", "path", "query", "method"])
@pytest.mark.parametrize("algorithm", [HMAC_SHA256, ED25519])
async def test_a_request_that_is_not_what_was_signed_is_refused(
    gate: GateRig, user_id: int, algorithm: str, part: str
) -> None:
    _, signer = await gate.make_key(user_id, algorithm=algorithm)
    path = f"{ORDERS}?symbol=BTCUSD"
    sent = {"method": "POST", "path": path, "body": BODY}
    other = {"body": BODY + b" ", "path": "/api/v1/orderz?symbol=BTCUSD", "query": f"{path}&a=b", "method": "PUT"}
    headers = signer.rest_headers("POST", path, BODY)
    sent["path" if part == "query" else part] = other[part]
    answer = await gate.ask(headers, str(sent["method"]), str(sent["path"]), bytes(sent["body"]))  # type: ignore[arg-type]
    assert (answer.status, answer.reason) == (401, "SIGNATURE_REFUSED")
    assert answer.metadata["signed"].split("\n")[3:5] == [sent["method"], sent["path"]]
    assert abs(int(answer.metadata["server_time"]) - gate.clock.ms()) < WINDOW_MS


async def test_an_altered_hash_of_a_grpc_message_is_refused_with_a_status(gate: GateRig, user_id: int) -> None:
    _, signer = await gate.make_key(user_id)
    headers = dict(signer.grpc_headers(PLACE, b"one"))
    headers[CONTENT_SHA256] = dict(signer.grpc_headers(PLACE, b"two"))[CONTENT_SHA256]
    answer = await gate.ask(headers, "POST", PLACE, grpc=True)
    assert answer.grpc_error == (16, "SIGNATURE_REFUSED")
    assert b"signature" in answer.body
    for hashed in ("", "STREAM", "ab" * 31):
        headers[CONTENT_SHA256] = hashed
        assert (await gate.ask(headers, "POST", PLACE, grpc=True)).grpc_error == (16, "SIGNATURE_REFUSED")


async def test_an_unknown_key_is_answered_as_a_wrong_signature(gate: GateRig, user_id: int) -> None:
    key, _ = await gate.make_key(user_id)
    now, nonce = gate.clock.ms(), "the-same"
    answers = []
    for api_key in (key.api_key, "ak_" + "0" * 32):
        wrong = HmacSigner(api_key, secrets.token_bytes(32), clock_ms=lambda: now, nonce=lambda: nonce)
        answer = await gate.signed(wrong, "POST", ORDERS, BODY)
        answer.metadata["server_time"] = ""
        answers.append((answer.status, answer.body))
    assert answers[0] == answers[1]
    assert answers[0][0] == 401


async def test_a_key_is_refused_with_the_other_algorithm(gate: GateRig, user_id: int) -> None:
    first, by_hmac = await gate.make_key(user_id)
    second, by_ed25519 = await gate.make_key(user_id, algorithm=ED25519)
    by_hmac.api_key, by_ed25519.api_key = second.api_key, first.api_key
    for signer in (by_hmac, by_ed25519):
        assert (await gate.signed(signer)).reason == "SIGNATURE_REFUSED"


@pytest.mark.parametrize("off_ms", [-WINDOW_MS - 200, WINDOW_MS + 200])
async def test_a_timestamp_outside_the_window_is_refused(gate: GateRig, user_id: int, off_ms: int) -> None:
    _, signer = await gate.make_key(user_id)
    signer.offset_ms = off_ms
    answer = await gate.signed(signer)
    assert (answer.status, answer.reason) == (401, "TIMESTAMP_OUT_OF_WINDOW")
    assert answer.metadata["window_ms"] == str(WINDOW_MS)
    signer.follow(int(answer.metadata["server_time"]))
    assert (await gate.signed(signer)).status == 200


async def test_a_request_counts_once_whichever_instance_gets_it(database: Database, user_id: int) -> None:
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(running_gate(database)) for _ in range(2)]
        _, signer = await first.make_key(user_id)
        for _ in range(5):
            headers = signer.rest_headers("GET", ORDERS)
            asked = [gate.ask(headers) for gate in (first, second) for _ in range(4)]
            answers = await asyncio.gather(*asked)
            assert sorted(answer.status for answer in answers) == [200] + [401] * 7
            assert {answer.reason for answer in answers if answer.status != 200} == {"NONCE_REUSED"}


async def test_crossing_replays_lock_nobody_up(database: Database, user_id: int) -> None:
    async with AsyncExitStack() as stack:
        gates = [await stack.enter_async_context(running_gate(database)) for _ in range(2)]
        _, signer = await gates[0].make_key(user_id)
        requests = [signer.rest_headers("GET", ORDERS) for _ in range(60)]
        orders = [requests, requests[::-1]]
        asked = [gate.ask(headers) for gate, order in zip(gates, orders, strict=True) for headers in order]
        answers = await asyncio.gather(*asked)
    assert [answer.status for answer in answers].count(200) == 60
    assert {answer.status for answer in answers} == {200, 401}


async def test_nonces_are_each_keys_own(gate: GateRig, user_id: int) -> None:
    for _ in range(2):
        _, signer = await gate.make_key(user_id)
        signer._nonce = lambda: "shared"
        assert (await gate.signed(signer)).status == 200


async def test_a_revoked_key_is_dead_within_a_second_everywhere(database: Database, user_id: int) -> None:
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(running_gate(database)) for _ in range(2)]
        key, signer = await first.make_key(user_id)
        for gate in (first, second):
            assert (await gate.signed(signer)).status == 200
        await first.keys.revoke(key.api_key, reason="stolen", by=Standing.STAFF)
        refused = await asyncio.gather(*(gate.until_refused(signer, within_s=1.0) for gate in (first, second)))
        assert {answer.reason for answer in refused} == {"CREDENTIAL_REVOKED"}
        # Who cannot sign learns nothing of it.
        wrong = HmacSigner(key.api_key, secrets.token_bytes(32))
        assert (await first.signed(wrong)).reason == "SIGNATURE_REFUSED"


async def test_the_tokens_of_a_retired_signing_key_are_given_out_no_more(own_gate: GateRig, user_id: int) -> None:
    _, signer = await own_gate.make_key(user_id)
    first = (await own_gate.signed(signer)).headers["authorization"]
    assert (await own_gate.signed(signer)).headers["authorization"] == first
    own_gate.signs.key_id = "its successor"
    assert (await own_gate.signed(signer)).headers["authorization"] != first


async def test_what_was_found_is_not_believed_while_revocations_are_not_followed(
    own_gate: GateRig, user_id: int
) -> None:
    key, signer = await own_gate.make_key(user_id)
    assert (await own_gate.signed(signer)).status == 200
    own_gate.following.cancel()
    await own_gate.keys.revoke(key.api_key, reason="stolen", by=Standing.STAFF)
    assert (await own_gate.until_refused(signer, within_s=1.0)).reason == "CREDENTIAL_REVOKED"


async def test_an_expired_key_is_refused_at_once_and_revoked_soon(own_gate: GateRig, user_id: int) -> None:
    key, signer = await own_gate.make_key(user_id, lives=timedelta(hours=1), cancel_orders_on_revoke=True)
    assert (await own_gate.signed(signer)).status == 200
    own_gate.clock.moved_s += 3_600
    assert (await own_gate.signed(signer)).reason == "CREDENTIAL_REVOKED"
    await own_gate.gate.expire_keys()
    expired = await own_gate.keys.get(key.api_key)
    assert expired.revoked_reason == "expired"
    (entry,) = [each for each in own_gate.recorded.entries if each.credential == f"api-key {key.api_key}"]
    assert entry.action == "api_key.expired"
    assert json.loads(entry.details) == {"user_id": str(user_id), "cancel_orders": True}
    assert await own_gate.gate.expire_keys() == 0


async def test_a_key_of_a_locked_user_is_refused_until_it_is_unlocked(
    gate: GateRig, user_id: int, database: Database
) -> None:
    _, signer = await gate.make_key(user_id)
    assert (await gate.signed(signer)).status == 200
    async with gate.store.transaction() as connection:
        await connection.execute("UPDATE users SET locked_at = now(), lock_scope = 'all' WHERE user_id = $1", user_id)
        await revocations.void_tokens(connection, user_id, "suspicious")
    assert (await gate.until_refused(signer, within_s=1.0)).reason == "ACCOUNT_LOCKED"
    async with gate.store.connection() as connection:
        await connection.execute("UPDATE users SET locked_at = NULL, lock_scope = NULL WHERE user_id = $1", user_id)
    await gate.until_admitted(signer)


async def test_a_lock_of_log_ins_leaves_keys_alone(gate: GateRig, user_id: int) -> None:
    _, signer = await gate.make_key(user_id)
    async with gate.store.connection() as connection:
        await connection.execute("UPDATE users SET locked_at = now(), lock_scope = 'login' WHERE user_id = $1", user_id)
    assert (await gate.signed(signer)).status == 200


@pytest.mark.parametrize(
    ("allowed", "forwarded", "admitted"),
    [
        ("198.51.100.0/24", HERE, True),
        ("198.51.100.0/24", f"{ELSEWHERE}, {HERE}", True),
        ("198.51.100.0/24", ELSEWHERE, False),
        # What a client claims stands before what Envoy saw.
        ("198.51.100.0/24", f"{HERE}, {ELSEWHERE}", False),
        ("198.51.100.0/24", "", False),
        ("198.51.100.0/24", "unknown", False),
        (HERE, f"::ffff:{HERE}", True),
        ("2001:db8::/32", "2001:db8::17", True),
        ("2001:db8::/32", "2001:db9::17", False),
        ("127.0.0.1", "", False),
    ],
)
async def test_only_the_address_that_envoy_saw_counts(
    gate: GateRig, user_id: int, allowed: str, forwarded: str, *, admitted: bool
) -> None:
    _, signer = await gate.make_key(user_id, allowed_addresses=(allowed,))
    answer = await gate.signed(signer, address=forwarded)
    if admitted:
        assert answer.status == 200
    else:
        assert (answer.status, answer.reason) == (403, "ADDRESS_NOT_ALLOWED")


async def test_a_signing_header_that_comes_twice_counts_as_none(gate: GateRig, user_id: int) -> None:
    _, signer = await gate.make_key(user_id)
    for name in signer.rest_headers("GET", ORDERS):
        answer = await gate.ask(signer.rest_headers("GET", ORDERS), again=name)
        assert (answer.status, answer.reason) == (401, "SIGNATURE_REFUSED")


async def test_who_is_not_the_edge_gets_nothing(gate: GateRig, user_id: int) -> None:
    _, signer = await gate.make_key(user_id)
    for proof in ("", "0" * 64, "é"):
        answer = await gate.ask(signer.rest_headers("GET", ORDERS), proof=proof)
        assert (answer.status, answer.reason) == (401, "UNAUTHENTICATED")


async def test_a_key_has_one_token_until_half_of_its_life_is_over(own_gate: GateRig, user_id: int) -> None:
    _, signer = await own_gate.make_key(user_id)
    first = (await own_gate.signed(signer)).token["jti"]
    assert (await own_gate.signed(signer)).token["jti"] == first
    # A key is looked up again now and then; the tests of that are elsewhere.
    own_gate.clock.moved_s += 151
    assert (await own_gate.signed(signer)).token["jti"] != first


async def test_a_token_says_what_its_user_is_now(gate: GateRig, user_id: int) -> None:
    _, signer = await gate.make_key(user_id)
    assert (await gate.signed(signer)).token["tier"] == "standard"
    async with gate.store.transaction() as connection:
        await connection.execute("UPDATE users SET tier = 'institution' WHERE user_id = $1", user_id)
        generation = await revocations.void_tokens(connection, user_id, "another tier")
    deadline = gate.clock.monotonic() + 1.0
    while (claims := (await gate.signed(signer)).token)["tier"] != "institution":
        assert gate.clock.monotonic() < deadline
    assert claims["gen"] == generation


async def test_a_use_is_noted_to_the_minute_and_written_once(gate: GateRig, user_id: int) -> None:
    key, signer = await gate.make_key(user_id)
    assert key.used_at is None
    for _ in range(3):
        await gate.signed(signer)
    await gate.gate.uses.flush()
    used_at = (await gate.keys.get(key.api_key)).used_at
    assert used_at is not None
    assert (used_at.second, used_at.microsecond) == (0, 0)
    with_rows = [event for event in gate.recorded.events if event.kind == "api-key.used"]
    assert [event.credential for event in with_rows] == [f"api-key {key.api_key}"]


async def test_what_the_gate_said_is_counted_by_reason(own_gate: GateRig, user_id: int, subject: str) -> None:
    _, signer = await own_gate.make_key(user_id)
    headers = signer.rest_headers("GET", ORDERS)
    await own_gate.ask(headers)
    await own_gate.ask(headers)
    await own_gate.ask(shown(subject))
    counted = {
        tuple(sample.labels.values()): sample.value
        for metric in own_gate.registry.collect()
        for sample in metric.samples
        if sample.name == "pincex_auth_gate_requests_total"
    }
    assert counted == {("key", "OK"): 1, ("key", "NONCE_REUSED"): 1, ("certificate", "UNAUTHENTICATED"): 1}


async def test_refusals_go_to_the_security_log_with_the_keys_public_id(gate: GateRig, user_id: int) -> None:
    key, signer = await gate.make_key(user_id, allowed_addresses=(ELSEWHERE,))
    headers = signer.rest_headers("GET", ORDERS)
    await gate.ask(headers, path=f"{ORDERS}?token=hidden")
    await gate.signed(signer)
    noted = [(event.kind, event.outcome, event.credential, event.address) for event in gate.recorded.events]
    credential = f"api-key {key.api_key}"
    assert noted == [
        ("signature.refused", "SIGNATURE_REFUSED", credential, HERE),
        ("api-key.refused", "ADDRESS_NOT_ALLOWED", credential, HERE),
    ]
    assert "hidden" not in repr(gate.recorded.events)
    assert headers["x-pincex-signature"] not in repr(gate.recorded.events)


async def test_each_use_is_a_line_of_the_log_without_what_was_signed_with(
    gate: GateRig, user_id: int, capsys: pytest.CaptureFixture[str]
) -> None:
    key, signer = await gate.make_key(user_id)
    headers = signer.rest_headers("GET", ORDERS)
    await gate.ask(headers)
    await gate.ask(headers)
    await gate.ask({**headers, "x-api-key": "c2VjcmV0LWluLXRoZS13cm9uZy1wbGFjZQ=="})
    lines = [line for line in capsys.readouterr().out.splitlines() if "api key" in line]
    assert [key.api_key in line for line in lines] == [True, True, False]
    assert "NONCE_REUSED" in lines[1]
    for line in lines:
        assert "c2VjcmV0" not in line
        assert headers["x-pincex-signature"] not in line
        assert headers["x-pincex-nonce"] not in line


@pytest.fixture
def subject(user_id: int) -> str:
    """The name of a certificate."""
    return f"spiffe://pincex/client/desk-{user_id}"


def shown(uri: str) -> dict[str, str]:
    return {"x-forwarded-client-cert": f'Hash={"a" * 64};Subject="CN=desk-1,O=Fund";URI={uri};DNS=desk'}


async def test_an_allowed_certificate_gets_the_token_of_its_account(gate: GateRig, user_id: int, subject: str) -> None:
    certificates = Certificates(gate.store)
    await certificates.allow(subject, str(user_id), ("read", "trade"), by=Standing.OPERATOR)
    for grpc in (False, True):
        claims = (await gate.ask(shown(subject), "POST", PLACE, grpc=grpc)).token
        assert (claims["crt"], claims["acc"], claims["scp"]) == (subject, str(user_id), ["read", "trade"])
    await certificates.remove(subject, "left", by=Standing.OPERATOR)
    deadline = gate.clock.monotonic() + 1.0
    while (answer := await gate.ask(shown(subject))).status == 200:
        assert gate.clock.monotonic() < deadline
    assert (answer.status, answer.reason) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    "forwarded",
    [
        "",
        "Hash=abc",
        "URI=https://example.com",
        "URI={subject};URI=spiffe://pincex/client/other",
        "URI={subject},Hash=abc",
        'Subject="CN=x;URI={subject}"',
    ],
)
async def test_a_certificate_without_one_allowed_name_is_refused(
    gate: GateRig, user_id: int, subject: str, forwarded: str
) -> None:
    await Certificates(gate.store).allow(subject, str(user_id), ("read",), by=Standing.OPERATOR)
    answer = await gate.ask({"x-forwarded-client-cert": forwarded.format(subject=subject)})
    assert (answer.status, answer.reason) == (401, "UNAUTHENTICATED")


async def test_a_certificate_of_a_locked_user_is_refused(gate: GateRig, user_id: int, subject: str) -> None:
    await Certificates(gate.store).allow(subject, str(user_id), ("read",), by=Standing.OPERATOR)
    async with gate.store.connection() as connection:
        await connection.execute("UPDATE users SET locked_at = now(), lock_scope = 'all' WHERE user_id = $1", user_id)
    assert (await gate.ask(shown(subject))).reason == "ACCOUNT_LOCKED"


async def test_who_brings_a_token_over_mtls_keeps_it(gate: GateRig, subject: str) -> None:
    answer = await gate.ask({**shown(subject), "authorization": "Bearer of-a-log-in"})
    assert answer.status == 200
    assert "authorization" not in answer.headers


async def test_the_gate_says_whether_it_is_ready(own_gate: GateRig) -> None:
    async def state() -> int:
        async with own_gate.http.get(f"http://127.0.0.1:{own_gate.gate.port}/readyz") as answer:
            return answer.status

    assert await state() == 200
    own_gate.following.cancel()
    own_gate.clock.moved_s += 60
    assert await state() == 503


async def test_a_body_that_is_compressed_is_signed_as_it_is_sent(gate: GateRig, user_id: int) -> None:
    import gzip

    _, signer = await gate.make_key(user_id)
    body = gzip.compress(BODY)
    headers = {**signer.rest_headers("POST", ORDERS, body), "content-encoding": "gzip"}
    assert (await gate.ask(headers, "POST", ORDERS, body)).status == 200


async def test_a_body_at_the_edges_limit_is_taken_and_one_beyond_is_not(gate: GateRig, user_id: int) -> None:
    _, signer = await gate.make_key(user_id)
    assert (await gate.signed(signer, "POST", ORDERS, bytes(1 << 20))).status == 200
    assert (await gate.signed(signer, "POST", ORDERS, bytes((1 << 20) + 1))).reason == "BODY_TOO_LARGE"

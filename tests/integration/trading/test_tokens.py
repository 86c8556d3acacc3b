"""The engine knows its callers by token alone, on every method, whatever stands in front of it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psycopg
import pytest

from exchange.runtime.clock import SystemClock
from exchange.runtime.config import Secret
from exchange.runtime.errors import ErrorReason
from exchange.runtime.identity.service_token import ServiceTokens
from pincex.trading.v1 import (
    account_service_pb2,
    admin_replicas_pb2,
    admin_service_pb2,
    order_commands_pb2,
    order_service_pb2,
)
from tests.identity_fixture import Issuer, SigningKey, bearer
from tests.integration.trading.engine_app import (
    BUY,
    DEADLINE_S,
    ENVIRONMENT,
    eventually,
    placing,
    refusal_of,
    refused,
    running_exchange,
)
from tests.integration.trading.identity_app import GuardedExchange, TokenClient, guarded_exchange
from tests.integration.trading.session_client import Session, buying, cancelling, reducing, replacing
from tests.postgres_fixture import Database

ORDERS = "/pincex.trading.v1.OrderService/ListOrders"


@pytest.fixture
async def guarded(monkeypatch: pytest.MonkeyPatch, database: Database) -> AsyncIterator[GuardedExchange]:
    async with guarded_exchange(monkeypatch, Issuer(database.auth_url), database.trading_url) as found:
        yield found


async def answer(channel: Any, path: str, *metadata: tuple[str, str]) -> str:
    """The reason for which an empty call is refused, OK where it is answered; whatever kind of method it is."""
    call = channel.unary_stream(path)(b"", metadata=metadata, timeout=DEADLINE_S)
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        return refusal_of(error).reason
    return "OK"


async def test_without_a_token_nothing_but_what_is_public_answers(guarded):
    app = guarded.app
    tried = 0
    for server, channel in ((app.public, guarded.exchange.public), (app.ops, guarded.exchange.ops)):
        for path in server._handlers:
            service, _, _ = path[1:].rpartition("/")
            if service.startswith("grpc.") or service.endswith(("MarketService", "HealthService", "ReplicaService")):
                continue
            assert await answer(channel, path) == "UNAUTHENTICATED", path
            assert await answer(channel, path, ("x-pincex-account", "demo")) == "UNAUTHENTICATED", path
            tried += 1
    assert tried > 50


async def test_tokens_of_others_and_forgeries_are_refused_over_the_wire(guarded):
    issuer, channel = guarded.issuer, guarded.exchange.public
    other = SigningKey()
    cases = {
        issuer.token(): "OK",
        issuer.token(expires_in_s=-60): "TOKEN_EXPIRED",
        issuer.token(aud="somebody"): "TOKEN_REFUSED",
        issuer.token(iss="somebody"): "TOKEN_REFUSED",
        issuer.sign(issuer.claims(), other): "TOKEN_REFUSED",
        issuer.sign(issuer.claims(), SigningKey(issuer.key.key_id, other.private)): "TOKEN_REFUSED",
        issuer.token()[:-2]: "TOKEN_REFUSED",
        "": "TOKEN_REFUSED",
        issuer.token(scopes=("trade",)): "SCOPE_MISSING",
    }
    for token, expected in cases.items():
        assert await answer(channel, ORDERS, ("authorization", f"Bearer {token}")) == expected
    assert await answer(channel, ORDERS, ("authorization", "Basic YTpi")) == "TOKEN_REFUSED"
    assert await answer(channel, ORDERS, *bearer(issuer.token()), *bearer(issuer.token())) == "TOKEN_REFUSED"
    assert await answer(channel, ORDERS, ("x-api-key", "ak_1"), ("x-pincex-account", "demo")) == "UNAUTHENTICATED"


async def test_a_token_of_a_retired_key_is_good_until_it_expires_and_one_of_the_new_key_at_once(guarded):
    old = guarded.issuer.token("100001")
    guarded.issuer.rotate()
    new = guarded.issuer.token("100002")
    deadline = time.monotonic() + DEADLINE_S
    # Asked for because it is unknown; but no more than once a second, and they were read just now.
    while await answer(guarded.exchange.public, ORDERS, *bearer(new)) != "OK":
        assert time.monotonic() < deadline
    assert new.split(".")[0] != old.split(".")[0]
    for token in (new, old):
        assert await answer(guarded.exchange.public, ORDERS, *bearer(token)) == "OK"
    await guarded.app.identity.keys.refresh()
    assert await answer(guarded.exchange.public, ORDERS, *bearer(old)) == "OK"


async def test_roles_of_staff_count_with_the_scope_admin_on_the_ops_port(guarded):
    issuer, ops = guarded.issuer, guarded.exchange.ops
    read = "/pincex.trading.v1.TradingAdminService/GetEngineState"
    act = "/pincex.trading.v1.TradingAdminService/MassCancel"
    assert await answer(ops, read, *bearer(issuer.token())) == "PERMISSION_DENIED"
    assert await answer(ops, read, *bearer(issuer.token(roles=("operator",)))) == "PERMISSION_DENIED"
    assert await answer(ops, read, *bearer(issuer.staff_token("auditor"))) == "OK"
    assert await answer(ops, act, *bearer(issuer.staff_token("auditor"))) == "PERMISSION_DENIED"
    assert await answer(ops, act, *bearer(issuer.staff_token("operator"))) == "FIELD_REQUIRED"
    assert await answer(ops, act, *bearer(issuer.staff_token("admin"))) == "FIELD_REQUIRED"


async def test_another_service_is_known_on_the_ops_port_by_the_shared_secret_alone(guarded):
    read = "/pincex.trading.v1.TradingAdminService/GetEngineState"
    good = ServiceTokens(Secret(ENVIRONMENT["JWT_SECRET"]), SystemClock()).mint("auth-service")
    other = ServiceTokens(Secret("another secret"), SystemClock()).mint("auth-service")
    assert await answer(guarded.exchange.ops, read, ("x-pincex-service", good)) == "OK"
    assert await answer(guarded.exchange.ops, read, ("x-pincex-service", other)) == "TOKEN_REFUSED"
    assert await answer(guarded.exchange.public, ORDERS, ("x-pincex-service", good)) == "TOKEN_REFUSED"


@pytest.mark.parametrize("credential", ["token", "service"])
async def test_who_asks_a_follower_for_what_the_leader_does_is_known_there_too(
    guarded, monkeypatch, database, credential
):
    service = ServiceTokens(Secret(ENVIRONMENT["JWT_SECRET"]), SystemClock()).mint("admin")
    metadata = {"token": bearer(guarded.operator.token), "service": (("x-pincex-service", service),)}[credential]
    follower = guarded_exchange(
        monkeypatch, guarded.issuer, database.trading_url, store=guarded.exchange.store, PINCEX_INSTANCE="another"
    )
    async with follower as asked:
        request = admin_replicas_pb2.HandOverLeadershipRequest(reason="a test")
        given = await asked.operator.admin.HandOverLeadership(request, metadata=metadata, timeout=DEADLINE_S)
        assert given.instance == "engine-under-test"
        assert asked.app.desk.sequencer is not None


async def test_an_audited_call_is_in_the_table_with_who_and_why(guarded, database):
    request = admin_service_pb2.MassCancelRequest(account="100001", reason="he asked", request_id="mc-1")
    metadata = (*bearer(guarded.issuer.staff_token("operator", user="100777")), ("x-request-id", "req-7"))
    await guarded.operator.admin.MassCancel(request, metadata=metadata, timeout=DEADLINE_S)
    rows: list[Any] = []

    def recorded() -> bool:
        with psycopg.connect(database.admin_url) as connection:
            rows[:] = connection.execute(
                "SELECT phase, actor, credential, address, details, reason, outcome FROM audit_records "
                "WHERE request_id = 'req-7' ORDER BY sequence"
            ).fetchall()
        return len(rows) == 2

    await eventually(recorded, "both records are stored")
    assert [(row[0], row[6]) for row in rows] == [("BEGUN", ""), ("ENDED", "OK")]
    _, actor, credential, address, details, reason, _ = rows[0]
    assert (actor, credential, address, reason) == ("100777", "token", "127.0.0.1", "he asked")
    shown = json.loads(details) if isinstance(details, str) else details
    assert shown["account"] == "100001"


async def test_a_foreign_order_is_not_found_whatever_is_asked_of_it(guarded):
    alice, bob = await guarded.user("100001"), await guarded.user("100002")
    hers = await alice.buy("1", "49000", client_order_id="hers")
    assert hers.account == "100001"
    by_id = {"order_id": hers.order_id}
    unary = {
        bob.orders.GetOrder: order_service_pb2.GetOrderRequest(**by_id),
        bob.orders.GetOrderByClientOrderId: order_service_pb2.GetOrderByClientOrderIdRequest(client_order_id="hers"),
        bob.orders.CancelOrder: order_commands_pb2.CancelOrderRequest(**by_id),
        bob.orders.ReplaceOrder: order_commands_pb2.ReplaceOrderRequest(**by_id, price="49001", quantity="1"),
        bob.orders.ReduceOrder: order_commands_pb2.ReduceOrderRequest(**by_id, quantity="0.5"),
    }
    for method, request in unary.items():
        assert (await refused(bob.ask(method, request))).reason == "ORDER_NOT_FOUND"
    session = await Session.open(bob)
    commands = [
        cancelling(**by_id),
        cancelling(client_order_id="hers"),
        replacing(**by_id, price="49001", quantity="1"),
        reducing(**by_id, quantity="0.5"),
    ]
    results = await session.run(1, *commands)
    assert [result.reason for result in results] == [ErrorReason.ORDER_NOT_FOUND] * len(commands)
    assert await bob.listed() == []
    await bob.ask(bob.orders.CancelAllOrders, order_commands_pb2.CancelAllOrdersRequest())
    assert (await alice.get(hers.order_id)).open_quantity == hers.open_quantity
    assert (await alice.cancel(hers.order_id)).account == "100001"
    assert "BTC" in await bob.balances()


async def test_a_sub_account_is_another_account_of_the_same_user(guarded):
    main = await guarded.user("100001")
    order = await main.buy("1", "49000")
    other = guarded.client(guarded.issuer.token("100001", account="100001.bot"))
    assert (await refused(other.get(order.order_id))).reason == "ORDER_NOT_FOUND"
    assert await other.balances() == {}


async def test_what_a_token_opened_goes_on_when_the_token_has_expired(guarded):
    """Within the leeway when it begins, so that it expires at once."""
    client = await guarded.user("100001")
    client.token = guarded.issuer.token("100001", expires_in_s=-3)
    session = await Session.open(client)
    events = client.stream(client.orders.StreamOrderEvents, order_service_pb2.StreamOrderEventsRequest())
    await events.next()
    expired = ""
    deadline = time.monotonic() + DEADLINE_S
    while expired != "TOKEN_EXPIRED" and time.monotonic() < deadline:
        expired = await answer(guarded.exchange.public, ORDERS, *bearer(client.token))
    assert expired == "TOKEN_EXPIRED"
    await session.run(1, buying("0.5", "49000", client_order_id="later"))
    await events.until(lambda event: "later" in str(event))
    assert (await refused(client.buy("1", "49000"))).reason == "TOKEN_EXPIRED"


async def test_oversized_metadata_is_refused_and_harms_nobody(guarded):
    token = guarded.issuer.token()
    for size in (4_097, 12_000):
        assert await answer(guarded.exchange.public, ORDERS, *bearer("a" * size)) == "TOKEN_REFUSED"
    call = guarded.exchange.public.unary_unary(ORDERS)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", metadata=(*bearer(token), ("x-junk", "j" * 64_000)), timeout=DEADLINE_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await answer(guarded.exchange.public, ORDERS, *bearer(token)) == "OK"


async def test_an_exchange_in_memory_says_that_it_takes_no_tokens(monkeypatch):
    async with running_exchange(monkeypatch) as exchange:
        client = TokenClient(exchange.public, "a.b.c")
        refusal = await refused(client.ask(client.orders.PlaceOrder, placing(BUY, "1", "49000")))
        assert refusal.reason == "TOKEN_REFUSED"
        assert "memory" in refusal.message
        credit = account_service_pb2.CreditAccountRequest(account="demo", asset="USD", amount="1", request_id="c-1")
        denied = await refused(exchange.demo.ask(exchange.demo.accounts.CreditAccount, credit))
        assert denied.reason == "PERMISSION_DENIED"

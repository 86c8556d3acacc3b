"""What was revoked is over within a second, on every connection; and where that cannot be known, nobody is let in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from exchange.runtime import open_calls
from exchange.runtime.identity import revocations as revocations_module
from exchange.trading import revoked_orders
from pincex.trading.v1 import account_service_pb2, order_service_pb2, types_pb2
from tests.identity_fixture import Issuer
from tests.integration.journal.proxy import Cut, CuttingProxy
from tests.integration.trading.engine_app import Stream, eventually, refused
from tests.integration.trading.identity_app import GuardedExchange, TokenClient, guarded_exchange
from tests.integration.trading.session_client import Session
from tests.postgres_fixture import Database

DEADLINE_S = 5.0
KEY = "ak_" + "k" * 32


@pytest.fixture
def issuer(database: Database) -> Issuer:
    return Issuer(database.auth_url)


@pytest.fixture
async def guarded(
    monkeypatch: pytest.MonkeyPatch, issuer: Issuer, database: Database
) -> AsyncIterator[GuardedExchange]:
    async with guarded_exchange(monkeypatch, issuer, database.trading_url) as found:
        yield found


async def opened(client: TokenClient, name: str) -> list[Stream]:
    """Every kind of stream that a user may have open."""
    session = await Session.open(client, name)
    events = client.stream(client.orders.StreamOrderEvents, order_service_pb2.StreamOrderEventsRequest())
    balances = client.stream(client.accounts.StreamBalances, account_service_pb2.StreamBalancesRequest())
    await events.next()
    await balances.next()
    return [session.stream, events, balances]


async def end_of(stream: Stream) -> str:
    """The reason for which a stream ends."""

    async def to_the_end() -> None:
        while True:
            await stream.next()

    return (await asyncio.wait_for(refused(to_the_end()), DEADLINE_S)).reason


def test_what_is_revoked_is_known_well_within_a_second():
    assert revocations_module.POLL_S + open_calls.SWEEP_S <= 0.5


@pytest.mark.parametrize("kind", ["session", "api_key", "user"])
async def test_streams_of_a_revoked_credential_end_and_no_others(guarded, kind):
    """In 0.45 s at most, by `test_what_is_revoked_is_known_well_within_a_second`, and what a busy machine adds."""
    issuer = guarded.issuer
    of_key: dict[str, Any] = {"api_key": KEY} if kind == "api_key" else {}
    revoked = await guarded.user("100001", **of_key)
    # Of the same user, but for a user's revocation of another.
    other = guarded.client(issuer.token("100002" if kind == "user" else "100001", session="other"))
    doomed, safe = await opened(revoked, "doomed"), await opened(other, "safe")

    subject = {"session": issuer.session_of("100001"), "api_key": KEY, "user": "100001"}[kind]
    began = time.perf_counter()
    issuer.revoke(kind, subject, generation=2 if kind == "user" else 0)
    reasons = await asyncio.gather(*(end_of(stream) for stream in doomed))
    took = time.perf_counter() - began

    assert reasons == ["CREDENTIAL_REVOKED"] * 3
    print(f"streams of a revoked {kind} ended after {took:.3f} s")
    assert (await refused(revoked.balances())).reason == "CREDENTIAL_REVOKED"
    # No more than a read: a client's first message may come too late to be sent.
    again = revoked.stream(revoked.orders.OrderSession)
    assert await end_of(again) == "CREDENTIAL_REVOKED"
    assert [stream.call.done() for stream in safe] == [False] * 3
    await other.balances()
    if kind == "user":
        revoked.token = issuer.token("100001", gen=2)
        await revoked.balances()


async def test_without_its_database_the_engine_takes_no_tokens_after_a_while_and_again_once_it_is_back(
    monkeypatch, issuer, database
):
    monkeypatch.setattr(revocations_module, "STALE_AFTER_S", 0.8)
    proxy = CuttingProxy(database.trading_url)
    async with proxy.running(), guarded_exchange(monkeypatch, issuer, proxy.url) as guarded:
        client = guarded.client(issuer.token("100001"))
        stream = client.stream(client.accounts.StreamBalances, account_service_pb2.StreamBalancesRequest())
        await stream.next()
        proxy.watched, proxy.cut = b"asyncpg_stmt", Cut.BEFORE_SERVER
        await asyncio.wait_for(proxy.was_cut.wait(), DEADLINE_S)
        # Taken still: a second or two without the database is a fail-over.
        await client.balances()

        assert await end_of(stream) == "AUTH_UNAVAILABLE"
        refusal = await refused(client.balances())
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "AUTH_UNAVAILABLE")
        assert "RetryInfo" in str(refusal.details)
        assert guarded.app._ready().ready
        # What was revoked meanwhile is known before anybody is let in again.
        issuer.revoke("session", "gone")
        proxy.open.set()
        revocations = guarded.app.identity.revocations
        assert revocations is not None
        await eventually(revocations.is_current, "revocations are followed again")
        await client.balances()
        gone = guarded.client(issuer.token("100001", session="gone"))
        assert (await refused(gone.balances())).reason == "CREDENTIAL_REVOKED"


async def status(client: TokenClient, order: types_pb2.Order) -> tuple[int, int]:
    found = await client.get(order.order_id)
    return found.status, found.cancel_reason


CANCELLED = (types_pb2.CANCELLED, types_pb2.OPERATOR)
PENDING = (types_pb2.PENDING, types_pb2.CANCEL_REASON_UNSPECIFIED)


async def test_orders_of_a_revoked_key_are_cancelled_where_it_says_so_and_only_its_own(guarded):
    issuer = guarded.issuer
    owner = await guarded.user("100001")
    by_key = guarded.client(issuer.token("100001", api_key=KEY))
    by_other_key = guarded.client(issuer.token("100001", api_key="ak_" + "o" * 32))
    keyed = await by_key.buy("0.1", "49000")
    others = [await owner.buy("0.1", "49000"), await by_other_key.buy("0.1", "49000")]

    issuer.revoke("api_key", "ak_" + "x" * 32, accounts=("100001",), cancel_orders=True)
    issuer.revoke("api_key", KEY, accounts=("100001",), cancel_orders=False)
    assert await settled(guarded, 2)
    assert await status(owner, keyed) == PENDING

    issuer.revoke("api_key", KEY, accounts=("100001",), cancel_orders=True)
    await cancelled(owner, keyed)
    for order in others:
        assert await status(owner, order) == PENDING


async def test_orders_of_a_revoked_user_are_cancelled_on_all_its_accounts(guarded):
    issuer = guarded.issuer
    owner = await guarded.user("100001")
    sub = await guarded.user("100001.bot")
    sub.token = issuer.token("100001", account="100001.bot")
    somebody = await guarded.user("100002")
    orders = [await owner.buy("0.1", "49000"), await sub.buy("0.1", "49000"), await somebody.buy("0.1", "49000")]
    issuer.revoke("user", "100001", generation=2, accounts=("100001", "100001.bot"), cancel_orders=True)
    owner.token = issuer.token("100001", gen=2)
    sub.token = issuer.token("100001", account="100001.bot", gen=2)
    await cancelled(owner, orders[0])
    await cancelled(sub, orders[1])
    assert await status(somebody, orders[2]) == PENDING


async def test_orders_that_another_instance_took_meanwhile_are_cancelled_too(guarded, monkeypatch):
    monkeypatch.setattr(revoked_orders, "AGAIN_BY_KEY_S", 0.5)
    issuer = guarded.issuer
    owner = await guarded.user("100001")
    by_key = guarded.client(issuer.token("100001", api_key=KEY))
    first = await by_key.buy("0.1", "49000")
    # An instance that has not heard yet: this one is made deaf to the revocation, as a caller's standing goes.
    monkeypatch.setattr(guarded.app.identity.revocations, "is_void", lambda _principal: False)
    issuer.revoke("api_key", KEY, accounts=("100001",), cancel_orders=True)
    await cancelled(owner, first)
    second = await by_key.buy("0.1", "49000")
    await cancelled(owner, second)


async def test_a_new_leader_cancels_what_was_revoked_before_it_led_and_nothing_twice(guarded):
    issuer = guarded.issuer
    owner = await guarded.user("100001")
    order = await owner.buy("0.1", "49000")
    issuer.revoke("session", "gone", accounts=("100001",), cancel_orders=True)
    await cancelled(owner, order)
    asked = guarded.app.desk.state.accounts[revoked_orders.OPERATOR].requests
    await eventually(lambda: "revocation-1.again" in asked, "the second round is through")
    later = await owner.buy("0.1", "49000")
    await guarded.exchange.lead_again()
    # It has gone through all of them again once a revocation that comes after them is done.
    marker = await guarded.user("100002")
    marked = await marker.buy("0.1", "49000")
    issuer.revoke("session", "other", accounts=("100002",), cancel_orders=True)
    await cancelled(marker, marked)
    assert await status(owner, later) == PENDING


async def settled(guarded: GuardedExchange, sequence: int) -> bool:
    """Return once the engine knows of revocations up to this one."""
    revocations = guarded.app.identity.revocations
    assert revocations is not None
    await eventually(lambda: revocations.sequence >= sequence, "it knows")
    return True


async def cancelled(client: TokenClient, order: types_pb2.Order) -> None:
    """Return once the engine has cancelled the order; fail if it does not."""
    deadline = time.monotonic() + DEADLINE_S
    while await status(client, order) != CANCELLED:
        assert time.monotonic() < deadline, "the order is open still"
        await asyncio.sleep(0.01)

"""Limits of accounts and API keys over gRPC: rates, open orders, GetLimits, whose an order is, and who is busy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from exchange.runtime.clock import ManualClock
from exchange.runtime.identity.identity import Identity
from exchange.runtime.principal import ALL_SCOPES, Principal, PrincipalResolver
from pincex.common.v1.errors_pb2 import ErrorReason
from pincex.journal.v1 import event_service_pb2
from pincex.trading.v1 import account_service_pb2, admin_service_pb2, order_commands_pb2, order_service_pb2
from tests.integration.trading.engine_app import (
    BUY,
    Client,
    Exchange,
    behind_a_follower,
    placing,
    refused,
    running_exchange,
)
from tests.integration.trading.session_client import Session, buying, cancelling, replacing

ACCOUNT = "100001"


def caller(tier: str, account: str = ACCOUNT, **more: Any) -> Principal:
    return Principal(account, frozenset({"trader"}), "token", ALL_SCOPES, tier=tier, **more)


CALLERS = {
    "person": caller("standard"),
    "professional": caller("professional", "100002"),
    "slow": caller("standard", api_key="ak_slow", max_orders_per_second=3),
    "narrow": caller("standard", api_key="ak_narrow", max_open_orders=2),
    "narrow-rotated": caller("standard", api_key="ak_rotated", max_open_orders=2),
    "maker-bot": caller("market_maker", "maker", api_key="ak_maker"),
}
"""Who calls where `x-pincex-account` says one of these; others are development principals."""


class Named:
    """Lets the callers above in, and all others as the resolver that it stands before."""

    def __init__(self, behind: Any) -> None:
        self._behind = behind

    def resolve(self, peer: str, metadata: Any) -> Any:
        found = CALLERS.get(str(dict(metadata).get("x-pincex-account", "")))
        return found or self._behind.resolve(peer, metadata)

    def why_void(self, principal: Principal) -> Any:
        return None if principal in CALLERS.values() else self._behind.why_void(principal)


@pytest.fixture
async def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Exchange]:
    """With callers of every tier, and rates that a test's own clock decides."""
    make = Identity.resolver

    def resolver(identity: Identity, *, operator: bool) -> PrincipalResolver:
        return Named(make(identity, operator=operator))

    monkeypatch.setattr(Identity, "resolver", resolver)
    async with running_exchange(monkeypatch) as found:
        found.app.rates._clock = ManualClock()
        for account in (ACCOUNT, "100002"):
            await found.credit(account, "USD", "100000000")
            await found.credit(account, "BTC", "1000")
        yield found


def limited(exchange: Exchange, name: str) -> Client:
    return exchange.client(name)


async def limits(client: Client) -> account_service_pb2.Limits:
    found: account_service_pb2.Limits = await client.ask(
        client.accounts.GetLimits, account_service_pb2.GetLimitsRequest()
    )
    return found


def pass_time(exchange: Exchange, seconds: float) -> None:
    clock = exchange.app.rates._clock
    assert isinstance(clock, ManualClock)
    clock.advance(seconds)


async def use_up(exchange: Exchange, name: str) -> None:
    """Send orders until none is left; the last ones are of unknown symbols, which count for nothing."""
    client = limited(exchange, name)
    session = await Session.open(client, f"use-up-{name}")
    left = (await limits(client)).orders_left
    results = await session.run(1, *[buying("0.01", "40000")] * left)
    assert all(not result.reason for result in results)
    await session.run(left + 1, *[cancelling(order_id=result.order_id) for result in results])
    await session.close()


async def test_the_order_beyond_the_rate_is_refused_with_whose_limit_it_is_and_when_to_come_again(
    exchange: Exchange,
) -> None:
    slow = limited(exchange, "slow")
    for _ in range(6):
        await slow.buy("0.01", "40000")
    before = exchange.engine.state.sequence
    with pytest.raises(grpc.RpcError) as caught:
        await slow.buy("0.01", "40000")

    assert exchange.engine.state.sequence == before, "nothing was queued"
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info, quota, retry = error_details_pb2.ErrorInfo(), error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
    assert [detail.Unpack(kind) for detail, kind in zip(status.details, (info, quota, retry), strict=True)] == [
        True
    ] * 3
    assert (info.reason, dict(info.metadata)) == ("QUOTA_EXCEEDED", {"limit": "orders_per_second"})
    assert [violation.subject for violation in quota.violations] == ["api-key:ak_slow"]
    assert retry.retry_delay.ToNanoseconds() == pytest.approx(1e9 / 3, rel=1e-3)
    pass_time(exchange, retry.retry_delay.ToNanoseconds() / 1e9)
    await slow.buy("0.01", "40000")


async def test_an_account_is_refused_whatever_it_is_reached_by(exchange: Exchange) -> None:
    await use_up(exchange, "person")
    for name in ("person", "narrow", "slow"):
        refusal = await refused(limited(exchange, name).buy("0.01", "40000"))
        assert (refusal.code, refusal.reason, refusal.details) == (
            "RESOURCE_EXHAUSTED",
            "QUOTA_EXCEEDED",
            ("QuotaFailure", "RetryInfo"),
        )
        assert "account 100001 may send 50 new orders a second" in refusal.message
    await limited(exchange, "professional").buy("0.01", "40000")
    await exchange.demo.buy("0.01", "40000")


async def test_replacements_count_and_cancels_and_reductions_do_not(exchange: Exchange) -> None:
    person = limited(exchange, "person")
    orders = [await person.buy("0.02", "40000") for _ in range(3)]
    change = order_commands_pb2.ReplaceOrderRequest(order_id=orders[0].order_id, quantity="0.01", price="40000")
    await person.ask(person.orders.ReplaceOrder, change)
    assert (await limits(person)).orders_left == 96
    await use_up(exchange, "person")

    assert (await refused(person.ask(person.orders.ReplaceOrder, change))).reason == "QUOTA_EXCEEDED"
    less = order_commands_pb2.ReduceOrderRequest(order_id=orders[1].order_id, quantity="0.01")
    assert (await person.ask(person.orders.ReduceOrder, less)).open_quantity == "0.01000"
    assert (await person.cancel(orders[0].order_id)).cancel_reason
    everything = order_commands_pb2.CancelAllOrdersRequest()
    assert (await person.ask(person.orders.CancelAllOrders, everything)).cancelled_count == 2


async def test_what_was_refused_for_its_form_does_not_count(exchange: Exchange) -> None:
    person = limited(exchange, "person")
    for bad in ({"symbol": "NOSUCH"}, {"price": "1.001"}, {"quantity": "0"}):
        fields = {"quantity": "1", "price": "40000", **bad}
        await refused(person.ask(person.orders.PlaceOrder, placing(BUY, **fields)))
    assert (await limits(person)).orders_left == 100


async def test_a_session_goes_on_behind_orders_beyond_the_rate(exchange: Exchange) -> None:
    session = await Session.open(limited(exchange, "slow"))
    results = await session.run(1, *[buying("0.01", "40000")] * 8, cancelling(order_id="1"))
    assert [result.reason for result in results[:6]] == [0] * 6
    assert [result.message.split(" may send")[0] for result in results[6:8]] == ["api key ak_slow"] * 2
    names = [reason_name(result) for result in results]
    assert names[6:] == ["QUOTA_EXCEEDED", "QUOTA_EXCEEDED", "ORDER_NOT_FOUND"]

    pass_time(exchange, 1.0)
    later = await session.run(
        10,
        *[replacing(order_id=results[0].order_id, quantity="0.02", price="40000")] * 4,
        cancelling(order_id=results[1].order_id),
    )
    assert [reason_name(result) for result in later] == ["", "", "", "QUOTA_EXCEEDED", ""]
    await session.close()


async def test_an_order_that_was_beyond_the_rate_comes_again_and_never_behind_its_back(exchange: Exchange) -> None:
    """Its old number is good until a later one was applied, whichever instance the session is attached to."""
    session = await Session.open(limited(exchange, "slow"))
    orders = [buying("0.01", f"{40000 + step}") for step in range(8)]
    results = await session.run(1, *orders)
    assert [reason_name(result) for result in results] == [""] * 6 + ["QUOTA_EXCEEDED"] * 2
    pass_time(exchange, 1.0)
    # 7 was not applied, nor anything after it: the place to go on is its own.
    again = await Session.open(limited(exchange, "slow"))
    assert again.opened.last_number == 6
    (late,) = await again.run(7, orders[6])
    assert late.order_id

    cancel = cancelling(order_id=results[0].order_id)
    beyond = await again.run(8, orders[7], orders[7], orders[7], cancel)
    assert [reason_name(result) for result in beyond] == ["", "", "QUOTA_EXCEEDED", ""]
    pass_time(exchange, 1.0)
    before = len(await exchange.client("slow").listed())
    third = await Session.open(limited(exchange, "slow"))
    assert third.opened.last_number == 11
    repeated = await third.run(8, orders[7], orders[7], orders[7], cancel, buying("0.01", "39000"))
    assert [reason_name(result) for result in repeated] == ["", "", "COMMAND_NUMBER_USED", "", ""]
    assert repeated[:2] == beyond[:2]
    assert len(await exchange.client("slow").listed()) == before + 1
    assert reason_name((await third.run(1, orders[1]))[0]) == "DUPLICATE_ID"


def reason_name(result: Any) -> str:
    return ErrorReason.Name(result.reason) if result.reason else ""


async def test_a_batch_takes_what_there_is_room_for(exchange: Exchange) -> None:
    slow = limited(exchange, "slow")
    request = order_service_pb2.BatchPlaceOrdersRequest(orders=[placing(BUY, "0.01", "40000")] * 9)
    response = await slow.ask(slow.orders.BatchPlaceOrders, request)
    assert [reason_name(result) for result in response.results] == [""] * 6 + ["QUOTA_EXCEEDED"] * 3
    assert len(await slow.listed()) == 6


async def test_a_repeat_gets_its_first_answer_beyond_the_rate_too(exchange: Exchange) -> None:
    slow = limited(exchange, "slow")
    first = await slow.buy("0.01", "40000", client_order_id="again")
    session = await Session.open(slow)
    placed = await session.run(1, *[buying("0.01", "40000")] * 5)
    assert (await limits(slow)).orders_left == 0

    assert await slow.buy("0.01", "40000", client_order_id="again") == first
    assert await session.run(1, *[buying("0.01", "40000")] * 5) == placed
    assert (await refused(slow.buy("0.01", "40000", client_order_id="new"))).reason == "QUOTA_EXCEEDED"


async def test_an_order_says_which_key_placed_it(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, person = limited(exchange, "narrow"), limited(exchange, "person")
    placed = await narrow.buy("0.01", "40000", client_order_id="k")
    session = await Session.open(narrow)
    in_session = (await session.run(1, buying("0.01", "40000")))[0]
    by_hand = await person.buy("0.01", "40000")

    assert placed.api_key == "ak_narrow"
    assert by_hand.api_key == ""
    keys = {order.order_id: order.api_key for order in await person.listed()}
    assert keys == {placed.order_id: "ak_narrow", in_session.order_id: "ak_narrow", by_hand.order_id: ""}
    events = exchange.operator.stream(
        exchange.operator.events.StreamEvents,
        event_service_pb2.StreamEventsRequest(from_sequence=int(placed.order_id)),
    )
    told: dict[str, str] = {}
    while len(told) < len(keys):
        accepted = [event.order_accepted for event in (await events.next()).events if event.HasField("order_accepted")]
        told |= {one.order_id: one.api_key for one in accepted}
    assert told == keys
    await events.cancel()
    assert (await person.get(placed.order_id)).api_key == "ak_narrow"
    request = order_service_pb2.StreamOrderEventsRequest()
    stream = person.stream(person.orders.StreamOrderEvents, request)
    snapshot = (await stream.next()).snapshot
    assert {order.api_key for order in snapshot.orders} == {"ak_narrow", ""}
    await narrow.cancel(placed.order_id)
    assert (await stream.next()).order.api_key == "ak_narrow"
    await stream.cancel()
    async with behind_a_follower(monkeypatch, exchange) as follower:
        again = await follower.client("narrow").buy("0.01", "40000")
        assert again.api_key == "ak_narrow"


async def test_a_key_has_as_many_open_orders_as_it_may(exchange: Exchange) -> None:
    narrow = limited(exchange, "narrow")
    orders = [await narrow.buy("0.01", "40000") for _ in range(2)]
    refusal = await refused(narrow.buy("0.01", "40000"))
    assert refusal.reason == "TOO_MANY_OPEN_ORDERS"
    assert refusal.metadata == {"limit": "open orders of the account or of the API key"}
    await limited(exchange, "person").buy("0.01", "40000")
    await narrow.cancel(orders[0].order_id)
    assert (await narrow.buy("0.01", "40000")).order_id


async def test_a_rotated_key_repeats_what_the_old_one_sent(exchange: Exchange) -> None:
    first = await limited(exchange, "narrow").buy("0.01", "40000", client_order_id="once")
    assert await limited(exchange, "narrow-rotated").buy("0.01", "40000", client_order_id="once") == first


async def test_the_open_orders_of_a_tier_hold_until_an_operator_sets_others(exchange: Exchange) -> None:
    person = limited(exchange, "person")
    assert (await limits(person)).max_open_orders == 1_000
    placed = await person.buy("0.01", "40000")
    command = exchange.engine.state.orders[int(placed.order_id)].command
    assert command[-3:] == ("", 0, 1_000)
    request = admin_service_pb2.SetAccountLimitsRequest(account=ACCOUNT, max_open_orders=1, reason="a test")
    await exchange.operator.ask(exchange.operator.admin.SetAccountLimits, request)
    assert (await refused(person.buy("0.01", "40000"))).reason == "TOO_MANY_OPEN_ORDERS"
    assert (await limits(person)).max_open_orders == 1


async def test_development_orders_are_as_they_were(exchange: Exchange) -> None:
    placed = await exchange.demo.buy("0.01", "40000")
    assert len(exchange.engine.state.orders[int(placed.order_id)].command) == 16
    found = await limits(exchange.demo)
    assert (found.tier, found.orders_per_second, found.orders_burst, found.max_open_orders) == (
        "development",
        0,
        0,
        10_000,
    )


async def test_get_limits_tells_exact_numbers(exchange: Exchange) -> None:
    person, narrow, slow = (limited(exchange, name) for name in ("person", "narrow", "slow"))
    for _ in range(2):
        await narrow.buy("0.01", "40000")
    last = await slow.buy("0.01", "40000")
    common: dict[str, Any] = {"account": ACCOUNT, "tier": "standard", "max_open_orders": 1_000, "open_orders": 3}
    sequence = int(last.sequence)

    assert await limits(person) == account_service_pb2.Limits(
        **common, orders_per_second=50, orders_burst=100, orders_left=97, sequence=sequence
    )
    assert await limits(narrow) == account_service_pb2.Limits(
        **common,
        api_key="ak_narrow",
        orders_per_second=50,
        orders_burst=100,
        orders_left=97,
        key_max_open_orders=2,
        key_open_orders=2,
        sequence=sequence,
    )
    assert await limits(slow) == account_service_pb2.Limits(
        **common, api_key="ak_slow", orders_per_second=3, orders_burst=6, orders_left=5, sequence=sequence
    )
    assert await limits(limited(exchange, "maker-bot")) == account_service_pb2.Limits(
        account="maker",
        tier="market_maker",
        api_key="ak_maker",
        orders_per_second=20_000,
        orders_burst=40_000,
        orders_left=40_000,
        max_open_orders=100_000,
        sequence=sequence,
    )


async def test_two_instances_grant_half_each(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    async with behind_a_follower(monkeypatch, exchange) as follower:
        pass_time(exchange, 2.0)
        assert (await limits(follower.client("person"))).orders_left == 50
        assert (await limits(limited(exchange, "person"))).orders_left == 50
        assert (await limits(follower.client("person"))).orders_per_second == 50


# --- a key's orders, cancelled by operators ---


async def mass_cancel(exchange: Exchange, **fields: Any) -> admin_service_pb2.MassCancelResponse:
    request = admin_service_pb2.MassCancelRequest(reason="a test", **fields)
    found: admin_service_pb2.MassCancelResponse = await exchange.operator.ask(
        exchange.operator.admin.MassCancel, request
    )
    return found


async def test_operators_cancel_the_orders_of_one_key(exchange: Exchange) -> None:
    await limited(exchange, "narrow").buy("0.01", "40000")
    await limited(exchange, "narrow").buy("0.01", "40001")
    await limited(exchange, "slow").buy("0.01", "40000")
    await limited(exchange, "person").buy("0.01", "40000")
    assert (await mass_cancel(exchange, account=ACCOUNT, api_key="ak_narrow", symbol="ETHUSD")).cancelled_count == 0
    assert (await mass_cancel(exchange, account=ACCOUNT, api_key="ak_narrow")).cancelled_count == 2
    left = [order.api_key for order in await limited(exchange, "person").listed()]
    assert left == ["", "ak_slow"]


async def test_a_key_to_cancel_needs_its_account_and_rules_that_know_keys(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = await refused(mass_cancel(exchange, api_key="ak_narrow", symbol="BTCUSD"))
    assert (refusal.reason, refusal.metadata) == ("FIELD_REQUIRED", {"field": "account"})
    refusal = await refused(mass_cancel(exchange, api_key="two words", account=ACCOUNT))
    assert (refusal.reason, refusal.metadata["field"]) == ("INVALID_FIELD", "api_key")
    async with running_exchange(monkeypatch, PINCEX_MAX_RULES="2") as older:
        order = await older.client("maker-bot").buy("0.01", "40000")
        assert order.api_key == "", "the rules do not know keys yet"
        refusal = await refused(mass_cancel(older, account="maker", api_key="ak_maker"))
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "RULES_NOT_SUPPORTED")
        assert len(await older.maker.listed()) == 1


# --- who is busy ---


async def busy(exchange: Exchange, seconds: int = 0, **fields: Any) -> admin_service_pb2.ListBusyAccountsResponse:
    request = admin_service_pb2.ListBusyAccountsRequest(**fields)
    if seconds:
        request.window.FromSeconds(seconds)
    found: admin_service_pb2.ListBusyAccountsResponse = await exchange.operator.ask(
        exchange.operator.admin.ListBusyAccounts, request
    )
    return found


async def test_operators_see_who_is_busy_page_by_page(exchange: Exchange) -> None:
    person = limited(exchange, "person")
    for client, orders in ((exchange.demo, 3), (exchange.maker, 2), (person, 2)):
        for _ in range(orders):
            await client.buy("0.01", "40000")
    last = await person.buy("0.01", "40000")
    await person.cancel(last.order_id)
    await exchange.maker.sell("0.01", "40000")

    found = await busy(exchange, more_than=1)
    rows = [(row.account, row.order_count, row.cancel_count, row.fill_count) for row in found.accounts]
    assert rows == [(ACCOUNT, 3, 1, 0), ("demo", 3, 0, 1), ("maker", 3, 0, 1)]
    assert 0 < found.seen.ToNanoseconds() < 60e9

    pages, token = [], ""
    while True:
        page = await busy(exchange, more_than=1, page_size=1, page_token=token)
        pages.append([row.account for row in page.accounts])
        token = page.next_page_token
        if not token:
            break
    assert pages == [[ACCOUNT], ["demo"], ["maker"]]
    assert (await busy(exchange)).accounts == [], "by default only those above a hundred orders"


@pytest.mark.parametrize(
    "window", [Duration(seconds=9), Duration(seconds=3_610), Duration(seconds=15), Duration(seconds=20, nanos=1)]
)
async def test_a_window_is_ten_seconds_to_an_hour_in_steps(exchange: Exchange, window: Duration) -> None:
    refusal = await refused(busy(exchange, window=window))
    assert (refusal.code, refusal.reason, refusal.metadata["field"]) == ("INVALID_ARGUMENT", "INVALID_FIELD", "window")


async def test_a_page_token_is_of_its_own_question(exchange: Exchange) -> None:
    for _ in range(2):
        await exchange.demo.buy("0.01", "40000")
        await exchange.maker.buy("0.01", "40000")
    token = (await busy(exchange, more_than=1, page_size=1)).next_page_token
    assert (await refused(busy(exchange, more_than=2, page_token=token))).reason == "INVALID_PAGE_TOKEN"
    assert (await refused(busy(exchange, 60, more_than=1, page_token=token))).reason == "INVALID_PAGE_TOKEN"

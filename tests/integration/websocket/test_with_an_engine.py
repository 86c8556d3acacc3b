"""The contracts behind the protocol: a real engine in this process takes the place of the edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.websocket.channels import CHANNELS, read_key
from exchange.websocket.credentials import Credentials
from exchange.websocket.service.edge import EdgeExchange
from tests.integration.trading.engine_app import Exchange, running_exchange
from tests.integration.websocket.conftest import Served, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PLACE = {"symbol": "BTC/USD", "side": "buy", "order_type": "Limit", "quantity": "0.5", "price": "50000"}


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Exchange]:
    async with running_exchange(monkeypatch) as found:
        yield found


@pytest.fixture
async def traded(engine: Exchange) -> AsyncIterator[Served]:
    """The protocol, before the engine's public port."""
    edge = EdgeExchange(f"127.0.0.1:{engine.app.public.port}")
    async with serving(edge, linger_s=0.05) as found:
        yield found
    await edge.close()


async def test_an_order_is_placed_seen_on_every_channel_and_cancelled(traded: Served) -> None:
    async with traded.speak() as client:
        await client.subscribe("book", symbol="BTCUSD", depth=10)
        await client.subscribe("orders")
        held = await client.subscribe("balances")
        assert held["snapshot"]["balances"]
        placed = await client.ask("place", request={**PLACE, "client_order_id": "mine-1"})
        order = placed["data"]
        assert (placed["type"], placed["op"], order["client_order_id"]) == ("result", "place", "mine-1")
        assert (order["symbol"], order["status"], order["price"]) == ("BTCUSD", "PENDING", "50000.00")
        # The answer overtakes nothing that it is about, or comes after it: both orders are right.
        seen = [one for one in client.seen if one["type"] == "update" and "order" in one["data"]]
        event = seen[0]["data"] if seen else await client.update("orders")
        assert event["order"]["order_id"] == order["order_id"]
        cancelled = await client.ask("cancel", request={"client_order_id": "mine-1"})
        assert (cancelled["data"]["status"], cancelled["data"]["order_id"]) == ("CANCELLED", order["order_id"])
        again = await client.ask("cancel", request={"client_order_id": "mine-1"})
        assert (again["reason"], again["code"], again["op"]) == ("ORDER_CLOSED", "FAILED_PRECONDITION", "cancel")
        repeated = await client.ask("place", request={**PLACE, "client_order_id": "mine-1"})
        assert repeated["data"]["order_id"] == order["order_id"]
        assert (await client.ask("cancel_all", request={}))["data"]["cancelled_count"] == 0


async def test_the_other_operations_of_orders(traded: Served) -> None:
    async with traded.speak() as client:
        await client.ask("place", request={**PLACE, "client_order_id": "mine-1"})
        replaced = await client.ask(
            "replace", request={"client_order_id": "mine-1", "price": "49000", "quantity": "0.4"}
        )
        assert (replaced["data"]["price"], replaced["data"]["open_quantity"]) == ("49000.00", "0.40000")
        reduced = await client.ask("reduce", request={"client_order_id": "mine-1", "quantity": "0.1"})
        assert reduced["data"]["open_quantity"] == "0.30000"


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"quantity": 1}, "MALFORMED_REQUEST", ""),
        ({"quantity": "1e5"}, "INVALID_DECIMAL", "quantity"),
        ({"price": "0.001"}, "PRICE_OFF_TICK", "price"),
        ({"side": "hold"}, "UNKNOWN_ENUM_VALUE", "side"),
        ({"colour": "red"}, "FIELD_NOT_ALLOWED", "colour"),
        ({"orderType": "MARKET"}, "MALFORMED_REQUEST", "order_type"),
        ({"symbol": "NOSUCH"}, "UNKNOWN_SYMBOL", ""),
        ({"expire_time": "tomorrow"}, "MALFORMED_REQUEST", ""),
        ({"client_order_id": "two words"}, "INVALID_FIELD", "client_order_id"),
    ],
)
async def test_a_bad_order_gets_the_exchange_s_reason_and_changes_nothing(
    traded: Served, engine: Exchange, change: dict[str, object], reason: str, field: str
) -> None:
    before = await engine.state_hash()
    async with traded.speak() as client:
        answer = await client.ask("place", request={**PLACE, **change})
        assert (answer["type"], answer["reason"], answer["metadata"].get("field", "")) == ("error", reason, field)
    assert await engine.state_hash() == before


async def test_accounts_are_those_of_the_caller_as_over_rest(traded: Served, engine: Exchange) -> None:
    async with traded.speak(additional_headers={"x-pincex-account": "maker"}) as maker, traded.speak() as demo:
        await maker.subscribe("orders")
        assert (await maker.ask("place", request={**PLACE, "client_order_id": "m"}))["type"] == "result"
        assert (await demo.ask("cancel", request={"client_order_id": "m"}))["reason"] == "ORDER_NOT_FOUND"
        assert (await demo.ask("login", account="maker"))["account"] == "maker"
        assert (await demo.ask("cancel", request={"client_order_id": "m"}))["data"]["status"] == "CANCELLED"
        assert (await demo.ask("login", account="no such name!"))["reason"] == "INVALID_FIELD"
        assert (await demo.ask("login", token="x.y.z"))["reason"] == "TOKEN_REFUSED"
    # Not from another machine, whatever this process's own address is.
    async with traded.speak(additional_headers={"x-forwarded-for": "198.51.100.7"}) as stranger:
        assert (await stranger.ask("place", request=PLACE))["reason"] == "UNAUTHENTICATED"
        assert (await stranger.ask("subscribe", channel="orders"))["reason"] == "UNAUTHENTICATED"
        assert (await stranger.subscribe("book", symbol="BTCUSD"))["prev_sequence"] == "0"
    assert len(await engine.maker.listed()) == 0


async def test_a_book_goes_on_without_a_gap_when_another_core_takes_over(traded: Served, engine: Exchange) -> None:
    async with traded.speak() as client:
        first = await client.subscribe("book", symbol="BTCUSD")
        await client.subscribe("orders")
        await engine.demo.buy("1", "49000.00")
        change = await client.update("book")
        assert change["prev_sequence"] == first["sequence"]
        await engine.lead_again()
        await engine.demo.buy("1", "49001.00")
        after = await client.update("book")
        # Goes on, or says that it is a whole new book.
        assert after["prev_sequence"] in {change["sequence"], "0"}
        assert not [one for one in client.seen if one["type"] in {"ended", "error"}]


async def test_a_symbol_is_unknown_and_a_token_of_another_stream_is_refused(traded: Served) -> None:
    async with traded.speak() as client:
        book = await client.subscribe("book", symbol="BTCUSD", depth=50)
        for fields, reason in (
            ({"channel": "book", "symbol": "NOSUCH"}, "UNKNOWN_SYMBOL"),
            ({"channel": "trades", "symbol": "NOSUCH"}, "UNKNOWN_SYMBOL"),
            ({"channel": "trades", "symbol": "BTCUSD", "resume_token": book["resume_token"]}, "INVALID_RESUME_TOKEN"),
            ({"channel": "book", "symbol": "BTCUSD", "depth": 10, "resume_token": "rubbish"}, "INVALID_RESUME_TOKEN"),
            ({"channel": "orders", "resume_token": "rubbish"}, "INVALID_RESUME_TOKEN"),
        ):
            assert (await client.ask("subscribe", **fields))["reason"] == reason


async def test_an_exchange_that_is_gone_is_told_and_takes_no_connection_with_it(
    traded: Served, engine: Exchange
) -> None:
    async with traded.speak() as client:
        await client.subscribe("book", symbol="BTCUSD")
        await engine.stop()
        assert (await client.until(lambda one: one["type"] == "notice"))["reason"] == "UPSTREAM_UNAVAILABLE"
        answer = await client.ask("place", request=PLACE)
        assert (answer["reason"], answer["code"]) == ("UPSTREAM_UNAVAILABLE", "UNAVAILABLE")
        assert (await client.ask("ping"))["type"] == "pong"


async def test_streams_share_a_connection_as_far_as_the_edge_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.websocket.service.edge.STREAMS_PER_CONNECTION", 2)
    edge = EdgeExchange("127.0.0.1:1")
    with edge.place() as first, edge.place() as second, edge.place() as third:
        assert (first is second, second is third, edge.streams) == (True, False, 3)
    with edge.place() as again:
        assert (again is first, edge.streams) == (True, 1)
    await edge.close()


async def test_every_channel_has_a_stream_and_an_edge_that_is_away_is_unavailable() -> None:
    edge = EdgeExchange("127.0.0.1:1")
    try:
        for name, channel in CHANNELS.items():
            key = read_key({"channel": name, **({"symbol": "BTCUSD"} if "symbol" in channel.required else {})})
            for source in (edge.source(key), edge.own_source(key, Credentials)):
                with pytest.raises(ServiceError) as refused:
                    await anext(source.open(""))
                assert refused.value.reason == ErrorReason.UPSTREAM_UNAVAILABLE
    finally:
        await edge.close()

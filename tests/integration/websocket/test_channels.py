"""Public channels: one stream of the exchange for all who follow, resumed behind their backs, and never with a gap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exchange.runtime.errors import ErrorReason
from exchange.websocket.states import checksum
from exchange.websocket.updates import Kind
from tests.integration.trading.engine_app import eventually
from tests.integration.websocket.scripted import ScriptedExchange, book, book_change, level, special, status, tape

if TYPE_CHECKING:
    from tests.integration.websocket.conftest import Serve, Served
    from tests.integration.websocket.scripted import Script

BIDS = [level("100.00", "1.00000"), level("99.00", "2.00000")]
ASKS = [level("101.00", "3.00000")]
AFTER = [level("99.00", "2.00000")]
# The best bid goes.
GONE = [{**level("100.00", "0.00000"), "order_count": 0}]


def begin_with_book(script: Script) -> None:
    script.say(book(10, BIDS, ASKS))


async def test_a_channel_begins_with_a_snapshot_and_goes_on_with_what_changes(
    served: Served, exchange: ScriptedExchange
) -> None:
    exchange.on_open = begin_with_book
    async with served.speak() as client:
        first = await client.subscribe("book", symbol="btc-usd", depth=10)
        assert (first["sequence"], first["prev_sequence"], first["snapshot"]["bids"]) == ("10", "0", BIDS)
        script = await exchange.stream("book")
        assert (script.key.symbol, script.key.depth, script.key.interval_ms) == ("BTCUSD", 10, 0)
        script.say(book_change(12, 10, GONE, checksum(AFTER, ASKS)))
        change = await client.update("book")
        assert (change["sequence"], change["prev_sequence"], change["delta"]["bids"]) == ("12", "10", GONE)


async def test_all_who_follow_a_channel_share_one_stream_and_who_joins_late_gets_the_book_as_it_is(
    served: Served, exchange: ScriptedExchange
) -> None:
    exchange.on_open = begin_with_book
    async with served.speak() as early, served.speak() as late, served.speak() as other:
        await early.subscribe("book", symbol="BTCUSD")
        script = await exchange.stream("book")
        script.say(book_change(12, 10, GONE, checksum(AFTER, ASKS)))
        await early.update("book")
        joined = await late.subscribe("book", symbol="BTC/USD")
        assert (joined["sequence"], joined["prev_sequence"]) == ("12", "0")
        assert (joined["snapshot"]["bids"], joined["checksum"]) == (AFTER, checksum(AFTER, ASKS))
        assert joined["resume_token"] == "t12"
        await other.subscribe("book", symbol="BTCUSD", depth=200)
        assert len(exchange.opened["book"]) == 2, "another depth is another stream"
        script.say(book_change(15, 12, BIDS[:1], checksum(BIDS, ASKS)))
        assert await early.update("book") == await late.update("book")


async def test_a_stream_that_breaks_is_resumed_by_token_and_clients_see_no_gap(
    served: Served, exchange: ScriptedExchange
) -> None:
    exchange.on_open = begin_with_book
    async with served.speak() as client:
        await client.subscribe("book", symbol="BTCUSD")
        exchange.on_open = lambda script: None
        for number, end in enumerate(("cut", "drain", "fail", "slow"), start=2):
            script = await exchange.stream("book", number - 1)
            match end:
                case "cut":
                    script.cut()
                case "drain":
                    script.say(special(Kind.DRAIN, 10))
                case "fail":
                    script.fail(ErrorReason.UPSTREAM_UNAVAILABLE)
                case _:
                    script.say(special(Kind.END, 10, ErrorReason.SLOW_CONSUMER))
            assert (await exchange.stream("book", number)).token == "t10"
        exchange.opened["book"][-1].say(special(Kind.HEARTBEAT, 10), book_change(12, 10, GONE, checksum(AFTER, ASKS)))
        assert (await client.update("book", heartbeats=True))["heartbeat"]["resume_token"] == "t10"
        assert (await client.update("book"))["prev_sequence"] == "10"


@pytest.mark.parametrize("reason", ["HISTORY_CHANGED", "SEQUENCE_NOT_RETAINED", "INVALID_RESUME_TOKEN"])
async def test_a_place_that_is_gone_gives_a_fresh_snapshot_that_says_so(
    served: Served, exchange: ScriptedExchange, reason: str
) -> None:
    exchange.on_open = begin_with_book
    async with served.speak() as client:
        await client.subscribe("book", symbol="BTCUSD")
        exchange.on_open = lambda script: (
            script.fail(ErrorReason.Value(reason)) if script.token else script.say(book(3, AFTER, ASKS))
        )
        exchange.opened["book"][0].cut()
        fresh = await client.update("book")
        assert (fresh["sequence"], fresh["prev_sequence"], fresh["snapshot"]["bids"]) == ("3", "0", AFTER)


async def test_a_gap_in_the_exchange_s_stream_is_never_handed_on(served: Served, exchange: ScriptedExchange) -> None:
    exchange.on_open = begin_with_book
    async with served.speak() as client:
        await client.subscribe("book", symbol="BTCUSD")
        exchange.on_open = lambda script: script.say(book(20, AFTER, ASKS))
        exchange.opened["book"][0].say(book_change(14, 12, GONE, checksum(AFTER, ASKS)))
        fresh = await client.update("book")
        assert (fresh["sequence"], fresh["prev_sequence"]) == ("20", "0")
        assert (await exchange.stream("book", 2)).token == ""


async def test_a_copy_that_differs_is_not_shown_and_is_fetched_anew(served: Served, exchange: ScriptedExchange) -> None:
    exchange.on_open = begin_with_book
    async with served.speak() as early, served.speak() as late:
        await early.subscribe("book", symbol="BTCUSD")
        # A checksum that the change does not lead to.
        exchange.opened["book"][0].say(book_change(12, 10, GONE, 1))
        await early.update("book")
        exchange.on_open = lambda script: script.say(book(13, AFTER, ASKS))
        refused = await late.ask("subscribe", channel="book", symbol="BTCUSD")
        assert refused["reason"] == "STATE_DIFFERS"
        assert (await early.update("book"))["prev_sequence"] == "0"
        assert (await late.subscribe("book", symbol="BTCUSD"))["sequence"] == "13"


async def test_a_resume_token_that_is_known_here_gives_what_came_after_it(
    served: Served, exchange: ScriptedExchange
) -> None:
    exchange.on_open = begin_with_book
    async with served.speak() as stays, served.speak() as leaves:
        await stays.subscribe("book", symbol="BTCUSD")
        await leaves.subscribe("book", symbol="BTCUSD")
        script = exchange.opened["book"][0]
        script.say(
            book_change(12, 10, GONE, checksum(AFTER, ASKS)), book_change(15, 12, BIDS[:1], checksum(BIDS, ASKS))
        )
        await stays.update("book")
        await stays.update("book")
        async with served.speak() as back:
            first = await back.subscribe("book", symbol="BTCUSD", resume_token="t10")
            assert (first["sequence"], first["prev_sequence"]) == ("12", "10")
            assert (await back.update("book"))["prev_sequence"] == "12"
        async with served.speak() as back:
            # Nothing came after it: the next change follows on it.
            assert (await back.ask("subscribe", channel="book", symbol="BTCUSD", resume_token="t15"))[
                "type"
            ] == "subscribed"
            script.say(book_change(16, 15, GONE, checksum(AFTER, ASKS)))
            assert (await back.update("book"))["prev_sequence"] == "15"
    assert len(exchange.opened["book"]) == 1


async def test_trades_are_resumed_without_a_gap_from_before_this_process_s_time(
    served: Served, exchange: ScriptedExchange
) -> None:
    exchange.on_open = lambda script: script.say(tape(20, "20-0", snapshot=True))
    async with served.speak() as early, served.speak() as back:
        await early.subscribe("trades", symbol="BTCUSD")
        exchange.on_open = lambda script: script.say(tape(5, "5-0", prev=4), tape(20, "20-0", prev=5))
        first = await back.subscribe("trades", symbol="BTCUSD", resume_token="t4")
        assert (await exchange.stream("trades", 2)).token == "t4"
        assert (first["prev_sequence"], first["trades"]["trades"][0]["trade_id"]) == ("4", "5-0")
        assert (await back.update("trades"))["prev_sequence"] == "5"
        exchange.opened["trades"][0].say(tape(22, "22-0", prev=20))
        assert (await back.update("trades"))["prev_sequence"] == "20"
        await eventually(lambda: exchange.opened["trades"][1].closed, "its own stream is over")


async def test_a_resume_token_that_the_exchange_refuses_is_refused(served: Served, exchange: ScriptedExchange) -> None:
    exchange.on_open = lambda script: (
        script.fail(ErrorReason.INVALID_RESUME_TOKEN) if script.token else script.say(tape(20, "20-0", snapshot=True))
    )
    async with served.speak() as client:
        answer = await client.ask("subscribe", channel="trades", symbol="BTCUSD", resume_token="rubbish")
        assert (answer["type"], answer["reason"], answer["op"]) == ("error", "INVALID_RESUME_TOKEN", "subscribe")
        assert (await client.subscribe("trades", symbol="BTCUSD"))["snapshot"]["trades"][0]["trade_id"] == "20-0"


async def test_an_unknown_symbol_is_told_to_who_asks_and_disturbs_nobody(
    served: Served, exchange: ScriptedExchange
) -> None:
    exchange.on_open = lambda script: (
        script.fail(ErrorReason.UNKNOWN_SYMBOL) if script.key.symbol == "NOSUCH" else script.say(book(10, BIDS, ASKS))
    )
    async with served.speak() as client:
        await client.subscribe("book", symbol="BTCUSD")
        answer = await client.ask("subscribe", channel="book", symbol="NOSUCH")
        assert (answer["type"], answer["reason"], answer["code"]) == ("error", "UNKNOWN_SYMBOL", "NOT_FOUND")
        exchange.opened["book"][0].say(book_change(12, 10, GONE, checksum(AFTER, ASKS)))
        assert (await client.update("book"))["sequence"] == "12"


async def test_while_the_exchange_is_away_followers_are_told_once_and_who_comes_new_is_refused(
    serve: Serve, exchange: ScriptedExchange
) -> None:
    exchange.on_open = begin_with_book
    async with serve(start_s=0.2) as served, served.speak() as client:
        await client.subscribe("book", symbol="BTCUSD")
        exchange.refusal = ErrorReason.UPSTREAM_UNAVAILABLE
        exchange.opened["book"][0].cut()
        told = await client.next()
        assert (told["type"], told["channel"], told["reason"]) == ("notice", "book", "UPSTREAM_UNAVAILABLE")
        answer = await client.ask("subscribe", channel="trades", symbol="BTCUSD")
        assert (answer["type"], answer["reason"]) == ("error", "UPSTREAM_UNAVAILABLE")
        exchange.on_open = lambda script: script.say(book_change(12, 10, GONE, checksum(AFTER, ASKS)))
        exchange.refusal = 0
        assert (await client.update("book"))["prev_sequence"] == "10"
        assert [one["type"] for one in client.seen].count("notice") == 1


async def test_a_stream_that_nobody_follows_any_more_is_closed_after_a_while(
    serve: Serve, exchange: ScriptedExchange
) -> None:
    exchange.on_open = begin_with_book
    async with serve(linger_s=0.05) as served, served.speak() as client:
        await client.subscribe("book", symbol="BTCUSD")
        answer = await client.ask("unsubscribe", channel="book", symbol="BTCUSD")
        assert answer["type"] == "unsubscribed"
        await eventually(lambda: exchange.opened["book"][0].closed, "the stream is closed")
        await client.subscribe("book", symbol="BTCUSD")
        assert len(exchange.opened["book"]) == 2


async def test_who_subscribes_again_begins_again(served: Served, exchange: ScriptedExchange) -> None:
    exchange.on_open = begin_with_book
    async with served.speak() as client:
        await client.subscribe("book", symbol="BTCUSD")
        assert (await client.subscribe("book", symbol="BTCUSD"))["prev_sequence"] == "0"
        exchange.opened["book"][0].say(book_change(12, 10, GONE, checksum(AFTER, ASKS)))
        await client.update("book")
        assert (await client.ask("ping"))["type"] == "pong"
        assert [
            one for one in client.seen if one["type"] == "update" and one["data"]["sequence"] == "12"
        ].__len__() == 1


async def test_channels_of_newest_values_show_all_of_them_to_who_joins(
    served: Served, exchange: ScriptedExchange
) -> None:
    exchange.on_open = lambda script: script.say(status(10, 0, "OPEN", snapshot=True))
    async with served.speak() as early, served.speak() as late:
        await early.subscribe("status")
        exchange.opened["status"][0].say(status(11, 10, "OPEN", symbol="ETHUSD"), status(12, 11, "HALTED"))
        await early.update("status")
        await early.update("status")
        joined = await late.subscribe("status")
        found = {one["symbol"]: one["mode"] for one in joined["statuses"]["statuses"]}
        assert (found, joined["snapshot"], joined["sequence"]) == ({"BTCUSD": "HALTED", "ETHUSD": "OPEN"}, True, "12")

"""StreamTrades: the latest trades, then each as it happens."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest

from exchange.runtime.feeds.channel import Channel
from pincex.trading.v1 import market_service_pb2 as pb
from pincex.trading.v1 import types_pb2
from tests.integration.trading.engine_app import BUY, Exchange, Stream, eventually, refused, running_exchange


def subscribe(exchange: Exchange, token: str = "", symbol: str = "BTCUSD") -> Stream:
    request = pb.StreamTradesRequest(symbol=symbol, resume_token=token)
    return exchange.demo.stream(exchange.demo.markets.StreamTrades, request)


async def trade(exchange: Exchange, count: int = 1, symbol: str = "BTCUSD", price: str = "50000") -> list[str]:
    """That many trades, each of its own command; answers their ids."""
    ids = []
    for _ in range(count):
        await exchange.maker.sell("0.01", price, symbol=symbol)
        taken = await exchange.demo.buy("0.01", price, symbol=symbol)
        assert taken.status == types_pb2.FILLED
        ids.append(f"{taken.sequence}-1")
    return ids


def ids_of(updates: list[pb.TradeUpdate]) -> list[str]:
    return [trade.trade_id for update in updates for trade in (*update.snapshot.trades, *update.trades.trades)]


async def until_trade(stream: Stream, trade_id: str) -> list[pb.TradeUpdate]:
    return await stream.until(lambda update: trade_id in ids_of([update]))


async def test_a_stream_begins_with_the_latest_trades_oldest_first(exchange: Exchange) -> None:
    ids = await trade(exchange, 3)
    first = await subscribe(exchange).next()

    assert (first.prev_sequence, first.WhichOneof("update")) == (0, "snapshot")
    assert ids_of([first]) == ids
    newest = first.snapshot.trades[-1]
    assert (newest.price, newest.quantity, newest.taker_side) == ("50000.00", "0.01000", BUY)
    assert first.snapshot.newest_trade_time == newest.trade_time


async def test_a_market_without_trades_begins_with_nothing(exchange: Exchange) -> None:
    first = await subscribe(exchange).next()

    assert (ids_of([first]), first.snapshot.HasField("newest_trade_time")) == ([], False)


async def test_trades_come_in_order_without_a_gap(exchange: Exchange) -> None:
    stream = subscribe(exchange)
    first = await stream.next()
    ids = await trade(exchange, 5)
    await trade(exchange, 2, symbol="ETHUSD", price="3000")
    ids += await trade(exchange, 1)
    updates = [first, *await until_trade(stream, ids[-1])]

    assert ids_of(updates) == ids
    for before, after in pairwise(updates):
        assert after.prev_sequence == before.sequence < after.sequence


async def test_the_trades_of_one_command_come_together(exchange: Exchange) -> None:
    stream = subscribe(exchange)
    await stream.next()
    for price in ("50000", "50001", "50002"):
        await exchange.maker.sell("0.1", price)
    taken = await exchange.demo.buy("0.3", "50002")
    update = await stream.next()

    assert ids_of([update]) == [f"{taken.sequence}-{index}" for index in (1, 2, 3)]
    assert [trade.price for trade in update.trades.trades] == ["50000.00", "50001.00", "50002.00"]


async def test_every_token_resumes_with_exactly_the_rest(exchange: Exchange) -> None:
    stream = subscribe(exchange)
    ids = await trade(exchange, 4)
    updates = await until_trade(stream, ids[-1])
    exchange.app.trades.heartbeat(1)
    updates.append(await stream.next())
    (feed,) = exchange.app.trades._feeds.values()

    for place, update in enumerate(updates):
        again = subscribe(exchange, token=update.resume_token)
        await eventually(lambda: feed.channel.subscribers == 2, "it is there")
        exchange.app.trades.heartbeat(2)
        rest = await again.until(lambda message: message.WhichOneof("update") == "heartbeat")
        assert ids_of(rest) == ids_of(updates[place + 1 :])
        assert rest[0].prev_sequence == update.sequence
        again.call.cancel()
        await eventually(lambda: feed.channel.subscribers == 1, "it has left")


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_the_channel_no_longer_holds_comes_from_the_journal(
    exchange: Exchange,
    monkeypatch: pytest.MonkeyPatch,
    restarted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    monkeypatch.setattr("exchange.trading.service.trade_stream.Channel", partial(Channel, kept=2))
    first = await subscribe(exchange).next()
    ids = await trade(exchange, 6)
    if restarted:
        exchange.app.trades.reset()
    again = subscribe(exchange, token=first.resume_token)
    updates = await until_trade(again, ids[-1])
    token = updates[2].resume_token
    ids += await trade(exchange)
    updates += await until_trade(again, ids[-1])

    assert ids_of(updates) == ids
    sequence = first.sequence
    for update in updates:
        assert update.prev_sequence == sequence
        sequence = update.sequence
    # A place in the middle of what was made up for can be resumed from too.
    assert ids_of(await until_trade(subscribe(exchange, token=token), ids[-1])) == ids[3:]


async def test_a_token_newer_than_the_channel_s_last_trade_is_no_gap(exchange: Exchange) -> None:
    """A channel that was opened later says a later sequence for the same place."""
    await subscribe(exchange).next()
    await trade(exchange)
    old = exchange.app.trades._feeds.pop(0)
    await exchange.demo.buy("0.01", "40000")
    newer = await subscribe(exchange).next()
    exchange.app.trades._feeds[0] = old
    assert newer.sequence > old.channel.last_sequence

    again = subscribe(exchange, token=newer.resume_token)
    moved = await again.next()
    (wanted,) = await trade(exchange)
    updates = [newer, moved, *await until_trade(again, wanted)]

    assert ids_of(updates[1:]) == [wanted]
    for before, after in pairwise(updates):
        assert after.prev_sequence == before.sequence


async def test_a_reader_behind_the_ring_is_closed_with_a_reason(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.trading.service.trade_stream.Channel", partial(Channel, kept=4))
    stream = subscribe(exchange)
    await stream.next()
    for _ in range(8):  # all in one turn of the loop: the reader cannot keep up
        exchange.app.trades.heartbeat(1)
    (end,) = await stream.rest()

    assert (end.end.reason, end.resume_token, end.end.resume_token) == ("SLOW_CONSUMER", "", "")


async def test_heartbeats_carry_the_head(exchange: Exchange) -> None:
    stream = subscribe(exchange)
    first = await stream.next()
    order = await exchange.demo.buy("0.01", "40000")
    exchange.app.trades.heartbeat(exchange.app.clock.time_ns())
    beat = await stream.next()

    assert beat.heartbeat.head_sequence == order.sequence
    assert (beat.sequence, beat.prev_sequence) == (first.sequence, first.sequence)
    assert beat.heartbeat.resume_token == beat.resume_token == first.resume_token


async def test_the_app_sends_heartbeats_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.trading.__main__.HEARTBEAT_S", 0.02)
    async with running_exchange(monkeypatch) as exchange:
        stream = subscribe(exchange)
        kinds = [message.WhichOneof("update") for message in await stream.take(3)]

    assert kinds == ["snapshot", "heartbeat", "heartbeat"]


async def test_a_stream_that_cannot_be_is_refused(exchange: Exchange) -> None:
    assert (await refused(subscribe(exchange, symbol="NONE").next())).reason == "UNKNOWN_SYMBOL"
    assert (await refused(subscribe(exchange, token="???").next())).reason == "INVALID_RESUME_TOKEN"


async def test_a_stopping_server_says_so(exchange: Exchange) -> None:
    stream = subscribe(exchange)
    first = await stream.next()
    exchange.stopped.set()
    notice, end = await stream.rest()

    assert notice.drain.resume_token == end.end.resume_token == first.resume_token
    assert end.end.reason == "DRAINING"


async def test_a_subscriber_that_leaves_is_forgotten(exchange: Exchange) -> None:
    stream = subscribe(exchange)
    await stream.next()
    (feed,) = exchange.app.trades._feeds.values()
    await eventually(lambda: feed.channel.subscribers == 1, "it is there")
    stream.call.cancel()

    await eventually(lambda: feed.channel.subscribers == 0, "it has left")

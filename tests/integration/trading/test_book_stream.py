"""StreamOrderBook: what a client that keeps a copy may rely on."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import pytest

from exchange.runtime.errors import ErrorReason
from exchange.runtime.feeds.channel import Channel
from exchange.trading.core import commands as cmd
from exchange.trading.core.constants import CANCEL_ONLY, OPEN
from exchange.trading.journal.contract import Diverged
from pincex.trading.v1 import admin_service_pb2, types_pb2
from pincex.trading.v1 import market_service_pb2 as pb
from tests.integration.trading.book_copy import BookCopy
from tests.integration.trading.engine_app import BUY, MARKET, SELL, Exchange, Stream, eventually, refused


def subscribe(exchange: Exchange, depth: int = 0, token: str = "", symbol: str = "BTC/USD") -> Stream:
    request = pb.StreamOrderBookRequest(symbol=symbol, depth=depth, resume_token=token)
    return exchange.demo.stream(exchange.demo.markets.StreamOrderBook, request)


async def follow(stream: Stream, copy: BookCopy, sequence: int) -> list[pb.OrderBookUpdate]:
    """Apply messages until the copy has reached a sequence."""
    taken = []
    while copy.sequence < sequence:
        taken.append(await stream.next())
        copy.apply(taken[-1])
    return taken


async def trade_a_little(exchange: Exchange, steps: int, seed: int = 1) -> int:
    """Random orders on both sides, some of which trade; answers the sequence of the last that changed the book."""
    chance = random.Random(seed)
    last = 0
    for _ in range(steps):
        client = chance.choice((exchange.demo, exchange.maker))
        side = chance.choice((BUY, SELL))
        price = f"{50_000 + chance.randint(-30, 30)}"
        order = await client.place(side, f"0.{chance.randint(1, 99):02}", price, self_trade_prevention=types_pb2.NONE)
        last = order.sequence
    return last


async def full_book(exchange: Exchange, symbol: str = "BTCUSD") -> pb.OrderBook:
    request = pb.GetOrderBookRequest(symbol=symbol, depth=5000)
    book: pb.OrderBook = await exchange.demo.ask(exchange.demo.markets.GetOrderBook, request)
    return book


def levels(book: pb.OrderBook, depth: int = 0) -> tuple[list[tuple[str, str, int]], list[tuple[str, str, int]]]:
    end = depth or None
    bids, asks = (
        [(level.price, level.quantity, level.order_count) for level in side[:end]] for side in (book.bids, book.asks)
    )
    return bids, asks


async def test_a_stream_begins_with_a_snapshot_of_the_book(exchange: Exchange) -> None:
    await exchange.demo.buy("1", "49000")
    await exchange.maker.sell("2", "51000")
    last = await exchange.maker.sell("3", "51000")
    first = await subscribe(exchange).next()

    assert (first.symbol, first.sequence, first.prev_sequence) == ("BTCUSD", last.sequence, 0)
    assert first.snapshot.mode == types_pb2.OPEN
    copy = BookCopy()
    copy.apply(first)
    assert copy.best() == ([("49000.00", "1.00000", 1)], [("51000.00", "5.00000", 2)])


async def test_an_empty_book_has_the_checksum_of_nothing(exchange: Exchange) -> None:
    first = await subscribe(exchange).next()

    assert (list(first.snapshot.bids), list(first.snapshot.asks), first.checksum) == ([], [], 0)


@pytest.mark.parametrize("depth", [0, 10, 50, 200])
async def test_deltas_without_a_gap_make_the_engine_s_own_book(exchange: Exchange, depth: int) -> None:
    await trade_a_little(exchange, 40)
    stream, copy = subscribe(exchange, depth), BookCopy()
    copy.apply(await stream.next())
    await trade_a_little(exchange, 120, seed=2)
    for order in (await exchange.demo.listed())[::3]:
        await exchange.demo.cancel(order.order_id)
    # Something at the very top, so that every depth hears of it.
    top = await exchange.demo.place(BUY, "0.5", "50031", post_only=False)

    await follow(stream, copy, top.sequence)

    book = await full_book(exchange)
    assert copy.best() == levels(book, depth)
    assert copy.checksum() == book.checksum
    assert copy.snapshots == 1


async def test_a_level_that_leaves_the_view_is_taken_away_and_one_that_enters_is_told(exchange: Exchange) -> None:
    for step in range(11):
        await exchange.demo.buy("0.1", f"{40_000 + step}")
    stream, copy = subscribe(exchange, 10), BookCopy()
    copy.apply(await stream.next())
    assert [price for price, _, _ in copy.best()[0]][-1] == "40001.00"

    better = await exchange.demo.buy("0.1", "41000")
    (entering,) = await follow(stream, copy, better.sequence)
    assert [(level.price, level.quantity) for level in entering.delta.bids] == [
        ("40001.00", "0.00000"),
        ("41000.00", "0.10000"),
    ]

    (returning,) = await follow(stream, copy, (await exchange.demo.cancel(better.order_id)).sequence)
    assert {level.price for level in returning.delta.bids} == {"41000.00", "40001.00"}


async def test_a_change_outside_the_view_is_no_message(exchange: Exchange) -> None:
    for step in range(10):
        await exchange.demo.buy("0.1", f"{40_000 + step}")
    stream, copy = subscribe(exchange, 10), BookCopy()
    copy.apply(await stream.next())
    await exchange.demo.buy("0.1", "39000")
    inside = await exchange.demo.buy("0.1", "40009")

    (only,) = await follow(stream, copy, inside.sequence)

    assert [level.order_count for level in only.delta.bids] == [2]


async def test_orders_of_another_market_are_no_messages(exchange: Exchange) -> None:
    stream, copy = subscribe(exchange), BookCopy()
    copy.apply(await stream.next())
    await exchange.demo.place(BUY, "1", "2000", symbol="ETHUSD")
    order = await exchange.demo.buy("0.1", "40000")

    assert len(await follow(stream, copy, order.sequence)) == 1


async def test_a_stream_is_resumed_without_a_gap_and_without_a_snapshot(exchange: Exchange) -> None:
    stream, copy = subscribe(exchange), BookCopy()
    copy.apply(await stream.next())
    await follow(stream, copy, await trade_a_little(exchange, 20))
    stream.call.cancel()
    last = await trade_a_little(exchange, 20, seed=3)

    again = subscribe(exchange, token=copy.token)
    await follow(again, copy, last)

    assert copy.snapshots == 1
    assert copy.best() == levels(await full_book(exchange))


async def test_every_token_of_a_stream_resumes_it(exchange: Exchange) -> None:
    stream = subscribe(exchange)
    messages = [await stream.next()]
    last = await trade_a_little(exchange, 10)
    await exchange.demo.place(BUY, "1", "2000", symbol="ETHUSD")  # a frame that changes nothing here
    messages += await stream.until(lambda message: message.sequence == last)

    for place, message in enumerate(messages[:-1]):
        again = subscribe(exchange, token=message.resume_token)
        assert await again.take(len(messages) - place - 1) == messages[place + 1 :]
        again.call.cancel()


async def test_a_token_that_the_server_has_nothing_for_gets_a_snapshot(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.runtime.feeds.book_feed.Channel", partial(Channel, kept=4))
    stream = subscribe(exchange)
    first = await stream.next()
    last = await trade_a_little(exchange, 12)
    copy = BookCopy()

    copy.apply(await subscribe(exchange, token=first.resume_token).next())

    assert (copy.snapshots, copy.sequence) == (1, last)
    assert copy.best() == levels(await full_book(exchange))


async def test_heartbeats_carry_the_head_and_a_token_that_holds(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, copy = subscribe(exchange), BookCopy()
    copy.apply(await stream.next())
    await follow(stream, copy, (await exchange.demo.buy("0.1", "40000")).sequence)
    ether = await exchange.demo.place(BUY, "1", "2000", symbol="ETHUSD")

    exchange.app.books.heartbeat(exchange.app.clock.time_ns())

    beat = await stream.next()
    copy.apply(beat)
    assert (beat.heartbeat.head_sequence, beat.heartbeat.resume_token) == (ether.sequence, beat.resume_token)
    assert beat.sequence == beat.prev_sequence < ether.sequence
    again = subscribe(exchange, token=beat.resume_token)
    await follow(again, copy, (await exchange.demo.buy("0.1", "40001")).sequence)
    assert copy.snapshots == 1


async def test_a_second_subscriber_s_snapshot_has_a_token_that_holds(exchange: Exchange) -> None:
    await subscribe(exchange).next()
    await exchange.demo.buy("0.1", "40000")
    await exchange.demo.place(BUY, "1", "2000", symbol="ETHUSD")
    copy = BookCopy()
    copy.apply(await subscribe(exchange).next())

    again = subscribe(exchange, token=copy.token)
    await follow(again, copy, (await exchange.demo.buy("0.1", "40001")).sequence)
    assert copy.snapshots == 1


async def test_subscribers_of_one_view_share_each_message_s_bytes(exchange: Exchange) -> None:
    one, two = subscribe(exchange), subscribe(exchange)
    assert await one.next() == await two.next()
    last = await trade_a_little(exchange, 10)

    feed = next(iter(exchange.app.books._copies.values())).feed
    assert feed.views[0, 0].channel.subscribers == 2
    assert await one.until(lambda message: message.sequence == last) == await two.until(
        lambda message: message.sequence == last
    )
    one.call.cancel()
    await eventually(lambda: feed.views[0, 0].channel.subscribers == 1, "one has left")


async def test_a_subscriber_that_does_not_read_is_closed_and_delays_nobody(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.runtime.feeds.book_feed.Channel", partial(Channel, kept=64))
    slow, fast, copy = subscribe(exchange), subscribe(exchange), BookCopy()
    read_by_slow = await slow.next()
    copy.apply(await fast.next())
    feed = next(iter(exchange.app.books._copies.values())).feed
    reading = asyncio.create_task(follow(fast, copy, 10**9))
    # Heartbeats, large and without cost for the engine: more than any buffer between the two holds.
    padding = "x" * 20_000
    monkeypatch.setattr(feed.views[0, 0].tokens, "token", lambda *_: padding)
    for _ in range(1_200):
        exchange.app.books.heartbeat(1)
        behind = feed.views[0, 0].channel.end
        await eventually(lambda: reading.done() or copy.token == padding, "the fast one reads")
        if behind % 32 == 0:
            await asyncio.sleep(0)
            last = await exchange.demo.buy("0.001", "40000")
            await eventually(lambda last=last: copy.sequence >= last.sequence, "the fast one is up to date")  # type: ignore[misc]
    reading.cancel()

    messages = await slow.rest()

    assert messages[-1].end.reason == "SLOW_CONSUMER"
    assert (messages[-1].resume_token, messages[-1].end.resume_token) == ("", "")
    assert len(messages) < 1_200
    assert read_by_slow.sequence <= messages[-1].sequence


async def test_a_mode_change_is_told(exchange: Exchange) -> None:
    stream, copy = subscribe(exchange), BookCopy()
    copy.apply(await stream.next())
    request = admin_service_pb2.SetMarketModeRequest(symbol="BTCUSD")
    halted = await exchange.operator.ask(exchange.operator.admin.HaltMarket, request)
    copy.apply(await stream.next())

    assert (copy.mode, copy.sequence) == (types_pb2.HALTED, halted.sequence)
    assert (await subscribe(exchange).next()).snapshot.mode == types_pb2.HALTED


async def test_a_frame_that_changes_mode_and_book_is_one_message(exchange: Exchange) -> None:
    """Two at one place could not be told apart by a token."""
    await exchange.demo.buy("0.1", "40000")
    await exchange.demo.buy("0.1", "39000")
    stream, copy = subscribe(exchange), BookCopy()
    copy.apply(await stream.next())
    await exchange.app.desk.submit(
        [
            cmd.set_market_mode("ops", 0, types_pb2.CANCEL_ONLY),
            cmd.place("demo", 1, BUY, 1, 20_000, 200_000, tif=1),
            cmd.cancel_all("demo", 0),
        ]
    )
    update = await stream.next()
    copy.apply(update)

    assert (copy.mode, copy.best(), copy.sequence) == (types_pb2.CANCEL_ONLY, ([], []), exchange.engine.state.sequence)
    again = subscribe(exchange, token=update.resume_token)
    feed = next(iter(exchange.app.books._copies.values())).feed
    await eventually(lambda: feed.views[0, 0].channel.subscribers == 2, "it follows")
    exchange.app.books.heartbeat(1)
    assert (await again.next()).WhichOneof("update") == "heartbeat"


async def test_a_stream_that_cannot_be_is_refused(exchange: Exchange) -> None:
    for stream, code, reason in (
        (subscribe(exchange, depth=7), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (subscribe(exchange, depth=-1), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (subscribe(exchange, symbol="NONE"), "NOT_FOUND", "UNKNOWN_SYMBOL"),
        (subscribe(exchange, token="garbage"), "INVALID_ARGUMENT", "INVALID_RESUME_TOKEN"),
    ):
        refusal = await refused(stream.next())
        assert (refusal.code, refusal.reason) == (code, reason)


async def test_a_copy_that_nobody_follows_is_dropped(exchange: Exchange) -> None:
    stream = subscribe(exchange)
    await stream.next()
    for _ in range(20):
        exchange.app.books.heartbeat(1)
    assert len(exchange.app.books._copies) == 1
    feed = next(iter(exchange.app.books._copies.values())).feed
    stream.call.cancel()
    await eventually(lambda: feed.views[0, 0].channel.subscribers == 0, "it has left")
    for _ in range(20):
        exchange.app.books.heartbeat(1)

    assert exchange.app.books._copies == {}


async def test_a_stopping_server_says_so_on_every_stream(exchange: Exchange) -> None:
    stream, copy = subscribe(exchange), BookCopy()
    copy.apply(await stream.next())
    exchange.stopped.set()

    notice, end = await stream.rest()

    assert notice.drain.resume_token == end.end.resume_token == copy.token
    assert notice.drain.HasField("deadline_time")
    assert end.end.reason == "DRAINING"
    copy.apply(notice)
    copy.apply(end)


async def test_a_stream_ends_when_another_core_takes_over(exchange: Exchange) -> None:
    """What came in between was not seen by this copy: going on would be a gap that nobody reports."""
    stream = subscribe(exchange)
    await stream.next()
    exchange.sequencer.give_up(Diverged("it is not what the journal says"))
    (end,) = await stream.rest()
    await eventually(lambda: exchange.app.desk.sequencer is not None, "it leads again")

    assert end.end.reason == ErrorReason.Name(ErrorReason.NOT_READY)
    order = await exchange.demo.place(BUY, "0.1", "40000")
    copy = BookCopy()
    copy.apply(await subscribe(exchange, token=end.end.resume_token).next())
    assert copy.best()[0] == [(order.price, order.open_quantity, 1)]


async def test_no_subscriber_sees_what_is_not_durable(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is taken from the core, which runs ahead of the journal: also the second to ask must wait."""
    release = asyncio.Event()
    append = exchange.sequencer._journal.append

    async def held(frame: object) -> None:
        await release.wait()
        await append(frame)  # type: ignore[arg-type]

    monkeypatch.setattr(exchange.sequencer._journal, "append", held)
    placing = asyncio.create_task(exchange.demo.buy("0.1", "40000"))
    await eventually(lambda: exchange.engine.state.markets[0].bids.orders == 1, "the core has it")
    firsts = [asyncio.create_task(subscribe(exchange).next()) for _ in range(2)]
    await eventually(lambda: bool(exchange.app.books._copies), "the copy is taken")
    await exchange.demo.ask(exchange.demo.markets.ListMarketTrades, pb.ListMarketTradesRequest(symbol="BTCUSD"))

    assert not any(first.done() for first in firsts)
    release.set()
    for first in firsts:
        assert (await first).sequence == (await placing).sequence


async def test_market_orders_move_the_top_of_a_view(exchange: Exchange) -> None:
    await exchange.maker.sell("1", "50000")
    stream, copy = subscribe(exchange, 10), BookCopy()
    copy.apply(await stream.next())
    taken = await exchange.demo.buy("0.4", order_type=MARKET)
    await follow(stream, copy, taken.sequence)

    assert copy.best() == ([], [("50000.00", "0.60000", 1)])


async def test_a_frame_that_changes_book_and_mode_is_one_message(exchange: Exchange) -> None:
    stream = subscribe(exchange)
    copy = BookCopy()
    copy.apply(await stream.next())
    await exchange.demo.place(BUY, "0.01", "40000")
    await follow(stream, copy, copy.sequence + 1)
    desk = exchange.app.desk
    market = desk.state.market_index["BTCUSD"]
    place = cmd.place("demo", market, 1, 1, 1_000, 4_100_000, tif=1)
    await desk.submit([place, cmd.set_market_mode("ops", market, CANCEL_ONLY)])
    both = await stream.next()
    assert both.snapshot.mode == types_pb2.CANCEL_ONLY
    assert [level.price for level in both.snapshot.bids][:1] == ["41000.00"]
    copy.apply(both)
    resumed = subscribe(exchange, token=both.resume_token)
    await desk.submit([cmd.set_market_mode("ops", market, OPEN)])
    after = await resumed.next()
    assert (after.mode, after.prev_sequence) == (types_pb2.OPEN, both.sequence)


async def test_a_token_of_another_depth_is_no_token_of_this_stream(exchange: Exchange) -> None:
    await exchange.demo.place(BUY, "0.01", "40000")
    first = await subscribe(exchange, depth=10).next()
    refusal = await refused(subscribe(exchange, depth=0, token=first.resume_token).next())
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_RESUME_TOKEN")
    again = await subscribe(exchange, depth=10, token=first.resume_token).next()
    assert again.sequence >= first.sequence

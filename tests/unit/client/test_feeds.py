"""Feeds against scripted servers: what is shown is right, or is fetched anew."""

import asyncio
import zlib
from decimal import Decimal
from typing import Any

import pytest

from pincex.trading.v1 import market_service_pb2 as pb
from pincex.trading.v1 import types_pb2
from pincex_client import ExchangeClient, Fill, NotFound, Order, OrdersSnapshot, checksum_of
from pincex_client.book import LiveBook
from tests.unit.client.conftest import until
from tests.unit.client.fake_exchange import FakeExchange
from tests.unit.client.fake_server import FakeServer

Levels = list[tuple[str, str]]


def levels(pairs: Levels) -> list[types_pb2.PriceLevel]:
    return [types_pb2.PriceLevel(price=price, quantity=quantity, order_count=1) for price, quantity in pairs]


def snapshot(sequence: int, bids: Levels, asks: Levels, *, token: str = "") -> pb.OrderBookUpdate:
    content = pb.BookSnapshot(bids=levels(bids), asks=levels(asks), mode=types_pb2.OPEN)
    return pb.OrderBookUpdate(
        symbol="BTCUSD", sequence=sequence, checksum=checksum(bids, asks), resume_token=token, snapshot=content
    )


def delta(previous: int, sequence: int, bids: Levels, asks: Levels, book: tuple[Levels, Levels]) -> pb.OrderBookUpdate:
    content = pb.BookDelta(bids=levels(bids), asks=levels(asks))
    return pb.OrderBookUpdate(
        symbol="BTCUSD",
        sequence=sequence,
        prev_sequence=previous,
        checksum=checksum(*book),
        resume_token=f"t{sequence}",
        delta=content,
    )


def checksum(bids: Levels, asks: Levels) -> int:
    return checksum_of([f"{price}:{quantity}" for price, quantity in bids], [f"{p}:{q}" for p, q in asks])


BIDS: Levels = [("100.00", "1.5"), ("99.00", "2.0")]
ASKS: Levels = [("101.00", "3.0")]
BETTER: Levels = [("100.50", "1.0"), *BIDS]


def test_checksum_test_vectors() -> None:
    assert checksum_of([], []) == 0
    assert checksum_of(["100.00:1.5"], []) == zlib.crc32(b"100.00:1.5")
    assert checksum_of(["100.00:1.5", "99.00:2.0"], ["101.00:3.0"]) == zlib.crc32(b"100.00:1.5:101.00:3.0:99.00:2.0")


def test_a_live_book_keeps_both_sides_sorted_and_within_its_depth() -> None:
    book = LiveBook("BTCUSD", depth=2)
    book.replace(levels([("99", "1"), ("101", "1"), ("100", "1")]), levels([("105", "1"), ("103", "2"), ("104", "1")]))
    assert [level.price for level in book.bids()] == [101, 100]
    assert [level.price for level in book.asks()] == [103, 104]
    book.change(levels([("101", "0.0")]), levels([("102.5", "7"), ("777", "0")]))
    assert [level.price for level in book.bids()] == [100]
    assert [(level.price, level.quantity) for level in book.asks(1)] == [(Decimal("102.5"), Decimal(7))]
    assert (book.best_bid, book.best_ask, book.crossed) == (Decimal(100), Decimal("102.5"), False)
    book.change(levels([("103", "1")]), [])
    assert book.crossed


async def test_a_book_follows_its_deltas(client: ExchangeClient, server: FakeServer) -> None:
    server.markets.scripts = [
        [
            snapshot(5, BIDS, ASKS),
            delta(5, 6, [("100.50", "1.0")], [], (BETTER, ASKS)),
            pb.OrderBookUpdate(sequence=6, prev_sequence=6, checksum=checksum(BETTER, ASKS), mode=types_pb2.HALTED),
            None,
        ]
    ]
    async with client.book_stream("BTCUSD") as stream:
        assert [(await anext(stream)).sequence for _ in range(2)] == [5, 6]
        assert stream.book.best_bid == Decimal("100.50")
        assert (await anext(stream)).mode == "HALTED"
        assert (stream.gaps, stream.mismatches, stream.reconnects) == (0, 0, 0)


async def test_a_gap_discards_the_book_and_fetches_a_new_one(client: ExchangeClient, server: FakeServer) -> None:
    server.markets.scripts = [
        [snapshot(5, BIDS, ASKS, token="t5"), delta(7, 8, [("1", "1")], [], (BIDS, ASKS)), None],
        [snapshot(9, BETTER, ASKS), None],
    ]
    async with client.book_stream("BTCUSD") as stream:
        assert (await anext(stream)).sequence == 5
        assert (await anext(stream)).sequence == 9
        assert (stream.gaps, stream.resets) == (1, 1)
    assert server.markets.tokens == ["", ""], "what is wrong is not continued"


async def test_a_book_whose_checksum_differs_is_never_shown(client: ExchangeClient, server: FakeServer) -> None:
    wrong = delta(5, 6, [("100.50", "1.0")], [], (BIDS, ASKS))
    server.markets.scripts = [[snapshot(5, BIDS, ASKS), wrong, None], [snapshot(9, BETTER, ASKS), None]]
    async with client.book_stream("BTCUSD") as stream:
        assert (await anext(stream)).sequence == 5
        following = asyncio.create_task(anext(stream))
        await until(lambda: stream.mismatches, "the mismatch was seen")
        assert stream.book.bids() == (), "empty rather than wrong"
        assert not stream.book.live
        assert (await following).sequence == 9


async def test_a_crossed_book_is_never_shown(client: ExchangeClient, server: FakeServer) -> None:
    crossed: Levels = [("102.00", "1")]
    server.markets.scripts = [[snapshot(5, crossed, ASKS), None], [snapshot(6, BIDS, ASKS), None]]
    async with client.book_stream("BTCUSD") as stream:
        assert (await anext(stream)).sequence == 6
        assert stream.mismatches == 1


async def test_a_lost_connection_is_continued_by_token(client: ExchangeClient, server: FakeServer) -> None:
    server.markets.scripts = [
        [snapshot(5, BIDS, ASKS, token="t5"), "JOURNAL_UNAVAILABLE"],
        [delta(5, 6, [("100.50", "1.0")], [], (BETTER, ASKS)), None],
    ]
    async with client.book_stream("BTCUSD") as stream:
        await anext(stream)
        assert (await anext(stream)).best_bid == Decimal("100.50")
        assert (stream.reconnects, stream.gaps, stream.resets) == (1, 0, 0)
    assert server.markets.tokens == ["", "t5"]


@pytest.mark.parametrize("reason", ["HISTORY_CHANGED", "INVALID_RESUME_TOKEN", "SEQUENCE_NOT_RETAINED"])
async def test_a_token_that_is_refused_is_dropped(client: ExchangeClient, server: FakeServer, reason: str) -> None:
    end = pb.OrderBookUpdate(end=types_pb2.StreamEnd(reason="SLOW_CONSUMER", resume_token="t5"))
    server.markets.scripts = [[snapshot(5, BIDS, ASKS), end], [reason], [snapshot(2, BETTER, ASKS), None]]
    async with client.book_stream("BTCUSD") as stream:
        await anext(stream)
        assert (await anext(stream)).sequence == 2
    assert server.markets.tokens == ["", "t5", ""]


async def test_a_drain_notice_is_followed_at_once(client: ExchangeClient, server: FakeServer) -> None:
    notice = pb.OrderBookUpdate(drain=types_pb2.DrainNotice(resume_token="t5"))
    server.markets.scripts = [
        [snapshot(5, BIDS, ASKS), notice, None],
        [delta(5, 6, [("100.50", "1.0")], [], (BETTER, ASKS)), None],
    ]
    async with client.book_stream("BTCUSD") as stream:
        await anext(stream)
        assert (await anext(stream)).sequence == 6
    assert server.markets.tokens == ["", "t5"]


async def test_a_mute_stream_is_replaced_while_heartbeats_keep_one_alive(
    client: ExchangeClient, server: FakeServer
) -> None:
    beat = pb.OrderBookUpdate(
        sequence=5,
        prev_sequence=5,
        checksum=checksum(BIDS, ASKS),
        heartbeat=types_pb2.Heartbeat(head_sequence=77, resume_token="t5"),
    )
    server.markets.scripts = [[snapshot(5, BIDS, ASKS), beat, None], [beat, snapshot(6, BETTER, ASKS), None]]
    # Longer than a busy machine takes for the first message.
    async with client.book_stream("BTCUSD", stale_after=0.5) as stream:
        await anext(stream)
        assert (await anext(stream)).sequence == 6
        assert stream.head_sequence == 77
        assert stream.reconnects >= 1
    assert server.markets.tokens[:2] == ["", "t5"]


async def test_an_unknown_symbol_ends_the_feed(client: ExchangeClient, server: FakeServer) -> None:
    server.markets.scripts = [["UNKNOWN_SYMBOL"]]
    with pytest.raises(NotFound):
        await anext(client.book_stream("NOPE"))


async def test_an_outage_beyond_what_the_caller_allows_is_raised(client: ExchangeClient, server: FakeServer) -> None:
    await server.kill()
    with pytest.raises(Exception, match="UPSTREAM_UNAVAILABLE"):
        await anext(client.book_stream("BTCUSD", max_downtime=0.05))


async def test_a_cancelled_wait_does_not_end_the_feed(client: ExchangeClient, server: FakeServer) -> None:
    server.markets.scripts = [
        [snapshot(5, BIDS, ASKS, token="t5"), None],
        [delta(5, 6, [("100.50", "1.0")], [], (BETTER, ASKS)), None],
    ]
    async with client.book_stream("BTCUSD") as stream:
        await anext(stream)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(stream)
        assert (await anext(stream)).sequence == 6


def trades(previous: int, sequence: int, *ids: str) -> pb.TradeUpdate:
    batch = pb.TradeBatch(
        trades=[
            types_pb2.Trade(trade_id=each, symbol="BTCUSD", price="1", quantity="2", taker_side=types_pb2.BUY)
            for each in ids
        ]
    )
    if previous:
        return pb.TradeUpdate(sequence=sequence, prev_sequence=previous, trades=batch)
    return pb.TradeUpdate(sequence=sequence, snapshot=batch)


async def test_trades_come_once_though_a_new_snapshot_repeats_them(client: ExchangeClient, server: FakeServer) -> None:
    server.markets.scripts = [
        [trades(0, 10, "8-0", "10-0"), trades(10, 11, "11-0", "11-1"), trades(12, 13, "13-0"), None],
        [trades(0, 13, "10-0", "11-0", "11-1", "12-0", "13-0"), None],
    ]
    async with client.trade_stream("BTCUSD") as stream:
        seen = [(await anext(stream)).trade_id for _ in range(6)]
    assert seen == ["8-0", "10-0", "11-0", "11-1", "12-0", "13-0"]
    assert stream.gaps == 1


async def test_own_events_begin_with_open_orders_and_go_on_across_a_restart(
    client: ExchangeClient, exchange: FakeExchange, server: FakeServer
) -> None:
    resting = await client.place_order("BTCUSD", "SELL", 2, 100)
    async with client.order_events() as events:
        first = await anext(events)
        assert isinstance(first, OrdersSnapshot)
        assert [order.order_id for order in first.orders] == [resting.order_id]
        await client.place_order("BTCUSD", "BUY", 1, 100)
        seen: list[Any] = [await anext(events) for _ in range(3)]
        assert [type(each) for each in seen] == [Fill, Fill, Order]
        assert {fill.is_maker for fill in seen[:2]} == {True, False}
        await server.kill()
        await server.start()
        await client.place_order("BTCUSD", "BUY", 1, 100)
        assert isinstance(await anext(events), Fill)
        assert (events.snapshots, events.gaps) == (1, 0)
        assert events.reconnects >= 1


async def test_balances_are_a_snapshot_and_what_changes(client: ExchangeClient) -> None:
    await client.admin.credit_account("demo", "BTC", 3)
    await client.admin.credit_account("demo", "USD", 10)
    async with client.balance_stream() as stream:
        assert (await anext(stream)).is_snapshot
        changed = await anext(stream)
        assert [balance.asset for balance in changed.balances] == ["USD"]
        assert {asset: balance.total for asset, balance in stream.balances.items()} == {"BTC": 3, "USD": 5}

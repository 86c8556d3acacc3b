"""MarketService as market data answers it: what the engine would answer, with its tokens, and no older."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import generate_latest

from exchange.market_data.service import reading
from exchange.market_data.service.source import EventSource
from exchange.trading.core import commands as cmd
from exchange.trading.core.constants import CANCEL_ONLY
from pincex.trading.v1 import market_service_pb2 as pb
from pincex.trading.v1 import types_pb2
from tests.integration.market_data.books_app import MarketBooks, running_books
from tests.integration.trading.book_copy import BookCopy
from tests.integration.trading.engine_app import BUY, SELL, Exchange, eventually, refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def books(exchange: Exchange) -> AsyncIterator[MarketBooks]:
    """Beside the engine, which has done something already."""
    await trade(exchange, 12)
    async with running_books(exchange) as found:
        yield found


async def trade(exchange: Exchange, steps: int, first: int = 0) -> int:
    """Orders on both sides, of which every third trades; answers the last sequence."""
    last = 0
    for step in range(first, first + steps):
        client, side = ((exchange.demo, BUY), (exchange.maker, SELL))[step % 2]
        price = f"{50_000 + (step % 3) * (1 if side == BUY else -1)}"
        order = await client.place(side, f"0.{1 + step % 7}", price, self_trade_prevention=types_pb2.NONE)
        last = order.sequence
    return last


async def both(exchange: Exchange, books: MarketBooks, method: str, request: Any) -> tuple[Any, Any]:
    """Our answer and the engine's."""
    ours = await books.ask(method, request)
    return ours, await exchange.demo.ask(getattr(exchange.demo.markets, method), request)


async def test_each_answer_is_the_engine_s(exchange: Exchange, books: MarketBooks) -> None:
    await trade(exchange, 10, 12)
    await exchange.app.desk.submit([cmd.set_market_mode("ops", 1, CANCEL_ONLY)])
    for method, request in (
        ("ListMarkets", pb.ListMarketsRequest()),
        ("GetMarket", pb.GetMarketRequest(symbol="BTC/USD")),
        ("GetMarket", pb.GetMarketRequest(symbol="ETHUSD")),
        ("GetOrderBook", pb.GetOrderBookRequest(symbol="BTCUSD")),
        ("GetOrderBook", pb.GetOrderBookRequest(symbol="BTCUSD", depth=1)),
        ("GetOrderBook", pb.GetOrderBookRequest(symbol="ETHUSD")),
        ("GetOrderBook", pb.GetOrderBookRequest(symbol="BTCUSD", as_of_sequence=exchange.engine.state.sequence - 9)),
        ("ListMarketTrades", pb.ListMarketTradesRequest(symbol="BTCUSD")),
    ):
        ours, its = await both(exchange, books, method, request)
        assert ours == its, method


async def test_pages_go_on_where_they_ended(exchange: Exchange, books: MarketBooks) -> None:
    await trade(exchange, 10, 12)
    whole = (await books.ask("ListMarketTrades", pb.ListMarketTradesRequest(symbol="BTCUSD"))).trades
    assert len(whole) > 5
    found: list[Any] = []
    token = ""
    while True:
        page = await books.ask(
            "ListMarketTrades", pb.ListMarketTradesRequest(symbol="BTCUSD", page_size=2, page_token=token)
        )
        found += page.trades
        token = page.next_page_token
        if not token:
            break
    assert found == list(whole)
    first = await books.ask("ListMarkets", pb.ListMarketsRequest(page_size=1))
    second = await books.ask("ListMarkets", pb.ListMarketsRequest(page_size=1, page_token=first.next_page_token))
    assert [market.symbol for page in (first, second) for market in page.markets] == ["BTCUSD", "ETHUSD"]


async def test_who_has_written_reads_it_without_saying_so(
    exchange: Exchange, books: MarketBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FRESH_S", 20.0)
    await books.caught_up(exchange)
    follower, held = books.part.follower, list[Any]()
    take = follower._take
    monkeypatch.setattr(follower, "_take", held.append)
    sequence = (await exchange.demo.buy("0.1", "40000")).sequence
    asked = asyncio.create_task(books.ask("GetOrderBook", pb.GetOrderBookRequest(symbol="BTCUSD")))
    await eventually(lambda: [wanted for wanted, _ in follower._waiting] == [sequence], "it waits for what is durable")
    await eventually(lambda: any(held), "the frame is there")
    monkeypatch.setattr(follower, "_take", take)
    for batches in held:
        take(batches)

    assert (await asked).sequence == sequence


async def test_a_read_waits_for_its_sequence_and_no_longer_than_said(
    exchange: Exchange, books: MarketBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = exchange.engine.state.sequence
    request = pb.GetOrderBookRequest(symbol="BTCUSD", min_sequence=head + 1)
    waiting = asyncio.create_task(books.ask("GetOrderBook", request))
    await eventually(lambda: bool(books.part.follower._waiting), "it waits")
    await exchange.demo.buy("0.1", "40000")
    assert (await waiting).sequence == head + 1

    monkeypatch.setattr(reading, "READ_WAIT_S", 0.01)
    far = pb.GetOrderBookRequest(symbol="BTCUSD", min_sequence=head + 100)
    assert (await refused(books.ask("GetOrderBook", far))).reason == "SEQUENCE_NOT_REACHED"


async def test_without_an_engine_reads_are_answered_from_what_is_here(
    exchange: Exchange, books: MarketBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FRESH_S", 0.1)
    sequence = await books.caught_up(exchange)
    await exchange.stop()

    book = await books.ask("GetOrderBook", pb.GetOrderBookRequest(symbol="BTCUSD"))
    assert book.sequence == sequence


@pytest.mark.parametrize(
    ("method", "request_", "reason"),
    [
        ("GetMarket", pb.GetMarketRequest(symbol="NONE"), "UNKNOWN_SYMBOL"),
        ("GetMarket", pb.GetMarketRequest(), "FIELD_REQUIRED"),
        ("GetOrderBook", pb.GetOrderBookRequest(symbol="BTCUSD", depth=5001), "INVALID_FIELD"),
        ("GetOrderBook", pb.GetOrderBookRequest(symbol="BTCUSD", as_of_sequence=10**6), "SEQUENCE_IN_FUTURE"),
        ("ListMarkets", pb.ListMarketsRequest(page_size=501), "INVALID_FIELD"),
        ("ListMarketTrades", pb.ListMarketTradesRequest(symbol="BTCUSD", page_token="x"), "INVALID_PAGE_TOKEN"),
    ],
)
async def test_bad_requests_get_the_engine_s_reasons(
    exchange: Exchange, books: MarketBooks, method: str, request_: Any, reason: str
) -> None:
    assert (await refused(books.ask(method, request_))).reason == reason
    assert (await refused(exchange.demo.ask(getattr(exchange.demo.markets, method), request_))).reason == reason


async def test_a_book_stream_goes_on_at_the_engine_and_back(exchange: Exchange, books: MarketBooks) -> None:
    copy, last = BookCopy(), 0
    for step in range(6):
        request = pb.StreamOrderBookRequest(symbol="BTCUSD", depth=50, resume_token=copy.token)
        stream = (
            books.stream("StreamOrderBook", request)
            if step % 2
            else exchange.demo.stream(exchange.demo.markets.StreamOrderBook, request)
        )
        if step == 0:
            copy.apply(await stream.next())
        last = (await exchange.demo.buy("0.1", f"{49_000 + step}")).sequence
        while copy.sequence < last:
            copy.apply(await stream.next())
        stream.call.cancel()

    # What both had kept was gone on with; each copies the book anew where it did not run yet.
    assert copy.snapshots <= 2
    book = await exchange.demo.ask(
        exchange.demo.markets.GetOrderBook, pb.GetOrderBookRequest(symbol="BTCUSD", depth=50)
    )
    assert copy.checksum() == book.checksum


async def test_trades_missed_are_read_from_the_engine_without_a_gap(exchange: Exchange, books: MarketBooks) -> None:
    stream = exchange.demo.stream(exchange.demo.markets.StreamTrades, pb.StreamTradesRequest(symbol="BTCUSD"))
    first = await stream.next()
    stream.call.cancel()
    known = [trade.trade_id for trade in first.snapshot.trades]
    await trade(exchange, 12, 12)
    await books.caught_up(exchange)

    again = books.stream("StreamTrades", pb.StreamTradesRequest(symbol="BTCUSD", resume_token=first.resume_token))
    sequence, found = first.sequence, known
    page = (await books.ask("ListMarketTrades", pb.ListMarketTradesRequest(symbol="BTCUSD"))).trades
    expected = [trade.trade_id for trade in reversed(page)]
    while len(found) < len(expected):
        message = await again.next()
        assert message.prev_sequence == sequence, "a gap"
        sequence = message.sequence
        found += [trade.trade_id for trade in message.trades.trades]
    assert found == expected
    again.call.cancel()


async def test_books_are_proved_by_the_engine_s_hashes_and_made_anew_where_they_differ(
    exchange: Exchange, books: MarketBooks
) -> None:
    await exchange.demo.buy("0.1", "40000")
    await exchange.app.desk.submit([cmd.hash_book(0)])
    await books.caught_up(exchange)
    part = books.part
    assert (part.books.verified, part.books.differed, part.follower.restarts) == (1, 0, 1)
    stream, copy = books.stream("StreamOrderBook", pb.StreamOrderBookRequest(symbol="BTCUSD")), BookCopy()
    copy.apply(await stream.next())

    book = part.books.markets["BTCUSD"].book
    # An order has lost a lot, and nothing says so.
    order = next(order for order in book.in_priority() if order.side == BUY)
    book._set_lots(order, order.lots - 1)
    await exchange.app.desk.submit([cmd.hash_book(0)])
    await eventually(lambda: part.follower.restarts == 2, "the books are made anew")

    assert part.books.differed == 1
    last = (await exchange.demo.buy("0.1", "40001")).sequence
    while copy.sequence < last:
        copy.apply(await stream.next())
    its = await exchange.demo.ask(
        exchange.demo.markets.GetOrderBook, pb.GetOrderBookRequest(symbol="BTCUSD", depth=5000)
    )
    assert (copy.checksum(), copy.snapshots) == (its.checksum, 2)
    text = generate_latest(books.registry).decode()
    assert "pincex_market_data_books_differed_total" in text
    stream.call.cancel()


async def test_a_lost_connection_is_taken_up_again(exchange: Exchange, books: MarketBooks) -> None:
    """The leader gives its core up, and recovers another: the stream of events ends and goes on."""
    await books.caught_up(exchange)
    await exchange.lead_again()
    await exchange.demo.buy("0.1", "40000")
    await books.caught_up(exchange)

    assert books.part.follower.restarts == 1
    assert isinstance(books.part.follower._source, EventSource)

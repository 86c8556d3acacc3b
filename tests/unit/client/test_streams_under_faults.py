"""Whatever goes wrong on the way: what a stream shows is right, or said to be old, and right again afterwards."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from pincex.marketdata.v1 import market_data_service_pb2 as pb
from pincex.trading.v1 import types_pb2
from pincex_client import BookStream, ExchangeClient, LiveBook
from pincex_client.horizon import Horizon
from tests.unit.client.conftest import until
from tests.unit.client.fake_history import candle
from tests.unit.client.faulty_markets import FAULTS, FaultyMarkets, Truth, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SILENCE_S = 0.15


@pytest.fixture
def markets(request: pytest.FixtureRequest) -> FaultyMarkets:
    return FaultyMarkets(getattr(request, "param", 1))


@pytest.fixture
async def faulty(markets: FaultyMarkets) -> AsyncIterator[ExchangeClient]:
    """A client of a server that goes wrong."""
    async with served(markets) as target, ExchangeClient(target) as client:
        yield client


def sides(book: LiveBook) -> tuple[dict[str, str], dict[str, str]]:
    bids, asks = ({str(level.price): str(level.quantity) for level in levels} for levels in (book.bids(), book.asks()))
    return bids, asks


class Watcher:
    """Reads a stream, and looks at the book whenever it can: a book that is shown as good must have been true."""

    def __init__(self, stream: BookStream, markets: FaultyMarkets) -> None:
        self.stream = stream
        self._markets = markets
        self._truths = [markets.truth]
        self.task = asyncio.create_task(self._read())
        self.looks = 0

    async def _read(self) -> None:
        async for _ in self.stream:
            self.look()

    def look(self) -> None:
        """Raises AssertionError for a wrong book that nobody said was wrong."""
        if self._markets.truth is not self._truths[-1]:
            self._truths.append(self._markets.truth)
        book = self.stream.book
        if not book.live:
            assert sides(book) == ({}, {}), "empty rather than wrong"
        else:
            assert any(truth.books.get(book.sequence) == sides(book) for truth in self._truths), book.sequence
        self.looks += 1

    def is_good(self) -> bool:
        """Whether it shows the newest truth, and says so."""
        self.look()
        book, truth = self.stream.book, self._markets.truth
        return not book.stale and book.live and book.sequence == truth.last and sides(book) == truth.books[truth.last]


async def test_a_book_is_right_or_says_that_it_is_old_whatever_happens(
    faulty: ExchangeClient, markets: FaultyMarkets
) -> None:
    """Each fault some times, in any order, amid changes."""
    order = [*FAULTS, *FAULTS]
    random.Random(7).shuffle(order)
    async with faulty.book_stream("BTCUSD", stale_after=SILENCE_S) as stream:
        watcher = Watcher(stream, markets)
        await until(watcher.is_good, "the first book")
        for fault in order:
            before = stream.reconnects
            markets.fault = fault
            for _ in range(3):
                markets.change()
                await asyncio.sleep(0)
            if fault == "silence":
                await until(lambda: stream.trouble == "connecting" or stream.reconnects > before, "it noticed")  # noqa: B023
            await until(lambda: stream.reconnects > before, f"{fault} was noticed")  # noqa: B023
            await until(watcher.is_good, f"right again after {fault}")
        watcher.task.cancel()
        await asyncio.wait([watcher.task])
        assert watcher.task.cancelled(), watcher.task.exception()
    assert markets.struck == order
    assert (stream.gaps, stream.mismatches) == (2, 4), "each fault was taken for what it was"
    # Also each restart threw all away; a drain, a silence, an end or a lost connection did not.
    assert stream.resets == 2 + 4 + 2
    assert watcher.looks > len(order)


async def test_who_reads_is_told_when_the_book_becomes_old(faulty: ExchangeClient, markets: FaultyMarkets) -> None:
    async with faulty.book_stream("BTCUSD", tell_stale=True, stale_after=SILENCE_S) as stream:
        assert stream.book.stale
        assert stream.trouble == "connecting"
        assert not (await anext(stream)).stale
        markets.fault = "silence"
        markets.change()
        told = await anext(stream)
        assert (told.stale, told.live, stream.trouble) == (True, True, "connecting")
        again = await anext(stream)
        assert (again.stale, sides(again)) == (False, markets.truth.books[markets.truth.last])


async def test_a_book_that_nobody_reads_on_is_old(faulty: ExchangeClient, markets: FaultyMarkets) -> None:
    async with faulty.book_stream("BTCUSD", stale_after=0.02) as stream:
        await anext(stream)
        await until(lambda: stream.trouble == "silent", "it is old")
        assert stream.book.stale


async def test_a_stream_whose_head_stands_still_is_connected_anew(
    faulty: ExchangeClient, markets: FaultyMarkets
) -> None:
    """Heartbeats come, and yet nothing does: others have seen that the exchange went on."""
    async with faulty.book_stream("BTCUSD", behind_after=0.05) as stream:
        watcher = Watcher(stream, markets)
        await until(watcher.is_good, "the first book")
        markets.head = markets.truth.last
        faulty._horizon.saw(markets.truth.last + 500)

        def beaten() -> bool:
            markets.wake()
            return bool(stream.laggings)

        await until(beaten, "it noticed that it lies behind")
        assert stream.book.stale
        markets.head = markets.truth.last + 500
        markets.wake()
        await until(watcher.is_good, "right again")
        watcher.task.cancel()
        await asyncio.wait([watcher.task])
    assert (stream.gaps, stream.resets) == (0, 0)


async def test_a_snapshot_of_before_what_was_shown_is_said_to_be_old(
    faulty: ExchangeClient, markets: FaultyMarkets
) -> None:
    """Another instance that lies behind: it does not know the token yet, and gives its own book."""
    async with faulty.book_stream("BTCUSD") as stream:
        await anext(stream)
        markets.change()
        shown = await _newest_of(stream, markets)
        markets.fault = "disconnect"
        behind = markets.lagging = Truth(1, 100)
        markets.change()
        assert (await anext(stream)).sequence == behind.last < shown
        assert stream.trouble == "behind"
        behind.books |= markets.truth.books
        behind.changes |= markets.truth.changes
        markets.wake()
        await _newest_of(stream, markets)
        assert stream.trouble == ""


async def _newest_of(stream: BookStream, markets: FaultyMarkets) -> int:
    """Read on to the newest truth."""
    async for book in stream:
        if book.sequence == markets.truth.last:
            return book.sequence
    raise AssertionError("a feed has no end")


def update(sequence: int, previous: int, *candles: Any, snapshot: bool = False) -> pb.MarketDataUpdate:
    batch = pb.CandleBatch(candles=candles)
    token = f"t{sequence}"
    return pb.MarketDataUpdate(
        sequence=sequence, prev_sequence=previous, resume_token=token, snapshot=snapshot, candles=batch
    )


async def test_candles_go_on_by_token_and_a_gap_begins_them_anew(
    faulty: ExchangeClient, markets: FaultyMarkets
) -> None:
    drain = types_pb2.DrainNotice(resume_token="t7")
    markets.candles = [
        [
            update(5, 0, candle(5, 60), snapshot=True),
            update(7, 5, candle(7, 60)),
            pb.MarketDataUpdate(drain=drain),
            None,
        ],
        [update(9, 7, candle(7, 60, closed=True), candle(9, 120)), update(12, 11, candle(12, 120)), None],
        [update(12, 0, candle(12, 120), snapshot=True), "JOURNAL_UNAVAILABLE"],
        ["SEQUENCE_NOT_RETAINED"],
        [update(99, 0, candle(99, 600), snapshot=True), None],
    ]
    async with faulty.market_data.candle_stream("BTCUSD") as stream:
        seen = [await anext(stream) for _ in range(4)]
        assert [(one.sequence, one.closed) for one in seen] == [(5, False), (7, False), (7, True), (9, False)]
        assert (await anext(stream)).sequence == 12
        assert (stream.gaps, stream.missed) == (1, 0), "the same candle: nothing is missing"
        assert (await anext(stream)).sequence == 99
        assert stream.missed == 1, "list_candles has what came in between"
        assert stream.newest is not None
        assert stream.newest.sequence == 99
    assert markets.tokens == ["", "t7", "", "t12", ""]


async def test_another_history_is_said_to_be_one(faulty: ExchangeClient, markets: FaultyMarkets) -> None:
    markets.candles = [
        [update(50, 0, candle(50, 60), snapshot=True), "JOURNAL_UNAVAILABLE"],
        ["HISTORY_CHANGED"],
        [update(5, 0, candle(5, 60), snapshot=True), None],
    ]
    async with faulty.market_data.candle_stream("BTCUSD") as stream:
        assert [(await anext(stream)).sequence for _ in range(2)] == [50, 5]
        assert (stream.missed, stream.resets, stream.trouble) == (1, 1, "")


def test_a_horizon_knows_what_was_known_a_while_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("pincex_client.horizon.time.monotonic", lambda: now)
    horizon = Horizon(keep=10)
    assert horizon.known_for(0) == 0
    for step in range(40):
        now = 100.0 + step
        horizon.saw(step + 1)
        horizon.saw(step)
    assert (horizon.newest, horizon.known_for(0), horizon.known_for(5), horizon.known_for(100)) == (40, 40, 35, 0)
    horizon.forget()
    assert (horizon.newest, horizon.known_for(0)) == (0, 0)

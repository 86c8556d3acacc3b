"""GetOrderBook with `as_of_sequence` and VerifyJournal, over gRPC, on an engine whose journal is in memory."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from exchange.trading.past import books
from exchange.trading.past.books import MAX_BUILDS
from exchange.trading.service import past
from pincex.trading.v1 import admin_replicas_pb2, admin_service_pb2, market_service_pb2
from tests.integration.trading.engine_app import DEADLINE_S, Exchange, Stream, eventually, refusal_of, refused


async def book(exchange: Exchange, symbol: str = "BTCUSD", **fields: Any) -> market_service_pb2.OrderBook:
    request = market_service_pb2.GetOrderBookRequest(symbol=symbol, **fields)
    found: market_service_pb2.OrderBook = await exchange.demo.ask(exchange.demo.markets.GetOrderBook, request)
    return found


def verification(exchange: Exchange, first: int = 0, last: int = 0) -> Stream:
    request = admin_replicas_pb2.VerifyJournalRequest(from_sequence=first, to_sequence=last)
    return exchange.operator.stream(exchange.operator.admin.VerifyJournal, request)


async def verified(exchange: Exchange) -> admin_replicas_pb2.VerifyJournalProgress | None:
    """What a verification finds, None while another one runs."""
    try:
        found: admin_replicas_pb2.VerifyJournalProgress = (await verification(exchange).rest())[-1]
    except grpc.RpcError as error:
        if refusal_of(error).reason != "OVERLOADED":
            raise
        return None
    return found


async def set_mode(exchange: Exchange, method: str) -> None:
    request = admin_service_pb2.SetMarketModeRequest(symbol="BTCUSD", reason="test")
    await exchange.operator.ask(getattr(exchange.operator.admin, method), request)


def retry_delay_of(error: Any) -> float:
    """Seconds after which an error says that the call may be made again."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details), "it says nothing of it"
    return float(retry.retry_delay.ToTimedelta().total_seconds())


def damage_last_frame(exchange: Exchange) -> int:
    """Alter a byte of what is stored last; answers its first sequence."""
    frames = exchange.store.frames
    frames[-1] = replace(frames[-1], events=frames[-1].events[:-1] + bytes([frames[-1].events[-1] ^ 1]))
    return frames[-1].first_sequence


async def test_a_book_of_the_past_is_what_was_answered_then(exchange: Exchange) -> None:
    told: dict[int, market_service_pb2.OrderBook] = {}

    async def note() -> None:
        found = await book(exchange, depth=2)
        told[found.sequence] = found

    for step in range(6):
        await exchange.demo.buy("0.5", f"{48_000 + 100 * step}")
        await note()
        await exchange.maker.sell("0.25", f"{49_000 - 100 * step}")
        await note()
    await set_mode(exchange, "HaltMarket")
    await note()
    await set_mode(exchange, "ResumeMarket")
    await exchange.demo.buy("1", "40000")
    await note()

    assert len({message.checksum for message in told.values()}) > 8
    for sequence, message in told.items():
        assert await book(exchange, depth=2, as_of_sequence=sequence) == message
    assert (await book(exchange, "btc/usd", depth=2, as_of_sequence=sequence)) == message


async def test_a_book_shows_the_levels_asked_for_and_the_checksum_of_the_ten_best(exchange: Exchange) -> None:
    for step in range(12):
        await exchange.demo.buy("0.5", f"{48_000 - step}")
        await exchange.maker.sell("0.25", f"{52_000 + step}")
    for sequence in (0, exchange.engine.state.sequence):
        few, many = (
            await book(exchange, depth=2, as_of_sequence=sequence),
            await book(exchange, as_of_sequence=sequence),
        )
        assert (len(few.bids), len(few.asks), len(many.bids), len(many.asks)) == (2, 2, 12, 12)
        assert (few.bids[0].price, few.asks[0].price) == ("48000.00", "52000.00")
        assert (few.bid_quantity, few.ask_level_count) == ("6.00000", 12)
        levels = [level for pair in zip(many.bids[:10], many.asks[:10], strict=True) for level in pair]
        text = ":".join(f"{level.price}:{level.quantity}" for level in levels)
        assert few.checksum == many.checksum == zlib.crc32(text.encode())


async def test_sequences_that_cannot_be_shown_are_refused_with_what_can(exchange: Exchange) -> None:
    head = (await exchange.demo.buy("0.5", "48000")).sequence

    beyond = await refused(book(exchange, as_of_sequence=head + 1))
    assert (beyond.code, beyond.reason) == ("OUT_OF_RANGE", "SEQUENCE_IN_FUTURE")
    assert beyond.metadata == {"head_sequence": str(head)}
    assert (await refused(book(exchange, as_of_sequence=2**64 - 1))).reason == "SEQUENCE_IN_FUTURE"
    assert (await refused(book(exchange, "NONE", as_of_sequence=head))).reason == "UNKNOWN_SYMBOL"
    before = await refused(book(exchange, as_of_sequence=1))
    assert (before.reason, before.metadata) == ("UNKNOWN_SYMBOL", {"symbol": "BTCUSD"})
    assert "not exist yet" in before.message
    assert (await refused(book(exchange, as_of_sequence=head, depth=5_001))).reason == "INVALID_FIELD"


async def test_what_was_archived_is_refused_with_the_floor(exchange: Exchange) -> None:
    await exchange.demo.buy("0.5", "48000")
    request = admin_service_pb2.CreateSnapshotRequest(reason="test")
    oldest = (await exchange.operator.ask(exchange.operator.admin.CreateSnapshot, request)).snapshot_sequence
    exchange.store.keep_frames = 0
    exchange.store.drop_covered()
    await exchange.demo.buy("0.5", "48000")

    below = await refused(book(exchange, as_of_sequence=oldest - 1))
    assert (below.reason, below.metadata) == ("SEQUENCE_NOT_RETAINED", {"floor_sequence": str(oldest)})
    assert (await book(exchange, as_of_sequence=oldest)).bid_order_count == 1
    lower = await refused(verification(exchange, oldest).next())
    assert (lower.reason, lower.metadata) == ("SEQUENCE_NOT_RETAINED", {"floor_sequence": str(oldest + 1)})


async def test_with_both_sequences_set_the_first_is_waited_for_and_the_second_is_shown(exchange: Exchange) -> None:
    first = (await exchange.demo.buy("0.5", "48000")).sequence
    waiting = asyncio.create_task(book(exchange, as_of_sequence=first, min_sequence=first + 1))
    await exchange.demo.buy("0.5", "48000")
    found = await waiting
    assert (found.sequence, found.bid_order_count) == (first, 1)
    never = await refused(book(exchange, as_of_sequence=first, min_sequence=first + 100))
    assert never.reason == "SEQUENCE_NOT_REACHED"


async def test_more_books_than_may_be_built_at_a_time_are_refused_for_now(exchange: Exchange, monkeypatch) -> None:
    head = [(await exchange.demo.buy("0.5", "48000")).sequence for _ in range(MAX_BUILDS)][-1]
    release = asyncio.Event()
    started: list[int] = []
    build = books.book_at

    async def slow(journal, symbol, sequence):
        started.append(sequence)
        await release.wait()
        return await build(journal, symbol, sequence)

    monkeypatch.setattr(books, "book_at", slow)
    asking = [asyncio.create_task(book(exchange, as_of_sequence=head - number)) for number in range(MAX_BUILDS)]
    await eventually(lambda: len(started) == MAX_BUILDS, "the builds have begun")
    with pytest.raises(grpc.RpcError) as more:
        await book(exchange, as_of_sequence=head - MAX_BUILDS)
    found = refusal_of(more.value)
    assert (found.code, found.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert retry_delay_of(more.value) == past.BUSY_RETRY_S
    assert (await book(exchange)).sequence == head, "the present is not held up"
    release.set()
    assert {built.sequence for built in await asyncio.gather(*asking)} == {head, head - 1}


async def test_a_damaged_journal_is_found_while_the_exchange_goes_on(exchange: Exchange) -> None:
    await exchange.demo.buy("0.5", "48000")
    sound = await verification(exchange).rest()
    state = (await exchange.state_hash()).split()
    assert [message.done for message in sound] == [False, True]
    assert (sound[-1].valid, str(sound[-1].sequence), sound[-1].state_hash) == (True, *state)
    assert sound[-1].frame_hash == exchange.store.frames[-1].hash.hex()
    assert sound[-1].command_count == sound[-1].sequence

    place = damage_last_frame(exchange)
    found = (await verification(exchange).rest())[-1]
    assert (found.done, found.valid, found.state_hash) == (True, False, "")
    assert f"sequence {place}: the frame" in found.difference
    assert found.sequence == place - 1
    assert (await verification(exchange, 1, place - 1).rest())[-1].valid
    refusal = await refused(book(exchange, as_of_sequence=place))
    assert (refusal.code, refusal.reason) == ("DATA_LOSS", "STATE_DIFFERS")
    assert f"sequence {place}: " in refusal.message
    assert (await exchange.demo.buy("0.5", "48000")).sequence == place + 1, "the core in use is sound"


async def test_stretches_that_are_not_there_are_refused_before_the_first_message(exchange: Exchange) -> None:
    head = exchange.engine.state.sequence
    for first, last in ((head + 1, 0), (0, head + 1), (2**64 - 1, 0)):
        found = await refused(verification(exchange, first, last).next())
        assert (found.reason, found.metadata) == ("SEQUENCE_IN_FUTURE", {"head_sequence": str(head)})
    found = await refused(verification(exchange, 5, 4).next())
    assert (found.reason, found.metadata) == ("INVALID_FIELD", {"field": "to_sequence", "value": "4"})
    outsider = exchange.demo.stream(exchange.demo.admin.VerifyJournal, admin_replicas_pb2.VerifyJournalRequest())
    with pytest.raises(Exception, match="UNIMPLEMENTED"):
        await outsider.next()


async def test_a_verification_that_has_nothing_new_to_say_says_so(exchange: Exchange, monkeypatch) -> None:
    monkeypatch.setattr(past, "HEARTBEAT_S", 0.01)
    release = asyncio.Event()
    read = type(exchange.app.desk.journal).read

    async def slow(journal, *arguments, **options):
        await release.wait()
        async for frame in read(journal, *arguments, **options):
            yield frame

    monkeypatch.setattr(type(exchange.app.desk.journal), "read", slow)
    running = verification(exchange)
    first, *again = await running.take(3)
    assert again == [first, first]
    busy = await refused(verification(exchange).next())
    assert (busy.reason, busy.metadata) == ("OVERLOADED", {"limit": "1 verification at a time"})
    release.set()
    assert (await running.rest())[-1].valid


async def test_whoever_leaves_a_verification_makes_room_for_the_next(exchange: Exchange, monkeypatch) -> None:
    with monkeypatch.context() as patch:

        async def endless(journal, *arguments, **options):
            await asyncio.Event().wait()
            yield

        patch.setattr(type(exchange.app.desk.journal), "read", endless)
        leaving = verification(exchange)
        await leaving.next()
        await leaving.cancel()
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    # The server hears of it a moment later than the client has left.
    while (found := await verified(exchange)) is None:
        assert asyncio.get_running_loop().time() < deadline, "the one that left still takes the place"
    assert found.valid

"""Whatever way a book is sent, a client that follows the contract holds the engine's book, from wherever it resumes."""

from __future__ import annotations

import asyncio
import tracemalloc
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

from exchange.market_data import events as ev
from exchange.runtime.errors import ErrorReason
from exchange.runtime.feeds import channel as channel_module
from tests.unit.market_data.engine_history import INCARNATION, EngineHistory, Wish, token
from tests.unit.market_data.streams_rig import MESSAGES, Instance, Reader, copy_of, refused, settle
from tests.unit.market_data.wishes import frames

if TYPE_CHECKING:
    from exchange.market_data.book import OrderBook

STREAMS = (
    *(f"levels {depth} {interval}" for depth in (0, 10, 50) for interval in (0, 100, 1000)),
    "orders",
    "best",
    "best XY",
    "status XY XZ",
)


def assert_holds(what: str, copy: Any, history: EngineHistory, book: OrderBook) -> None:
    """The copy is what the engine has."""
    market = history.engine.state.markets[0]
    kind, *more = what.split()
    if kind == "levels":
        depth = int(more[0]) or None
        for told, side in zip(copy.best(), (market.bids, market.asks), strict=True):
            prices = [key * side.sign for key in reversed(side.keys)][:depth]
            assert told == [
                (book.prices.text(price), book.quantities.text(side.levels[price].lots), side.levels[price].count)
                for price in prices
            ]
    elif kind == "orders":
        told = [(order_id, price, quantity) for side in (1, 2) for price, order_id, quantity in copy.in_priority(side)]
        assert told == [
            (str(order.order_id), book.prices.text(order.price), book.quantities.text(order.lots))
            for order in book.in_priority()
        ]
    elif kind == "best":
        best = copy.values["XY"]
        bid, ask = (side.keys[-1] * side.sign if side.keys else 0 for side in (market.bids, market.asks))
        assert best.bid_price == (book.prices.text(bid) if bid else "")
        assert best.ask_price == (book.prices.text(ask) if ask else "")
        assert set(copy.values) == (set(more) or {"XY", "XZ"})
    else:
        assert {value.mode for value in copy.values.values()} == {market.mode}


def next_batch(history: EngineHistory, wishes: list[Wish]) -> ev.Batch:
    for wish in wishes:
        history.wish(wish)
    return history.batch()


@given(before=frames, after=frames)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_stream_shows_the_engine_s_book_and_every_token_resumes_it(
    before: list[list[Wish]], after: list[list[Wish]]
) -> None:
    asyncio.run(_follow_and_resume(before, after))


async def _follow_and_resume(before: list[list[Wish]], after: list[list[Wish]]) -> None:
    history = EngineHistory()
    for wishes in before:
        next_batch(history, wishes)
    instance = Instance(history.snapshot())
    readers = {what: Reader(instance, what) for what in STREAMS}
    copies = {what: copy_of(what) for what in STREAMS}
    # What each client held when it had read a message, to go on from there.
    held: dict[str, list[tuple[str, Any]]] = {what: [] for what in STREAMS}
    other = None
    await settle()
    for number, wishes in enumerate(after):
        batch = next_batch(history, wishes)
        for one in (instance, other):
            if one is not None:
                one.take(batch)
        if number % 3 == 0:
            instance.flush()
        if number == len(after) // 2:
            other = Instance(history.snapshot())
        # Sometimes nobody reads: several changes wait then.
        if number % 3 != 1 or number == len(after) // 2:
            await settle()
        for what, reader in readers.items():
            for message in reader.messages:
                copies[what].apply(message)
                held[what].append((message.resume_token, deepcopy(copies[what])))
            reader.messages.clear()
    assert other is not None
    instance.flush()
    other.flush()
    await settle()
    book = instance.books.markets["XY"].book
    for what, reader in readers.items():
        for message in reader.messages:
            copies[what].apply(message)
        assert_holds(what, copies[what], history, book)
        await reader.stop()
    for what, places in held.items():
        for where in (instance, other):
            for resume_token, copy in places[:: 1 + len(places) // 8]:
                again, mine = Reader(where, what, resume_token), deepcopy(copy)
                await settle()
                where.flush()
                await settle()
                assert again.error is None
                for message in again.messages:
                    mine.apply(message)
                assert_holds(what, mine, history, book)
                await again.stop()


async def test_each_message_is_made_once_for_all_who_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    history = EngineHistory()
    instance = Instance(history.snapshot())
    readers = [Reader(instance, "levels 10 0") for _ in range(20)]
    await settle()
    published = []
    publish = channel_module.Channel.publish

    def noted(channel: Any, sequence: int, message: bytes) -> None:
        published.append(message)
        publish(channel, sequence, message)

    monkeypatch.setattr(channel_module.Channel, "publish", noted)
    instance.take(next_batch(history, [(10, 0, 0, 4_000, 5, 1)]))
    await settle()

    assert len(published) == 1
    assert instance.counts.messages == {"book": 1}
    assert all(reader.messages[-1].SerializeToString() == published[0] for reader in readers)
    assert instance.levels.subscribers() == 20
    for reader in readers:
        await reader.stop()
    assert instance.levels.subscribers() == 0


@pytest.mark.parametrize("what", ["levels 0 0", "orders", "best", "trades"])
async def test_a_subscriber_that_stops_reading_costs_bounded_memory_and_is_told_why(what: str) -> None:
    history = EngineHistory()
    instance = Instance(history.snapshot())
    stream = instance.stream(what)
    await anext(stream)
    follower = asyncio.ensure_future(anext(stream))
    await settle()
    names = {"levels": "book", "orders": "book-orders", "best": "best-prices", "trades": "trades"}
    (kind,) = (kind for kind in instance.kinds if kind.kind == names[what.split(maxsplit=1)[0]])
    for step in range(channel_module.DEFAULT_KEPT + 1):
        kind.heartbeat(step, 1)
    tracemalloc.start()
    for step in range(channel_module.DEFAULT_KEPT):
        kind.heartbeat(step, 1)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    last = MESSAGES[what.split(maxsplit=1)[0]].FromString(await follower)

    # The ring has been filled anew, and has let go of as much.
    assert grown < 2_000 * channel_module.DEFAULT_KEPT
    assert last.end.reason == "SLOW_CONSUMER"
    assert last.resume_token == ""
    assert sum(instance.counts.slow_closed.values()) == 1
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_who_is_behind_gets_fewer_messages_and_the_same_book() -> None:
    history = EngineHistory()
    instance = Instance(history.snapshot())
    every, conflated = Reader(instance, "levels 0 0"), Reader(instance, "levels 0 1000")
    await settle()
    start = every.messages[0].resume_token

    def change(step: int) -> None:
        instance.take(next_batch(history, [(10, step % 2, 0, 3_900 + step % 7, 3, 1)]))

    for step in range(10):
        change(step)
        await settle()
    assert len(every.messages) == 11, "who keeps up gets each change"
    for step in range(100):
        change(step)
    instance.levels.heartbeat(0, 1)
    for step in range(20):
        change(step)
    instance.flush()
    await settle()

    # 64 as one, 36 as one, the heartbeat, 20 as one.
    assert (len(every.messages), len(conflated.messages)) == (15, 3)
    resumed = Reader(instance, "levels 0 0", start)
    await settle()
    assert len(resumed.messages) == 131, "what was sent before one came is sent as it was"
    resumed.messages.insert(0, every.messages[0])
    copies = [copy_of("levels") for _ in range(3)]
    for reader, copy in zip((every, conflated, resumed), copies, strict=True):
        for message in reader.messages:
            copy.apply(message)
            prices = [level.price for level in (*message.delta.bids, *message.delta.asks)]
            assert len(prices) == len(set(prices)), "each level once"
        await reader.stop()
        assert_holds("levels 0 0", copy, history, instance.books.markets["XY"].book)


async def test_after_books_were_replaced_streams_go_on_with_a_snapshot() -> None:
    history = EngineHistory()
    instance = Instance(history.snapshot())
    whats = [what for what in STREAMS if not what.startswith("status")]
    readers = {what: Reader(instance, what) for what in whats}
    await settle()
    history.wish((10, 0, 0, 4_000, 5, 1))
    history.frame()
    instance.begin(history.snapshot())
    instance.take(next_batch(history, [(10, 1, 0, 4_001, 5, 1)]))
    instance.flush()
    await settle()

    for what, reader in readers.items():
        copy = copy_of(what)
        for message in reader.messages:
            copy.apply(message)
        snapshots = [message for message in reader.messages if message.prev_sequence == 0]
        assert len(snapshots) == 2, what
        assert_holds(what, copy, history, instance.books.markets["XY"].book)
        await reader.stop()


async def test_another_history_ends_every_stream_and_refuses_its_tokens() -> None:
    history = EngineHistory()
    instance = Instance(history.snapshot())
    readers = {what: Reader(instance, what) for what in (*STREAMS, "trades")}
    await settle()
    old = {what: reader.messages[0].resume_token for what, reader in readers.items()}
    snapshot = history.snapshot()
    replaced: Any = {"incarnation": "second"}
    instance.begin(ev.Snapshot(**{name: getattr(snapshot, name) for name in snapshot.__struct_fields__} | replaced))
    await settle()

    for what, reader in readers.items():
        assert reader.ended
        assert reader.messages[-1].end.reason == "NOT_READY"
        again = Reader(instance, what, old[what])
        await settle()
        assert refused(again) == "HISTORY_CHANGED"


async def test_tokens_are_judged() -> None:
    history = EngineHistory()
    instance = Instance(history.snapshot())
    first = instance.books.sequence
    instance.take(next_batch(history, [(10, 0, 0, 4_000, 5, 1)]))

    async def reason(resume_token: str, what: str = "levels 10 0") -> str:
        reader = Reader(instance, what, resume_token)
        await settle()
        found = refused(reader) if reader.error is not None else ""
        await reader.stop()
        return found

    here = token(first, "book:XY:10")
    assert await reason(here) == ""
    assert await reason("no token") == "INVALID_RESUME_TOKEN"
    assert await reason(here, "levels 50 0") == "INVALID_RESUME_TOKEN"
    assert await reason(here, "levels 10 100") == "INVALID_RESUME_TOKEN"
    assert await reason(token(first + 100, "book:XY:10")) == "SEQUENCE_IN_FUTURE"
    # Another frame with this sequence.
    tampered = instance.places.of("book:XY:10").token(first, b"anything")
    assert await reason(tampered) == "HISTORY_CHANGED"
    assert instance.asked == []
    # Older than what is known here: the engine is asked.
    assert await reason(token(first - 1, "book:XY:10")) == ""
    assert [(place.incarnation, place.sequence) for place in instance.asked] == [(INCARNATION, first - 1)]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("levels 11 0", "INVALID_FIELD"),
        ("levels 10 7", "INVALID_FIELD"),
        ("best NONE", "UNKNOWN_SYMBOL"),
        ("best " + "XY " * 101, "INVALID_FIELD"),
    ],
)
async def test_bad_requests_are_refused(what: str, reason: str) -> None:
    reader = Reader(Instance(EngineHistory().snapshot()), what)
    await settle()

    assert refused(reader) == reason


async def test_streams_say_that_all_is_well_then_that_the_server_stops() -> None:
    instance = Instance(EngineHistory().snapshot())
    readers = {what: Reader(instance, what) for what in (*STREAMS, "trades")}
    await settle()
    for kind in instance.kinds:
        kind.heartbeat(77, 1)
        kind.end(ErrorReason.DRAINING, 2_000_000_000)
    await settle()

    for reader in readers.values():
        first, beat, drain, end = reader.messages
        assert (beat.heartbeat.head_sequence, drain.drain.deadline_time.seconds) == (77, 2)
        assert end.end.reason == "DRAINING"
        assert {message.sequence for message in reader.messages} == {first.sequence}
        assert {message.prev_sequence for message in (beat, drain, end)} == {first.sequence}
        assert {message.resume_token for message in reader.messages} == {first.resume_token}
        assert reader.ended


async def test_feeds_that_nobody_follows_are_forgotten() -> None:
    instance = Instance(EngineHistory().snapshot())
    readers = [Reader(instance, what) for what in (*STREAMS, "trades")]
    await settle()
    for reader in readers:
        await reader.stop()
    for _ in range(10):
        for kind in instance.kinds:
            kind.heartbeat(1, 1)

    assert not any(kind._feeds for kind in instance.kinds)

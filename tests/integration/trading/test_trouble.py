"""What clients are told while the engine is overloaded, its journal is away, or it does not lead."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading.core.commands import C_KIND, CLOSE_SESSION, EXPIRE_SESSION
from exchange.trading.journal.memory import MemoryJournal, MemoryLease
from exchange.trading.sequencer import SequencerLimits
from exchange.trading.service.desk import Desk
from pincex.trading.v1 import account_service_pb2, health_service_pb2, market_service_pb2
from pincex.trading.v1 import order_service_pb2 as orders_pb
from tests.integration.trading.engine_app import Exchange, eventually, hold_appends, refused
from tests.integration.trading.session_client import Session, buying, replacing, seconds

RESTING = buying("0.01", "40000")


# --- overload ---


async def test_beyond_its_queue_the_engine_refuses_and_says_when_to_try_again(exchange: Exchange) -> None:
    exchange.sequencer.limits = SequencerLimits(max_queued_commands=0)
    refusal = await refused(exchange.demo.buy("1", "40000", client_order_id="mine"))

    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert "RetryInfo" in refusal.details
    exchange.sequencer.limits = SequencerLimits()
    assert (await exchange.demo.buy("1", "40000", client_order_id="mine")).order_id


async def test_an_overloaded_session_ends_and_goes_on_where_it_was(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo)
    await session.run(1, RESTING)
    exchange.sequencer.limits = SequencerLimits(max_queued_commands=0)
    await session.send(2, RESTING, replacing(client_order_id="none", price="1", quantity="1"))
    refusal = await refused(session.stream.rest())
    exchange.sequencer.limits = SequencerLimits()

    assert refusal.reason == "OVERLOADED"
    again = await Session.open(exchange.demo)
    assert again.opened.last_number == 1
    assert (await again.run(2, RESTING))[0].reason == 0


# --- the journal ---


async def test_a_stalled_journal_refuses_at_once_and_nothing_was_done(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = exchange.engine.state.sequence
    monkeypatch.setattr(MemoryJournal, "stalled_since", property(lambda _: -100.0))
    refusal = await refused(exchange.demo.buy("1", "40000"))

    assert (refusal.code, refusal.reason, refusal.message) == (
        "UNAVAILABLE",
        "JOURNAL_UNAVAILABLE",
        "the journal does not answer: nothing was done",
    )
    assert "RetryInfo" in refusal.details
    assert exchange.engine.state.sequence == before


async def test_an_order_whose_commit_is_not_known_says_so_and_is_asked_for_again(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = hold_appends(monkeypatch)
    placing = asyncio.create_task(refused(exchange.demo.buy("1", "40000", client_order_id="mine")))
    await eventually(lambda: exchange.engine.state.markets[0].bids.orders == 1, "the core has it")
    release.set()
    await exchange.lead_again()
    refusal = await placing

    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "JOURNAL_UNAVAILABLE")
    assert (await exchange.demo.buy("1", "40000", client_order_id="mine")).order_id
    assert len(await exchange.demo.listed()) == 1


@pytest.mark.parametrize("what", ["get", "list", "balances", "book", "market", "markets"])
async def test_no_read_shows_what_is_not_durable(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    release = hold_appends(monkeypatch)
    demo = exchange.demo
    placing = asyncio.create_task(demo.buy("1", "40000", client_order_id="mine"))
    await eventually(lambda: exchange.engine.state.markets[0].bids.orders == 1, "the core has it")
    method, request = {
        "get": (
            demo.orders.GetOrderByClientOrderId,
            orders_pb.GetOrderByClientOrderIdRequest(client_order_id="mine"),
        ),
        "list": (demo.orders.ListOrders, orders_pb.ListOrdersRequest()),
        "balances": (demo.accounts.ListBalances, account_service_pb2.ListBalancesRequest()),
        "book": (demo.markets.GetOrderBook, market_service_pb2.GetOrderBookRequest(symbol="BTCUSD")),
        "market": (demo.markets.GetMarket, market_service_pb2.GetMarketRequest(symbol="BTCUSD")),
        "markets": (demo.markets.ListMarkets, market_service_pb2.ListMarketsRequest()),
    }[what]
    reading = asyncio.create_task(demo.ask(method, request))
    # An answer that waits for nothing comes back first: the read was there before it.
    await demo.ask(demo.markets.ListMarketTrades, market_service_pb2.ListMarketTradesRequest(symbol="BTCUSD"))
    assert not reading.done()

    release.set()
    await placing
    await reading


# --- no leader ---


async def test_an_instance_without_a_core_answers_not_ready(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo)
    sequencer = exchange.sequencer
    exchange.app.desk.sit(None)
    health = exchange.demo.ask(exchange.demo.health.GetHealth, health_service_pb2.GetHealthRequest())
    book = market_service_pb2.StreamOrderBookRequest(symbol="BTCUSD")
    for call in (
        exchange.demo.buy("1", "40000"),
        exchange.demo.listed(),
        exchange.demo.stream(exchange.demo.markets.StreamOrderBook, book).next(),
        health,
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "NOT_READY")
        assert "RetryInfo" in refusal.details
    await session.ping(1)
    assert (await refused(session.stream.rest())).reason == "NOT_READY"
    exchange.app.desk.sit(sequencer)


async def test_a_read_that_waits_for_a_sequence_hears_that_the_leader_went(exchange: Exchange) -> None:
    waiting = asyncio.create_task(refused(exchange.demo.get("1", min_sequence=10**6)))
    await eventually(lambda: bool(exchange.sequencer._sequence_waiters), "it waits")
    await exchange.lead_again()

    assert (await waiting).reason == "NOT_READY"


async def test_a_new_leader_gives_every_session_time_to_attach_again(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo, cancel_on_disconnect=True, grace=seconds(0))
    await session.run(1, RESTING)
    sessions = exchange.app.sessions
    sequencer = exchange.sequencer
    exchange.app.desk.sit(None)
    session.drop()
    await eventually(lambda: sessions.open_count == 0, "the connection is gone")
    exchange.app.desk.sit(sequencer)
    sequencer.stop()
    timers = exchange.app.attendance._timers
    await eventually(lambda: ("demo", "s") in timers, "the session has its grace")

    assert timers["demo", "s"].when() - asyncio.get_running_loop().time() > 9
    again = await Session.open(exchange.demo, cancel_on_disconnect=True, grace=seconds(0))
    assert (again.opened.last_number, len(exchange.engine.state.accounts["demo"].orders)) == (1, 1)
    # Once more, with a timer that is set already.
    again.drop()


# --- ending sessions while the journal is away ---


class FailingEnds:
    """`Desk.execute`, but that ends of sessions fail until told otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing = True
        self.attempts = 0
        execute = Desk.execute

        async def patched(desk: Desk, command: Any) -> Any:
            if command[C_KIND] in {EXPIRE_SESSION, CLOSE_SESSION}:
                self.attempts += 1
                if self.failing:
                    raise ServiceError(ErrorReason.JOURNAL_UNAVAILABLE)
            return await execute(desk, command)

        monkeypatch.setattr(Desk, "execute", patched)
        monkeypatch.setattr("exchange.trading.service.attendance.END_RETRY_S", 0.005)


async def test_a_session_is_ended_as_soon_as_the_journal_is_back(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = FailingEnds(monkeypatch)
    session = await Session.open(exchange.demo, cancel_on_disconnect=True, grace=seconds(0))
    await session.run(1, RESTING)
    session.drop()
    await eventually(lambda: ends.attempts >= 3, "it is tried again")
    assert len(exchange.engine.state.accounts["demo"].orders) == 1

    ends.failing = False
    await eventually(lambda: not exchange.engine.state.accounts["demo"].orders, "the order is cancelled")


async def test_a_session_that_its_client_attached_meanwhile_is_not_ended(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = FailingEnds(monkeypatch)
    session = await Session.open(exchange.demo, cancel_on_disconnect=True, grace=seconds(0))
    await session.run(1, RESTING)
    session.drop()
    await eventually(lambda: ends.attempts >= 1, "the end is tried")
    again = await Session.open(exchange.demo, cancel_on_disconnect=True, grace=seconds(0))
    ends.failing = False
    await eventually(lambda: not exchange.app.attendance._tasks, "nobody tries any longer")

    assert (await again.run(2, RESTING))[0].reason == 0
    assert len(exchange.engine.state.accounts["demo"].orders) == 2


async def test_an_expiry_of_a_session_that_is_gone_already_is_no_trouble(exchange: Exchange) -> None:
    exchange.app.attendance._expire(("demo", "never-was"))
    await eventually(lambda: not exchange.app.attendance._tasks, "it is done")


async def test_a_book_stream_begun_on_what_never_became_durable_is_refused(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = hold_appends(monkeypatch)
    placing = asyncio.create_task(refused(exchange.demo.buy("1", "40000")))
    await eventually(lambda: exchange.engine.state.markets[0].bids.orders == 1, "the core has it")
    book = market_service_pb2.StreamOrderBookRequest(symbol="BTCUSD")
    streams = [exchange.demo.stream(exchange.demo.markets.StreamOrderBook, book) for _ in range(2)]
    firsts = [asyncio.create_task(refused(stream.next())) for stream in streams]
    await eventually(lambda: bool(exchange.app.books._copies), "the copy is taken")
    await eventually(lambda: exchange.app.public.guard.open_streams == 2, "both wait")
    release.set()
    await exchange.lead_again()

    assert {(await first).reason for first in firsts} == {"JOURNAL_UNAVAILABLE"}
    assert (await placing).reason == "JOURNAL_UNAVAILABLE"
    assert exchange.app.books._copies == {}


async def test_reads_go_on_while_the_lease_s_store_does_not_answer(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader cannot tell then whether it still leads: what it has is answered, with its sequence, and soon."""
    asked = 0

    async def never(_lease: MemoryLease) -> bool:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()
        return True

    order = await exchange.demo.buy("1", "40000")
    monkeypatch.setattr(MemoryLease, "renew", never)
    monkeypatch.setattr(MemoryLease, "held_until", property(lambda _lease: 0.0))
    reads = asyncio.gather(*(exchange.demo.get(order.order_id) for _ in range(20)))
    assert {one.order_id for one in await asyncio.wait_for(reads, 2.0)} == {order.order_id}
    assert asked <= 2, "one question serves all who wait, beside the renewer's own"

"""Several instances over one journal: nobody needs to know who leads, and nothing is lost when that changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core.commands import C_SESSION, Command
from exchange.trading.core.events import Result
from exchange.trading.journal.contract import GENESIS_HASH, JournalCorrupt
from exchange.trading.journal.memory import MemoryJournal, MemoryLease
from exchange.trading.replication.follower import Follower
from exchange.trading.replication.messages import FollowerHello, Status
from exchange.trading.seat import Overloaded, Stalled
from exchange.trading.sequencer import Sequencer, SequencerLimits
from exchange.trading.service.replica_link import KEY_METADATA, link_key
from pincex.journal.v1 import replica_service_pb2 as replica_pb
from pincex.journal.v1 import replica_service_pb2_grpc
from pincex.trading.v1 import admin_replicas_pb2, admin_service_pb2, market_service_pb2, order_service_pb2
from tests.integration.trading.engine_app import (
    Exchange,
    Stream,
    eventually,
    hold_appends,
    refusal_of,
    refused,
    running_exchange,
)
from tests.integration.trading.session_client import Session, buying, reducing, replacing, seconds

RESTING = buying("0.01", "40000")


@pytest.fixture
async def three(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Exchange]]:
    """A leader and two followers."""
    async with AsyncExitStack() as stack:
        leader = await stack.enter_async_context(running_exchange(monkeypatch, PINCEX_INSTANCE="one"))
        found = [leader]
        for name in ("two", "three"):
            follower = running_exchange(monkeypatch, store=leader.store, PINCEX_INSTANCE=name)
            found.append(await stack.enter_async_context(follower))
        yield found


async def compared(exchange: Exchange) -> admin_replicas_pb2.CompareReplicasResponse:
    request = admin_replicas_pb2.CompareReplicasRequest(symbol="BTC/USD")
    found: admin_replicas_pb2.CompareReplicasResponse = await exchange.operator.ask(
        exchange.operator.admin.CompareReplicas, request
    )
    return found


def links_of(exchange: Exchange) -> int:
    """How many followers are linked to this instance."""
    replica = exchange.app.replica
    return len(replica.downlinks.links) if replica is not None and replica.downlinks is not None else 0


async def hand_over(exchange: Exchange) -> None:
    request = admin_replicas_pb2.HandOverLeadershipRequest(reason="a test")
    await exchange.operator.ask(exchange.operator.admin.HandOverLeadership, request)


# --- the same state ---


async def test_every_instance_holds_the_same_state_at_the_same_sequence(three: list[Exchange]) -> None:
    for number, exchange in enumerate(three):
        await exchange.demo.buy("1", f"4000{number}")
        await exchange.maker.sell("0.5", f"4000{number}")
    for exchange in three:
        found = await compared(exchange)
        assert found.identical
        assert [(one.instance, one.role) for one in found.replicas] == [
            ("one", "LEADER"),
            ("two", "FOLLOWER"),
            ("three", "FOLLOWER"),
        ]
        assert len({one.state_hash for one in found.replicas}) == 1
        assert len({one.book_hash for one in found.replicas} - {""}) == 1


async def test_a_comparison_is_at_one_sequence_while_orders_come(three: list[Exchange]) -> None:
    stop = asyncio.Event()

    async def trade(exchange: Exchange) -> None:
        while not stop.is_set():
            await exchange.demo.buy("0.01", "40000")

    trading = [asyncio.create_task(trade(exchange)) for exchange in three]
    sequences = []
    for exchange in three * 2:
        found = await compared(exchange)
        assert found.identical
        assert all(one.state_hash for one in found.replicas)
        sequences.append(found.sequence)
    stop.set()
    await asyncio.gather(*trading)
    assert sequences == sorted(set(sequences)), "each is newer than the one before"


async def test_a_follower_whose_core_differs_stops_and_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    async def follow_with_a_wrong_core(leader: Exchange) -> None:
        async with running_exchange(monkeypatch, store=leader.store, PINCEX_INSTANCE="wrong") as follower:
            order = next(iter(follower.app.desk.state.accounts["demo"].orders.values()))
            order.lots_open -= 1
            await leader.maker.sell("1", "40000")
            await eventually(follower.running.done, "it stops")

    async with running_exchange(monkeypatch) as leader:
        await leader.demo.buy("1", "40000")
        with pytest.raises(JournalCorrupt, match="replay differs from the record at sequence"):
            await follow_with_a_wrong_core(leader)
        assert (await leader.demo.buy("1", "40000")).order_id, "the leader goes on"


# --- one exchange ---


async def test_a_client_that_wrote_reads_its_write_on_any_instance(three: list[Exchange]) -> None:
    for writer in three:
        order = await writer.demo.buy("0.01", "40000")
        for reader in three:
            assert (await reader.demo.get(order.order_id)).order_id == order.order_id
            assert (await reader.demo.listed())[0].order_id == order.order_id
            book = await reader.demo.ask(
                reader.demo.markets.GetOrderBook, market_service_pb2.GetOrderBookRequest(symbol="BTCUSD")
            )
            assert book.sequence >= order.sequence
        await writer.demo.cancel(order.order_id)


async def test_what_was_made_a_moment_ago_is_known_everywhere(three: list[Exchange]) -> None:
    operator = three[0].operator
    await operator.ask(operator.admin.CreateAsset, admin_service_pb2.CreateAssetRequest(code="SOL", decimals=8))
    request = admin_service_pb2.CreateMarketRequest(
        base_asset="SOL", quote_asset="USD", tick_size="0.01", lot_size="0.01"
    )
    await operator.ask(operator.admin.CreateMarket, request)
    assert (await three[1].demo.buy("1", "100", symbol="SOLUSD")).symbol == "SOLUSD"
    assert (await three[2].demo.buy("1", "100", symbol="SOLUSD")).symbol == "SOLUSD"


async def test_an_id_counts_once_wherever_it_is_sent(three: list[Exchange]) -> None:
    orders = await asyncio.gather(
        *(exchange.demo.buy("0.01", "40000", client_order_id="mine") for exchange in three * 3)
    )
    assert len({order.order_id for order in orders}) == 1
    refusal = await refused(three[1].demo.buy("0.02", "40000", client_order_id="mine"))
    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "DUPLICATE_ID")


async def test_the_queue_is_the_leader_s_wherever_it_is_asked_for(
    three: list[Exchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = hold_appends(monkeypatch)
    placing = [asyncio.create_task(three[0].demo.buy("0.01", "40000")) for _ in range(3)]

    async def is_everywhere(depth: int) -> None:
        request = admin_service_pb2.GetQueueDepthRequest()
        for exchange in three:
            while int((await exchange.operator.ask(exchange.operator.admin.GetQueueDepth, request)).data) != depth:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    await is_everywhere(3)
    release.set()
    await asyncio.gather(*placing)
    await is_everywhere(0)


async def test_a_leader_that_is_overloaded_says_so_to_clients_of_a_follower(three: list[Exchange]) -> None:
    three[0].sequencer.limits = SequencerLimits(max_queued_commands=0)
    refusal = await refused(three[1].demo.buy("1", "40000", client_order_id="mine"))
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    three[0].sequencer.limits = SequencerLimits()
    assert (await three[2].demo.buy("1", "40000", client_order_id="mine")).order_id


async def test_what_a_session_sent_after_something_refused_is_refused_too_until_it_attaches_again(
    three: list[Exchange],
) -> None:
    session = await Session.open(three[1].demo)
    await session.run(1, RESTING)
    sequencer, submit = three[0].sequencer, three[0].sequencer.submit
    refusals = 1

    def refuse_once(commands: list[Command]) -> asyncio.Future[list[Result]]:
        nonlocal refusals
        if refusals and commands[0][C_SESSION]:
            refusals -= 1
            raise Overloaded
        return submit(commands)

    sequencer.submit = refuse_once  # type: ignore[method-assign]
    for first in (2, 4, 6):
        with contextlib.suppress(asyncio.InvalidStateError):
            await session.send(first, RESTING, RESTING)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await session.stream.rest()
    assert refusal_of(caught.value).reason == "OVERLOADED"
    again = await Session.open(three[2].demo)
    assert again.opened.last_number == 1, "none of the later batches was applied alone"
    assert [one.reason for one in await again.run(2, RESTING, RESTING)] == [0, 0]


async def test_a_session_whose_opener_is_gone_is_ended_by_the_leader(three: list[Exchange]) -> None:
    """Its OPEN_SESSION came through; the connection, and whoever would have told of it, did not."""
    leader = three[0]
    opening = cmd.open_session("demo", "ghost", cancel_on_disconnect=True, grace_ms=0, dead_man_ms=0)
    await leader.app.desk.execute(opening)
    await eventually(lambda: ("demo", "ghost") in leader.app.attendance._timers, "its time runs")
    await eventually(lambda: "ghost" not in leader.engine.state.accounts["demo"].sessions, "it has ended")


# --- sessions and streams ---


async def test_an_order_is_changed_by_the_batch_that_placed_it_through_a_follower(three: list[Exchange]) -> None:
    session = await Session.open(three[1].demo)
    placed, replaced, reduced = await session.run(
        1,
        buying("1", "40000", client_order_id="a"),
        replacing(client_order_id="a", price="39000", quantity="1"),
        reducing(client_order_id="a", quantity="0.25"),
    )
    assert [one.reason for one in (placed, replaced, reduced)] == [0, 0, 0]
    assert reduced.open_quantity == "0.75000"


async def test_an_order_that_waits_for_the_next_leader_can_be_changed_meanwhile(three: list[Exchange]) -> None:
    """While leadership is handed over nobody has applied it: that is no reason to say that there is none."""
    session = await Session.open(three[0].demo)
    await session.run(1, RESTING)
    three[0].sequencer.pause()
    await session.send(2, buying("1", "40000", client_order_id="a"))
    await session.send(3, replacing(client_order_id="a", price="39000", quantity="1"))
    connection = three[0].app.sessions._connections["demo", "s"]
    await eventually(lambda: connection.expected == 4, "both batches are taken")
    three[0].sequencer.resume()
    for number in (2, 3):
        found = await session.results()
        assert (found.first_number, [one.reason for one in found.results]) == (number, [0])


async def test_a_session_that_attaches_to_another_instance_is_taken_over_there(three: list[Exchange]) -> None:
    first = await Session.open(three[1].demo)
    await first.run(1, RESTING)
    second = await Session.open(three[2].demo)
    assert (second.opened.resumed, second.opened.last_number) == (True, 1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await first.stream.rest()
    assert refusal_of(caught.value).reason == "SESSION_TAKEN_OVER"
    assert (await second.run(2, RESTING))[0].reason == 0
    third = await Session.open(three[0].demo)
    assert (third.opened.resumed, third.opened.last_number) == (True, 2)


async def test_a_lost_connection_to_a_follower_cancels_as_it_was_set(three: list[Exchange]) -> None:
    session = await Session.open(three[1].demo, cancel_on_disconnect=True, grace=seconds(0))
    await session.run(1, RESTING)
    assert len(await three[0].demo.listed()) == 1
    session.drop()
    orders = three[0].engine.state.accounts["demo"].orders
    await eventually(lambda: not orders, "the leader has cancelled the order")


async def test_a_link_that_is_lost_for_a_moment_cancels_nothing(three: list[Exchange]) -> None:
    session = await Session.open(three[1].demo, cancel_on_disconnect=True, grace=seconds(0))
    await session.run(1, RESTING)
    replica = three[0].app.replica
    assert replica is not None
    assert replica.downlinks is not None
    for link in replica.downlinks.links:
        link.close()
    assert (await session.run(2, RESTING))[0].reason == 0
    key = ("demo", "s")
    await eventually(
        lambda: replica.downlinks is not None and replica.downlinks.is_attended(key), "the leader knows of it again"
    )
    assert key not in three[0].app.attendance._timers
    assert len(await three[0].demo.listed()) == 2


async def test_a_stream_goes_on_at_another_instance_without_a_gap(three: list[Exchange]) -> None:
    def book(exchange: Exchange, token: str = "") -> Stream:
        request = market_service_pb2.StreamOrderBookRequest(symbol="BTCUSD", depth=10, resume_token=token)
        return exchange.demo.stream(exchange.demo.markets.StreamOrderBook, request)

    def own(exchange: Exchange, token: str = "") -> Stream:
        request = order_service_pb2.StreamOrderEventsRequest(resume_token=token)
        return exchange.demo.stream(exchange.demo.orders.StreamOrderEvents, request)

    for open_stream in (book, own):
        stream = open_stream(three[0])
        last = await stream.next()
        for exchange in (three[1], three[2], three[0], three[1]):
            order = await three[0].demo.buy("0.01", "40000")
            message = await stream.next()
            assert (message.prev_sequence, message.sequence) == (last.sequence, order.sequence)
            last = message
            await three[0].demo.buy("0.01", "40000")
            stream = open_stream(exchange, last.resume_token)
            missed = await stream.next()
            if missed.WhichOneof("event" if open_stream is own else "update") == "snapshot":
                assert missed.sequence == last.sequence + 1
            else:
                assert missed.prev_sequence == last.sequence
            last = missed


# --- who leads ---


async def test_leadership_is_handed_over_without_an_error_to_anybody(three: list[Exchange]) -> None:
    stop = asyncio.Event()
    placed: dict[str, str] = {}

    async def trade(exchange: Exchange, name: str) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            order = await exchange.demo.buy("0.01", "40000", client_order_id=f"{name}-{count}")
            placed[f"{name}-{count}"] = order.order_id

    trading = [asyncio.create_task(trade(exchange, str(number))) for number, exchange in enumerate(three)]
    for _ in range(4):
        await eventually(lambda: any(one.app.desk.sequencer for one in three), "one leads")
        leader = next(exchange for exchange in three if exchange.app.desk.sequencer is not None)
        count = len(placed)
        await eventually(lambda leader=leader: links_of(leader) == 2, "all others follow it")  # type: ignore[misc]
        await hand_over(leader)
        await eventually(lambda count=count: len(placed) > count + 20, "orders go on")  # type: ignore[misc]
        assert leader.app.desk.sequencer is None
    stop.set()
    await asyncio.gather(*trading)
    assert three[0].store.epoch == 5
    assert len(set(placed.values())) == len(placed), "each order is one of its own"
    book = await three[2].demo.ask(
        three[2].demo.markets.GetOrderBook, market_service_pb2.GetOrderBookRequest(symbol="BTCUSD")
    )
    assert book.bids[0].order_count == len(placed)
    assert (await compared(three[1])).identical


async def test_a_hand_over_that_must_be_refused_leaves_all_as_it_was(
    three: list[Exchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal does not answer, and the core is ahead of it: no follower may go on from there."""

    async def stalled(_sequencer: Sequencer) -> None:
        raise Stalled

    await eventually(lambda: links_of(three[0]) == 2, "all others follow it")
    release = hold_appends(monkeypatch)
    monkeypatch.setattr(Sequencer, "drain", stalled)
    before = asyncio.create_task(three[0].demo.buy("0.01", "40000"))
    await eventually(lambda: three[0].engine.state.markets[0].bids.orders == 1, "the core is ahead")
    replica = three[0].app.replica
    assert replica is not None
    asked = asyncio.create_task(replica.hand_over())
    await eventually(lambda: links_of(three[0]) != 2, "it was tried, and the others link anew")
    meanwhile = [asyncio.create_task(exchange.demo.buy("0.01", "40000")) for exchange in three]
    release.set()

    orders = await asyncio.gather(before, *meanwhile)
    assert three[0].store.epoch == 1, "the same leads on"
    assert len({order.order_id for order in orders}) == 4
    assert (await compared(three[2])).identical
    asked.cancel()


async def test_an_instance_that_is_told_to_stop_hands_over_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        running_exchange(monkeypatch) as first,
        running_exchange(monkeypatch, store=first.store, PINCEX_INSTANCE="second") as second,
    ):
        session = await Session.open(second.demo, cancel_on_disconnect=True, grace=seconds(0))
        await session.run(1, RESTING)
        stopping = asyncio.create_task(first.stop())
        await eventually(lambda: second.app.desk.sequencer is not None, "the other leads")
        assert (await session.run(2, RESTING))[0].reason == 0
        await stopping
        assert len(await second.demo.listed()) == 2


async def test_a_leader_that_was_deposed_in_its_sleep_discards_what_was_not_durable_and_follows(
    three: list[Exchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a SIGSTOP does: its lease runs out, another leads, and then it goes on where it was."""
    asleep, append = asyncio.Event(), MemoryJournal.append

    async def sleeping(journal: MemoryJournal, frame: object) -> None:
        if journal is sleeper:
            await asleep.wait()
        await append(journal, frame)  # type: ignore[arg-type]

    async def no_renewal(_lease: MemoryLease) -> bool:
        return True

    sleeper = three[0].app._journal
    monkeypatch.setattr(MemoryJournal, "append", sleeping)
    monkeypatch.setattr(MemoryLease, "renew", no_renewal)
    lost = asyncio.create_task(refused(three[0].demo.buy("0.02", "40000", client_order_id="not-durable")))
    await eventually(lambda: three[0].engine.state.markets[0].bids.orders == 1, "its core has the order")
    three[0].store.expires_at = 0.0
    await eventually(lambda: any(one.app.desk.sequencer for one in three[1:]), "another leads")
    # With an id: this instance may have sent it to the leader that sleeps.
    order = await three[1].demo.buy("0.01", "40000", client_order_id="meanwhile")
    asleep.set()

    assert (await lost).reason == "JOURNAL_UNAVAILABLE", "the outcome is unknown, and its id tells"
    await eventually(lambda: three[0].app.desk.is_seated and isinstance(three[0].app.desk.seat, Follower), "it follows")
    assert [one.order_id for one in await three[0].demo.listed()] == [order.order_id]
    assert (await three[0].demo.buy("0.02", "40000", client_order_id="not-durable")).order_id
    assert (await compared(three[0])).identical


async def test_an_instance_that_links_anew_is_one_instance(three: list[Exchange]) -> None:
    """Its older connection may have died without a word, and be there for long."""
    replica = three[0].app.replica
    assert replica is not None
    links = replica.downlinks
    assert links is not None
    await eventually(lambda: links_of(three[0]) == 2, "both follow")
    mute = next(link for link in links.links if link.replica.instance == "two")
    again = links.open(FollowerHello(mute.replica, links.sequencer.epoch, 1, GENESIS_HASH, ()))
    assert [one.instance for one in links.replicas()].count("two") == 1
    links.gone(again)


# --- who may link ---


async def link(exchange: Exchange, port: int, key: str) -> str:
    """The code with which a link ends at once."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = replica_service_pb2_grpc.ReplicaServiceStub(channel)
        call = stub.Link(iter([replica_pb.FollowerMessage()]), metadata=((KEY_METADATA, key),))
        code = await call.code()
    return str(code.name)


async def test_a_link_needs_the_key_and_the_operators_port(three: list[Exchange]) -> None:
    app = three[0].app
    right = link_key(app._replica_secret(), app._journal.incarnation, three[0].sequencer.epoch)
    older = link_key(app._replica_secret(), app._journal.incarnation, three[0].sequencer.epoch - 1)
    assert await link(three[0], app.ops.port, "") == "PERMISSION_DENIED"
    assert await link(three[0], app.ops.port, older) == "PERMISSION_DENIED"
    assert await link(three[0], app.ops.port, right) == "INVALID_ARGUMENT", "the key is right, the hello is not"
    assert await link(three[0], app.public.port, right) == "UNIMPLEMENTED"
    assert await link(three[1], three[1].app.ops.port, right) == "UNAVAILABLE", "it does not lead"


def test_no_secret_opens_no_link() -> None:
    assert link_key("", "history", 1) == ""


def test_the_numbers_of_outcomes_are_those_of_the_contract() -> None:
    assert {one.name: int(one) for one in Status} == {
        name: number for name, number in replica_pb.SubmissionStatus.items() if number
    }

"""EventService: every event of the exchange, gap-free, and snapshots to begin from."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from typing import Any, cast

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from exchange.runtime.feeds.tokens import Position
from exchange.trading.core import commands as cmd
from exchange.trading.journal.memory import MemoryStore
from exchange.trading.service.events import EventService
from pincex.journal.v1 import event_service_pb2 as pb
from pincex.trading.v1 import admin_service_pb2, order_commands_pb2, types_pb2
from tests.integration.trading.engine_app import (
    BUY,
    GTD,
    IOC,
    STOP,
    Exchange,
    Stream,
    eventually,
    refused,
    running_exchange,
)
from tests.integration.trading.session_client import Session, buying

Books = dict[tuple[str, str], list[Decimal]]


def stream_events(exchange: Exchange, from_sequence: int = 0, token: str = "") -> Stream:
    request = pb.StreamEventsRequest(from_sequence=from_sequence, resume_token=token)
    return exchange.operator.stream(exchange.operator.events.StreamEvents, request)


def stream_snapshot(exchange: Exchange) -> Stream:
    return exchange.operator.stream(exchange.operator.events.StreamSnapshot, pb.StreamSnapshotRequest())


async def up_to_head(exchange: Exchange, stream: Stream) -> list[pb.EventBatch]:
    head = exchange.engine.state.sequence
    return await stream.until(lambda batch: batch.last_sequence == head)


async def everything(exchange: Exchange) -> None:
    """Commands of every kind, accepted and refused."""
    demo, maker, operator = exchange.demo, exchange.maker, exchange.operator
    order = await demo.buy("1", "50000", client_order_id="one")
    await demo.ask(
        demo.orders.ReduceOrder, order_commands_pb2.ReduceOrderRequest(order_id=order.order_id, quantity="0.2")
    )
    await demo.ask(
        demo.orders.ReplaceOrder,
        order_commands_pb2.ReplaceOrderRequest(order_id=order.order_id, quantity="0.6", price="50010"),
    )
    await maker.sell("0.13", "50010")
    await refused(demo.buy("1000", "50000", client_order_id="rich"))
    await refused(demo.cancel("999"))
    await demo.place(BUY, "0.1", "50000", time_in_force=IOC)
    await demo.sell("0.05", "50010", self_trade_prevention=types_pb2.NONE)
    await demo.buy("0.1", order_type=STOP, stop_price="50030")
    await maker.sell("0.3", "50030")
    await maker.place(BUY, "0.2", "50030", self_trade_prevention=types_pb2.NONE)
    expire = Timestamp(seconds=4_000_000_000)
    await demo.place(BUY, "1", "2000", symbol="ETHUSD", time_in_force=GTD, expire_time=expire, post_only=True)
    session = await Session.open(demo, cancel_on_disconnect=True)
    await session.run(1, buying("0.1", "40000"))
    await session.close()
    await eventually(lambda: not exchange.engine.state.accounts["demo"].sessions, "the session is closed")
    await demo.ask(demo.orders.CancelAllOrders, order_commands_pb2.CancelAllOrdersRequest())
    await maker.buy("0.1", "40000")
    await exchange.credit("fresh", "ETH", "2.5")
    for method, request in (
        ("MassCancel", admin_service_pb2.MassCancelRequest(account="maker", symbol="BTCUSD", reason="test")),
        ("MassCancel", admin_service_pb2.MassCancelRequest(account="maker", reason="test")),
        ("CreateAsset", admin_service_pb2.CreateAssetRequest(code="SOL", decimals=9)),
        ("HaltMarket", admin_service_pb2.SetMarketModeRequest(symbol="ETHUSD")),
        ("EnableCircuitBreaker", admin_service_pb2.SetSwitchRequest()),
        ("DisableCircuitBreaker", admin_service_pb2.SetSwitchRequest()),
        ("SetAccountLimits", admin_service_pb2.SetAccountLimitsRequest(account="demo", max_open_orders=7)),
    ):
        await operator.ask(getattr(operator.admin, method), request)
    desk = exchange.app.desk
    await desk.submit(
        [
            cmd.hash_book(0),
            cmd.activate_rules("ops", 1),
            cmd.hold("demo", 2, 500, request_id="h1"),
            cmd.hold("demo", 2, 700, request_id="h2"),
            cmd.release_hold("demo", "h1", request_id="r1"),
            cmd.settle_hold("demo", "h2", request_id="s1"),
            cmd.transfer("demo", "friend", 2, 1_000, request_id="t1"),
        ]
    )


def keep_books(books: Books, event: pb.Event) -> None:
    """What a ledger does with an event, from the contract's words alone."""

    def move(account: str, asset: str, available: Decimal, held: Decimal) -> None:
        books[account, asset][0] += available
        books[account, asset][1] += held

    kind = event.WhichOneof("event")
    body: Any = getattr(event, str(kind))
    if kind == "order_accepted":
        amount = Decimal(body.held_amount)
        move(body.account, body.held_asset, -amount, amount)
    elif kind in {"order_reduced", "order_cancelled"}:
        amount = Decimal(body.released_amount)
        move(body.account, body.held_asset, amount, -amount)
    elif kind == "order_replaced":
        amount = Decimal(body.held_change)
        move(body.account, body.held_asset, -amount, amount)
    elif kind == "trade_executed":
        maker, taker = (body.maker_account, Decimal(body.maker_fee)), (body.taker_account, Decimal(body.taker_fee))
        (buyer, buyer_fee), (seller, seller_fee) = (taker, maker) if body.taker_side == BUY else (maker, taker)
        base, quote = body.symbol[:3], body.symbol[3:]
        notional, quantity, released = (
            Decimal(text) for text in (body.notional, body.quantity, body.buyer_released_amount)
        )
        move(buyer, quote, released - notional - buyer_fee, -released)
        move(buyer, base, quantity, Decimal(0))
        move(seller, base, Decimal(0), -quantity)
        move(seller, quote, notional - seller_fee, Decimal(0))
        move("$fees", quote, buyer_fee + seller_fee, Decimal(0))
    elif kind == "balance_adjusted":
        amount = Decimal(body.amount)
        available, held = {
            pb.CREDIT: (amount, Decimal(0)),
            pb.WITHDRAWAL_HOLD: (-amount, amount),
            pb.WITHDRAWAL_RELEASE: (amount, -amount),
            pb.WITHDRAWAL_SETTLE: (Decimal(0), -amount),
            pb.TRANSFER: (-amount, Decimal(0)),
        }[body.kind]
        move(body.account, body.asset, available, held)
        if body.to_account:
            move(body.to_account, body.asset, amount, Decimal(0))


async def test_the_events_alone_make_every_balance(exchange: Exchange) -> None:
    await everything(exchange)
    books: Books = defaultdict(lambda: [Decimal(0), Decimal(0)])
    for batch in await up_to_head(exchange, stream_events(exchange)):
        for event in batch.events:
            keep_books(books, event)

    state = exchange.engine.state
    assert {key: tuple(value) for key, value in books.items() if any(value)} == {
        (account.name, state.assets[asset].code): (
            Decimal(balance.available).scaleb(-state.assets[asset].decimals),
            Decimal(balance.held).scaleb(-state.assets[asset].decimals),
        )
        for account in state.accounts.values()
        for asset, balance in account.balances.items()
        if balance.available or balance.held
    }


async def test_every_kind_of_event_is_told(exchange: Exchange) -> None:
    await everything(exchange)
    batches = await up_to_head(exchange, stream_events(exchange))

    told = {str(event.WhichOneof("event")) for batch in batches for event in batch.events}
    assert told == {field.name for field in pb.Event.DESCRIPTOR.oneofs_by_name["event"].fields}


async def test_events_say_who_what_and_when(exchange: Exchange) -> None:
    order = await exchange.demo.buy("1", "50000", client_order_id="mine")
    await exchange.maker.sell("0.25", "50000")
    batches = await up_to_head(exchange, stream_events(exchange, int(order.sequence)))
    accepted, taker, trade = (event for batch in batches for event in batch.events)

    assert (accepted.sequence, accepted.index, accepted.event_time) == (order.sequence, 0, order.created_time)
    body = accepted.order_accepted
    assert (body.order_id, body.client_order_id, body.account) == (order.order_id, "mine", "demo")
    assert (body.quantity, body.resting_quantity, body.price) == ("1.00000", "1.00000", "50000.00")
    assert (body.held_amount, body.held_asset) == ("50100.00000000", "USD")
    assert taker.order_accepted.resting_quantity == "0.00000"
    assert (trade.index, trade.trade_executed.trade_id) == (1, f"{trade.sequence}-1")
    assert (trade.trade_executed.maker_order_id, trade.trade_executed.taker_order_id) == (
        order.order_id,
        taker.order_accepted.order_id,
    )
    assert trade.trade_executed.buyer_released_amount == "12525.00000000"


async def test_batches_chain_and_each_token_continues_after_its_batch(exchange: Exchange) -> None:
    await everything(exchange)
    batches = await up_to_head(exchange, stream_events(exchange))

    assert (batches[0].first_sequence, batches[0].prev_sequence) == (1, 0)
    for before, after in pairwise(batches):
        assert after.prev_sequence == before.last_sequence == after.first_sequence - 1
    for place in range(0, len(batches) - 1, 5):
        again = stream_events(exchange, token=batches[place].resume_token)
        assert strip(await again.take(len(batches) - place - 1)) == strip(batches[place + 1 :])
        again.call.cancel()


def strip(batches: list[pb.EventBatch]) -> list[pb.EventBatch]:
    """Without the head, which goes on."""
    for batch in batches:
        batch.head_sequence = 0
    return batches


async def test_a_stream_may_begin_in_the_middle_of_a_frame(exchange: Exchange) -> None:
    first = await stream_events(exchange, 1).next()
    assert first.last_sequence > first.first_sequence, "the bootstrap is one frame"
    middle = first.first_sequence + 2
    batch = await stream_events(exchange, middle).next()

    assert (batch.first_sequence, batch.prev_sequence, batch.last_sequence) == (middle, middle - 1, first.last_sequence)
    assert list(batch.events) == [event for event in first.events if event.sequence >= middle]


async def test_new_events_come_as_they_happen(exchange: Exchange) -> None:
    stream = stream_events(exchange, exchange.engine.state.sequence + 1)
    order = await exchange.demo.buy("1", "50000")
    batch = await stream.next()

    assert [event.order_accepted.order_id for event in batch.events] == [order.order_id]
    assert batch.head_sequence == order.sequence


async def test_what_left_memory_comes_from_the_journal(exchange: Exchange) -> None:
    await everything(exchange)
    expected = strip(await up_to_head(exchange, stream_events(exchange)))
    hub = exchange.app.hub
    hub._recent, hub._starts = hub._recent[-3:], hub._starts[-3:]

    assert strip(await up_to_head(exchange, stream_events(exchange))) == expected


async def test_a_stream_from_the_future_is_refused(exchange: Exchange) -> None:
    head = exchange.engine.state.sequence
    for from_sequence in (head + 2, 2**63, 2**64 - 1):
        refusal = await refused(stream_events(exchange, from_sequence).next())
        assert (refusal.code, refusal.reason) == ("OUT_OF_RANGE", "SEQUENCE_IN_FUTURE")
        assert refusal.metadata == {"head_sequence": str(head)}


async def test_tokens_that_do_not_fit_are_refused(exchange: Exchange) -> None:
    places = exchange.app.books._places
    head = exchange.engine.state.sequence
    other = MemoryStore().incarnation
    mine = exchange.store.incarnation
    for token, code, reason in (
        ("garbage", "INVALID_ARGUMENT", "INVALID_RESUME_TOKEN"),
        ("é" * 10, "INVALID_ARGUMENT", "INVALID_RESUME_TOKEN"),
        (Position(mine, 0, -1, -1, "").token(), "INVALID_ARGUMENT", "INVALID_RESUME_TOKEN"),
        (Position(mine, 0, 1, -2, "").token(), "INVALID_ARGUMENT", "INVALID_RESUME_TOKEN"),
        (Position(mine, 0, 2**70, -1, "").token(), "INVALID_ARGUMENT", "INVALID_RESUME_TOKEN"),
        (places.token(head + 1, b"x" * 32), "OUT_OF_RANGE", "SEQUENCE_IN_FUTURE"),
        (places.token(head, b"x" * 32), "DATA_LOSS", "HISTORY_CHANGED"),
        (Position(other, 0, head, -1, "00").token(), "DATA_LOSS", "HISTORY_CHANGED"),
        # A restore to an earlier time: the token lies beyond its head, and is of another history all the same.
        (Position(other, 0, head + 100, -1, "00").token(), "DATA_LOSS", "HISTORY_CHANGED"),
        (Position(mine, 1, head, -1, "00").token(), "DATA_LOSS", "HISTORY_CHANGED"),
    ):
        refusal = await refused(stream_events(exchange, token=token).next())
        assert (refusal.code, refusal.reason) == (code, reason), token


async def test_what_is_no_longer_retained_is_refused_with_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(keep_frames=3)
    async with running_exchange(monkeypatch, store=store) as exchange:
        old = await stream_events(exchange).next()
        for _ in range(8):
            await exchange.demo.buy("0.1", "40000")
        snapshot = admin_service_pb2.CreateSnapshotRequest(reason="test")
        state = await exchange.operator.ask(exchange.operator.admin.CreateSnapshot, snapshot)
        await exchange.demo.buy("0.1", "40000")
        exchange.app.hub._recent.clear()
        exchange.app.hub._starts.clear()
        floor = store.floor_sequence
        assert floor > 5
        assert state.snapshot_sequence == state.sequence

        for stream in (stream_events(exchange, 1), stream_events(exchange, token=old.resume_token)):
            refusal = await refused(stream.next())
            assert (refusal.code, refusal.reason) == ("OUT_OF_RANGE", "SEQUENCE_NOT_RETAINED")
            assert refusal.metadata == {"floor_sequence": str(floor)}
        assert (await stream_events(exchange, floor).next()).first_sequence == floor


async def test_a_quiet_stream_gets_heartbeats(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.trading.service.events.HEARTBEAT_S", 0.02)
    stream = stream_events(exchange)
    batches = await up_to_head(exchange, stream)
    beat = await stream.next()

    head = exchange.engine.state.sequence
    assert (beat.first_sequence, beat.last_sequence, beat.prev_sequence, beat.head_sequence) == (head,) * 4
    assert list(beat.events) == []
    assert beat.resume_token == batches[-1].resume_token


async def test_a_snapshot_and_the_events_after_it_are_the_whole(exchange: Exchange) -> None:
    await everything(exchange)
    await exchange.demo.buy("0.3", "40000")
    items = await stream_snapshot(exchange).rest()
    kinds = [str(item.WhichOneof("item")) for item in items]
    head = items[0].head

    assert kinds[0] == "head"
    assert set(kinds) == {"head", "switches", "asset", "market", "balance", "order", "resting"}
    assert head.state_hash == exchange.engine.state_hash()
    assert [item.asset.code for item in items if item.HasField("asset")] == ["BTC", "ETH", "USD", "SOL"]
    assert {item.market.symbol: item.market.mode for item in items if item.HasField("market")} == {
        "BTCUSD": types_pb2.OPEN,
        "ETHUSD": types_pb2.HALTED,
    }
    books: Books = defaultdict(lambda: [Decimal(0), Decimal(0)])
    for item in items:
        if item.HasField("balance"):
            balance = item.balance
            books[balance.account, balance.asset] = [Decimal(balance.available), Decimal(balance.held)]
    order = await exchange.demo.buy("1", "41000")
    for batch in await up_to_head(exchange, stream_events(exchange, token=head.resume_token)):
        assert batch.first_sequence == head.sequence + 1
        for event in batch.events:
            keep_books(books, event)
    assert [f"{amount:.8f}" for amount in books["demo", "USD"]] == list((await exchange.demo.balances())["USD"])
    assert order.sequence == head.sequence + 1


async def test_a_snapshot_is_of_the_moment_at_which_it_was_taken(exchange: Exchange) -> None:
    """Its messages are made while it is read, when the state has gone on."""
    await everything(exchange)
    service = EventService(exchange.app.desk, exchange.app.hub, cast("Any", None))
    head, items = service._taken()
    _, at_once = service._taken()
    before = list(at_once)
    await exchange.demo.buy("0.3", "40000")
    assert list(items) == before
    assert exchange.engine.state.sequence > head.sequence


async def test_a_snapshot_in_groups_has_the_same_items(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.trading.service.events.GROUP", 2)
    await everything(exchange)
    request = pb.StreamSnapshotRequest(in_groups=True)
    groups = await exchange.operator.stream(exchange.operator.events.StreamSnapshot, request).rest()
    found: list[pb.SnapshotItem] = []
    for item in groups:
        found.extend(pb.SnapshotItem(balance=one) for one in item.balances.balances)
        found.extend(pb.SnapshotItem(order=one) for one in item.orders.orders)
        if item.WhichOneof("item") not in ("balances", "orders"):
            found.append(item)

    assert found == await stream_snapshot(exchange).rest()
    sizes = [len(item.balances.balances) + len(item.orders.orders) for item in groups]
    assert max(sizes) == 2
    assert len(groups) < len(found) - 3


async def test_a_snapshot_tells_the_order_of_priority(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.trading.service.events.RESTING_AT_ONCE", 2)
    first, second = [await exchange.demo.buy("0.3", "40000") for _ in range(2)]
    await exchange.demo.buy("0.1", stop_price="60000", order_type=types_pb2.STOP_LIMIT, price="61000")
    best = await exchange.demo.buy("0.3", "40001")
    ask = await exchange.maker.sell("0.3", "50000")
    larger = order_commands_pb2.ReplaceOrderRequest(order_id=first.order_id, price="40000", quantity="0.4")
    await exchange.demo.ask(exchange.demo.orders.ReplaceOrder, larger)

    items = [item.resting for item in await stream_snapshot(exchange).rest() if item.HasField("resting")]

    assert [(item.symbol, len(item.order_ids)) for item in items] == [("BTCUSD", 2), ("BTCUSD", 2)]
    ids = [str(order_id) for item in items for order_id in item.order_ids]
    assert ids == [order.order_id for order in (best, second, first, ask)]


async def test_clients_do_not_see_the_bus(exchange: Exchange) -> None:
    stream = exchange.demo.stream(exchange.demo.events.StreamEvents, pb.StreamEventsRequest())
    with pytest.raises(grpc.RpcError) as caught:
        await stream.next()

    assert isinstance(caught.value, grpc.aio.AioRpcError)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_market_made_later_is_translated_on_a_stream_begun_before(exchange: Exchange) -> None:
    stream = stream_events(exchange, exchange.engine.state.sequence + 1)
    request = admin_service_pb2.CreateMarketRequest(
        base_asset="BTC", quote_asset="ETH", tick_size="0.01", lot_size="0.01"
    )
    await exchange.operator.ask(exchange.operator.admin.CreateMarket, request)
    order = await exchange.demo.place(BUY, "0.1", "10", symbol="BTCETH")
    batches = await up_to_head(exchange, stream)

    assert [event.WhichOneof("event") for batch in batches for event in batch.events] == [
        "market_changed",
        "order_accepted",
    ]
    assert batches[0].events[0].market_changed.market.symbol == "BTCETH"
    assert batches[-1].events[0].order_accepted.order_id == order.order_id


async def test_a_stream_goes_on_over_a_change_of_the_core(exchange: Exchange) -> None:
    stream = stream_events(exchange, exchange.engine.state.sequence + 1)
    await exchange.demo.buy("0.1", "40000")
    first = await stream.next()
    await exchange.lead_again()
    order = await exchange.demo.buy("0.1", "40001")
    batches = await up_to_head(exchange, stream)

    assert batches[0].prev_sequence == first.last_sequence
    assert batches[-1].events[-1].order_accepted.order_id == order.order_id


async def test_a_stopping_server_says_so(exchange: Exchange) -> None:
    stream = stream_events(exchange)
    batches = await up_to_head(exchange, stream)
    exchange.stopped.set()
    (end,) = await stream.rest()

    assert (end.end_reason, bool(end.end_message), list(end.events)) == ("DRAINING", True, [])
    assert end.resume_token == batches[-1].resume_token

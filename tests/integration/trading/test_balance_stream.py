"""StreamBalances: all balances at once, then each that changes."""

from __future__ import annotations

import pytest

from pincex.trading.v1 import account_service_pb2 as pb
from pincex.trading.v1 import admin_service_pb2, types_pb2
from tests.integration.trading.engine_app import BUY, IOC, Client, Exchange, Stream, eventually, refused


def subscribe(client: Client) -> Stream:
    return client.stream(client.accounts.StreamBalances, pb.StreamBalancesRequest())


class BalancesCopy:
    """What a client keeps."""

    def __init__(self) -> None:
        self.balances: dict[str, tuple[str, str]] = {}
        self.sequence = 0

    def apply(self, update: pb.BalanceUpdate) -> None:
        kind = update.WhichOneof("update")
        if kind == "snapshot":
            assert update.prev_sequence == 0
            self.balances = {}
        else:
            assert update.prev_sequence == self.sequence, "a gap"
        for balance in (*update.snapshot.balances, *update.changed.balances):
            self.balances[balance.asset] = (balance.available, balance.held)
            assert balance.sequence == update.sequence
        self.sequence = update.sequence


async def follow(stream: Stream, copy: BalancesCopy, sequence: int) -> None:
    while copy.sequence < sequence:
        copy.apply(await stream.next())


async def test_a_copy_of_the_stream_is_what_list_balances_says_after_every_step(exchange: Exchange) -> None:
    stream, copy = subscribe(exchange.demo), BalancesCopy()
    copy.apply(await stream.next())
    assert copy.balances == await exchange.demo.balances()

    resting = await exchange.demo.buy("1", "50000")
    await exchange.maker.sell("0.25", "50000")
    steps = [
        resting.sequence,
        exchange.engine.state.sequence,
        (await exchange.demo.cancel(resting.order_id)).sequence,
        (await exchange.credit("demo", "BTC", "1.5")).sequence,
        (await exchange.demo.sell("1", "60000")).sequence,
        (await exchange.demo.buy("0.5", "60000", self_trade_prevention=types_pb2.NONE)).sequence,
    ]
    await follow(stream, copy, steps[-1])

    assert copy.balances == await exchange.demo.balances()


async def test_a_change_names_only_what_changed(exchange: Exchange) -> None:
    stream, copy = subscribe(exchange.demo), BalancesCopy()
    copy.apply(await stream.next())
    order = await exchange.demo.sell("1", "60000")
    update = await stream.next()

    assert [balance.asset for balance in update.changed.balances] == ["BTC"]
    assert (update.sequence, update.changed.balances[0].held) == (order.sequence, "1.00000000")


async def test_an_order_that_moves_nothing_in_the_end_is_told_as_it_is(exchange: Exchange) -> None:
    stream, copy = subscribe(exchange.demo), BalancesCopy()
    copy.apply(await stream.next())
    order = await exchange.demo.buy("1", "40000", time_in_force=IOC)
    await follow(stream, copy, order.sequence)

    assert copy.balances == await exchange.demo.balances()


async def test_a_new_account_begins_with_nothing_and_hears_of_its_first_money(exchange: Exchange) -> None:
    stream, copy = subscribe(exchange.client("fresh")), BalancesCopy()
    copy.apply(await stream.next())
    assert copy.balances == {}

    credited = await exchange.credit("fresh", "ETH", "2")
    await follow(stream, copy, credited.sequence)

    assert copy.balances == {"ETH": ("2.00000000", "0.00000000")}


async def test_another_account_s_money_is_not_told(exchange: Exchange) -> None:
    stream = subscribe(exchange.client("fresh"))
    await stream.next()
    await eventually(lambda: "fresh" in exchange.app.hub._waiting_accounts, "it waits")
    await exchange.maker.buy("1", "40000")
    await exchange.credit("fresh", "ETH", "2")

    assert [balance.account for balance in (await stream.next()).changed.balances] == ["fresh"]


async def test_a_refused_order_is_no_message(exchange: Exchange) -> None:
    stream, copy = subscribe(exchange.client("poor")), BalancesCopy()
    copy.apply(await stream.next())
    await refused(exchange.client("poor").buy("1", "40000"))
    await exchange.credit("poor", "USD", "1")

    assert len((await stream.next()).changed.balances) == 1


async def test_heartbeats_carry_the_head(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.trading.service.account.HEARTBEAT_S", 0.02)
    stream = subscribe(exchange.demo)
    first = await stream.next()
    foreign = await exchange.maker.buy("1", "40000")
    beats = await stream.until(lambda update: update.heartbeat.head_sequence == foreign.sequence)

    assert {(beat.sequence, beat.prev_sequence) for beat in beats} == {(first.sequence, first.sequence)}


async def test_a_stopping_server_says_so(exchange: Exchange) -> None:
    stream = subscribe(exchange.demo)
    await stream.next()
    exchange.stopped.set()
    notice, end = await stream.rest()

    assert notice.drain.HasField("deadline_time")
    assert end.end.reason == "DRAINING"


async def test_a_stream_goes_on_over_a_change_of_the_core_and_knows_markets_made_since(exchange: Exchange) -> None:
    stream, copy = subscribe(exchange.demo), BalancesCopy()
    copy.apply(await stream.next())
    await exchange.lead_again()
    market = admin_service_pb2.CreateMarketRequest(
        base_asset="BTC", quote_asset="ETH", tick_size="0.01", lot_size="0.01"
    )
    await exchange.operator.ask(exchange.operator.admin.CreateMarket, market)
    order = await exchange.demo.place(BUY, "1", "16", symbol="BTCETH")
    await follow(stream, copy, order.sequence)

    assert copy.balances == await exchange.demo.balances()

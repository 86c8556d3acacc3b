"""The market maker on a real engine: it quotes, follows, pulls its quotes for each reason, and counts what it traded."""

from __future__ import annotations

from contextlib import AsyncExitStack
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg

from pincex.marketmaker.v1 import market_maker_service_pb2 as pb
from pincex.trading.v1 import admin_service_pb2
from tests.integration.market_maker.market_maker_app import FakeReference, MarketMaker, best, running_market_maker
from tests.integration.trading.engine_app import eventually

if TYPE_CHECKING:
    import pytest

    from tests.integration.trading.engine_app import Exchange
    from tests.postgres_fixture import Database


async def test_a_fresh_exchange_gets_a_living_book(maker: MarketMaker) -> None:
    orders = await maker.quoting()
    bid, ask = best(orders)
    assert bid < 50_000 < ask
    assert Decimal("0.003") <= (ask - bid) / 50_000 <= Decimal("0.02")
    assert all(order.post_only for order in orders)
    market = await maker.until("QUOTING")
    assert (Decimal(market.bid_price), Decimal(market.ask_price)) == (bid, ask)
    assert (market.open_orders, market.reference_price) == (10, "50000")
    assert (await maker.until("STALE_REFERENCE", "ETHUSD")).open_orders == 0
    status = await maker.status()
    assert (status.enabled, status.connected, status.account) == (True, True, "market-maker")


async def test_quotes_follow_the_reference_and_stay_where_they_may(
    maker: MarketMaker, reference: FakeReference
) -> None:
    before = {order.order_id for order in await maker.quoting()}
    reference.prices["BTCUSD"] = "50001"
    await maker.rounds()
    assert {order.order_id for order in await maker.quoting()} == before, "not worth a change"
    reference.prices["BTCUSD"] = "52000"
    await maker.rounds(3)
    orders = await maker.quoting()
    assert not before & {order.order_id for order in orders}
    bid, ask = best(orders)
    assert bid < 52_000 < ask
    # It has moved by 4% within a minute.
    assert (ask - bid) / 52_000 > Decimal("0.018")


async def test_quotes_are_pulled_when_the_reference_is_old_or_gone(
    maker: MarketMaker, reference: FakeReference
) -> None:
    await maker.quoting()
    reference.age_s = 60.0
    await maker.until("STALE_REFERENCE")
    assert await maker.quoting(0) == []
    reference.age_s = 0.0
    await maker.quoting()
    del reference.prices["BTCUSD"]
    await maker.quoting(0)
    assert (await maker.until("STALE_REFERENCE")).reference_price == ""


async def test_quotes_are_pulled_when_the_market_closes_even_if_it_is_halted(maker: MarketMaker) -> None:
    operator = maker.exchange.operator
    await maker.quoting()
    request = admin_service_pb2.SetMarketModeRequest(symbol="BTCUSD", reason="test")
    for close in (operator.admin.SetMarketCancelOnly, operator.admin.HaltMarket):
        await operator.ask(close, request)
        await maker.quoting(0)
        await maker.until("MARKET_CLOSED")
        await operator.ask(operator.admin.ResumeMarket, request)
        await maker.quoting()


async def test_fills_move_inventory_and_the_skew(maker: MarketMaker, reference: FakeReference) -> None:
    bid, ask = best(await maker.quoting())
    await maker.exchange.demo.sell("0.2", str(bid))
    await maker.rounds(3)
    orders = await maker.quoting()
    market = await maker.until("QUOTING")
    assert market.inventory == "0.2"
    assert Decimal(market.profit_today) > 0, "it bought far enough below the reference to pay its fees"
    now_bid, now_ask = best(orders)
    assert now_bid < bid, "the level that traded is not filled again at the same price"
    assert now_ask <= ask
    # What was earned is told while nothing is quoted too.
    del reference.prices["BTCUSD"]
    assert (await maker.until("STALE_REFERENCE")).profit_today == market.profit_today
    await maker.ask("DisableQuoting", pb.DisableQuotingRequest())
    assert (await maker.until("DISABLED")).profit_today == market.profit_today


async def test_the_limit_of_inventory_leaves_one_side(maker: MarketMaker) -> None:
    await maker.ask("SetQuoting", pb.SetQuotingRequest(symbol="btc-usd", max_inventory="0.2", levels=1))
    bid, _ = best(await maker.quoting(2))
    await maker.exchange.demo.sell("0.2", str(bid))
    await maker.rounds(3)
    (left,) = await maker.quoting(1)
    assert left.side == 2
    await maker.exchange.demo.buy("0.2", left.price)
    await maker.rounds(3)
    await maker.quoting(2)
    assert (await maker.market()).inventory == "0"


async def test_the_loss_limit_stops_one_market_until_it_is_enabled_again(
    maker: MarketMaker, reference: FakeReference
) -> None:
    await maker.ask("SetQuoting", pb.SetQuotingRequest(symbol="BTCUSD", max_daily_loss="100"))
    bid, _ = best(await maker.quoting())
    await maker.exchange.demo.sell("0.2", str(bid))
    await maker.rounds(2)
    reference.prices["BTCUSD"] = "49000"
    stopped = await maker.until("LOSS_LIMIT")
    assert Decimal(stopped.profit_today) < -100
    await maker.quoting(0)
    reference.prices["BTCUSD"] = "50000"
    await maker.rounds(2)
    assert (await maker.market()).state == "LOSS_LIMIT"
    await maker.ask("EnableQuoting", pb.EnableQuotingRequest())
    await maker.quoting()


async def test_what_others_quote_is_never_taken(maker: MarketMaker, reference: FakeReference) -> None:
    await maker.quoting()
    resting = await maker.exchange.demo.buy("0.5", "50010.00")
    assert resting.filled_quantity == "0.00000", "between the quotes"
    reference.prices["BTCUSD"] = "49000"
    await maker.rounds(4)
    bid, ask = best(await maker.quoting())
    assert (bid < 49_000, ask > 50_010) == (True, True)
    assert (await maker.exchange.demo.get(resting.order_id)).filled_quantity == "0.00000"


async def test_a_restart_counts_each_fill_once_and_keeps_settings(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database
) -> None:
    async with running_market_maker(monkeypatch, exchange, database) as first:
        await first.ask("SetQuoting", pb.SetQuotingRequest(symbol="BTCUSD", levels=2))
        bid, _ = best(await first.quoting(4))
        await exchange.demo.sell("0.1", str(bid))
        await first.until("QUOTING")
    assert await exchange.client("market-maker").listed() == [], "stopped, it leaves no quote"
    async with running_market_maker(monkeypatch, exchange, database) as second:
        await second.quoting(4)
        market = await second.market()
        assert (market.inventory, market.levels) == ("0.1", 2)


async def test_what_traded_after_the_last_word_to_the_database_is_counted_by_the_next_process(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database
) -> None:
    kept = "UPDATE market_maker_progress SET resume_token = %s"
    async with running_market_maker(monkeypatch, exchange, database) as first:
        bid, _ = best(await first.quoting())
        await first.until("QUOTING")
        with psycopg.connect(database.admin_url, autocommit=True) as connection:
            before = connection.execute("SELECT resume_token FROM market_maker_progress").fetchone()
        await exchange.demo.sell("0.1", str(bid))
        await first.rounds(3)
    # As if it had been killed before it could write the fill down: both or neither is in the tables.
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        assert connection.execute("SELECT inventory FROM market_maker_positions").fetchall() == [(Decimal("0.1"),)]
        connection.execute(kept, before)
        connection.execute("UPDATE market_maker_positions SET inventory = 0, cash = 0")
    async with running_market_maker(monkeypatch, exchange, database) as second:
        await second.quoting()
        assert (await second.market()).inventory == "0.1"


async def test_without_the_exchange_it_waits_and_comes_back(maker: MarketMaker) -> None:
    await maker.quoting()
    await maker.exchange.lead_again()
    await maker.rounds(2)
    await maker.quoting()
    await maker.until("QUOTING")


async def test_one_instance_quotes_and_another_takes_over(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database
) -> None:
    async with AsyncExitStack() as life:
        first = await life.enter_async_context(running_market_maker(monkeypatch, exchange, database))
        await first.quoting()
        async with running_market_maker(monkeypatch, exchange, database) as second:
            assert (await second.until("QUOTING")).open_orders == 10, "who stands by answers, too"
            await second.ask("DisableQuoting", pb.DisableQuotingRequest())
            assert await first.orders() == []
            await second.ask("EnableQuoting", pb.EnableQuotingRequest())
            await first.quoting()
            await first.rounds(5)
            assert (first.app.role(), second.app.role()) == ("quoter", "standby")
            await life.aclose()
            await eventually(lambda: second.app.role() == "quoter", "the other one takes over")
            await second.quoting()

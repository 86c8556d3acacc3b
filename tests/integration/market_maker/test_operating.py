"""What operators tell the market maker: on, off, spreads, quantities; what makes no sense is refused and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from google.protobuf.struct_pb2 import Struct

from exchange.market_maker.service import market_maker
from pincex.marketmaker.v1 import market_maker_service_pb2 as pb
from tests.integration.market_maker.market_maker_app import MarketMaker, running_market_maker
from tests.integration.trading.engine_app import eventually, refused

if TYPE_CHECKING:
    import pytest

    from tests.integration.trading.engine_app import Exchange
    from tests.postgres_fixture import Database


def spreads(body: Any) -> pb.SetSpreadsRequest:
    struct = Struct()
    struct.update(body)
    return pb.SetSpreadsRequest(spreads=struct)


RUNBOOK = {
    "BTCUSD": {"min_spread": 0.02, "max_spread": 0.05},
    "ETHUSD": {"min_spread": 0.02, "max_spread": 0.05},
}


async def test_disabled_it_answers_when_no_order_is_left_and_stays_so(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database
) -> None:
    async with running_market_maker(monkeypatch, exchange, database) as maker:
        await maker.quoting()
        status = await maker.ask("DisableQuoting", pb.DisableQuotingRequest(reason="maintenance"))
        assert await maker.orders() == []
        assert not status.enabled
        assert {market.state for market in status.markets} == {"DISABLED"}
    async with running_market_maker(monkeypatch, exchange, database) as again:
        await eventually(lambda: again.app.leader.is_leading, "it leads")
        assert not (await again.status()).enabled
        status = await again.ask("EnableQuoting", pb.EnableQuotingRequest(reason="done"))
        assert status.enabled
        await again.quoting()


async def test_disabling_does_not_answer_while_an_order_of_the_account_is_open(
    maker: MarketMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await maker.quoting()
    await maker.ask("DisableQuoting", pb.DisableQuotingRequest())
    by_hand = await maker.client.buy("0.1", "40000")
    monkeypatch.setattr(market_maker, "EMPTIED_S", 0.3)
    found = await refused(maker.ask("DisableQuoting", pb.DisableQuotingRequest()))
    assert found.reason == "UPSTREAM_TIMEOUT"
    await maker.client.cancel(by_hand.order_id)
    assert not (await maker.ask("DisableQuoting", pb.DisableQuotingRequest())).enabled


async def test_spreads_of_the_runbook_are_followed_and_survive(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database
) -> None:
    async with running_market_maker(monkeypatch, exchange, database) as maker:
        await maker.quoting()
        status = await maker.ask("SetSpreads", spreads(RUNBOOK))
        assert {(market.min_spread, market.max_spread) for market in status.markets} == {("0.02", "0.05")}
        market = await maker.until("QUOTING")
        apart = (float(market.ask_price) - float(market.bid_price)) / 50_000
        assert 0.02 <= apart <= 0.05
    async with running_market_maker(monkeypatch, exchange, database) as again:
        assert (await again.until("QUOTING")).min_spread == "0.02"
    with psycopg.connect(database.admin_url) as connection:
        (record,) = connection.execute(
            "SELECT details FROM audit_records WHERE action LIKE '%%SetSpreads' AND outcome = 'OK'"
        ).fetchall()
    assert "0.02" in str(record[0])


BAD_SPREADS: list[tuple[Any, str, str | None]] = [
    ({}, "FIELD_REQUIRED", "spreads"),
    ({"BTCUSD": {"min_spread": 0.05, "max_spread": 0.02}}, "INVALID_FIELD", "spreads.BTCUSD.min_spread"),
    ({"BTCUSD": {"min_spread": 0.5}}, "INVALID_FIELD", "spreads.BTCUSD.min_spread"),
    ({"BTCUSD": {"min_spread": -0.01}}, "INVALID_FIELD", "spreads.BTCUSD.min_spread"),
    ({"BTCUSD": {"min_spread": "-0.01"}}, "INVALID_FIELD", "spreads.BTCUSD.min_spread"),
    ({"BTCUSD": {"max_spread": 1.5}}, "INVALID_FIELD", "spreads.BTCUSD.max_spread"),
    ({"BTCUSD": {"max_spread": 1e300}}, "INVALID_FIELD", "spreads.BTCUSD.max_spread"),
    ({"BTCUSD": {"min_spread": 1e-12}}, "INVALID_FIELD", "spreads.BTCUSD.min_spread"),
    ({"BTCUSD": {"min_spread": float("nan")}}, "INVALID_DECIMAL", "spreads.BTCUSD.min_spread"),
    ({"BTCUSD": {"min_spread": float("inf")}}, "INVALID_DECIMAL", "spreads.BTCUSD.min_spread"),
    ({"BTCUSD": {"min_spread": "wide"}}, "INVALID_DECIMAL", "spreads.BTCUSD.min_spread"),
    ({"BTCUSD": {"min_spread": "1e-2"}}, "INVALID_DECIMAL", "spreads.BTCUSD.min_spread"),
    ({"BTCUSD": {"min_spread": None}}, "INVALID_DECIMAL", "spreads.BTCUSD.min_spread"),
    ({"BTCUSD": {"min_spread": True}}, "INVALID_DECIMAL", "spreads.BTCUSD.min_spread"),
    ({"BTCUSD": {"min_spread": [0.01]}}, "INVALID_DECIMAL", "spreads.BTCUSD.min_spread"),
    ({"BTCUSD": {"spread": 0.01}}, "INVALID_FIELD", "spreads.BTCUSD.spread"),
    ({"BTCUSD": {}}, "INVALID_FIELD", "spreads.BTCUSD"),
    ({"BTCUSD": 0.01}, "INVALID_FIELD", "spreads.BTCUSD"),
    ({"BTCUSD": RUNBOOK["BTCUSD"], "BTC/USD": RUNBOOK["BTCUSD"]}, "INVALID_FIELD", "spreads.BTCUSD"),
    ({"BTCUSD": RUNBOOK["BTCUSD"], "DOGEUSD": RUNBOOK["BTCUSD"]}, "UNKNOWN_SYMBOL", None),
    ({"x" * 5_000: RUNBOOK["BTCUSD"]}, "UNKNOWN_SYMBOL", None),
    ({"\0": RUNBOOK["BTCUSD"]}, "UNKNOWN_SYMBOL", None),
]


async def test_bad_spreads_are_refused_whole(maker: MarketMaker) -> None:
    await maker.quoting()
    before = (await maker.market()).min_spread
    for body, reason, field in BAD_SPREADS:
        found = await refused(maker.ask("SetSpreads", spreads(body)))
        assert (found.reason, field is None or found.metadata["field"] == field) == (reason, True), (body, found)
        assert (await maker.market()).min_spread == before
    assert len(await maker.orders()) == 10


BAD_QUANTITIES: list[tuple[dict[str, Any], str]] = [
    ({"symbol": ""}, "FIELD_REQUIRED"),
    ({"symbol": "DOGEUSD", "levels": 1}, "UNKNOWN_SYMBOL"),
    ({"levels": 0}, "INVALID_FIELD"),
    ({"levels": 21}, "INVALID_FIELD"),
    ({"levels": 4_294_967_295}, "INVALID_FIELD"),
    ({"level_quantity": "0"}, "NOT_POSITIVE"),
    ({"level_quantity": "-1"}, "INVALID_DECIMAL"),
    ({"level_quantity": "0.000001"}, "QUANTITY_OFF_LOT"),
    ({"level_quantity": "lots"}, "INVALID_DECIMAL"),
    ({"level_quantity": ""}, "INVALID_DECIMAL"),
    ({"max_inventory": "-1"}, "INVALID_DECIMAL"),
    ({"max_inventory": "9" * 30}, "NUMBER_TOO_LARGE"),
    ({"max_daily_loss": "NaN"}, "INVALID_DECIMAL"),
    ({"max_daily_loss": "0.0000000000001"}, "INVALID_FIELD"),
    ({"reason": "x" * 257}, "INVALID_FIELD"),
]


async def test_bad_quantities_are_refused(maker: MarketMaker) -> None:
    def limits(market: pb.MarketQuoting) -> tuple[object, ...]:
        return market.levels, market.level_quantity, market.max_inventory, market.max_daily_loss

    await maker.quoting()
    before = limits(await maker.market())
    for fields, reason in BAD_QUANTITIES:
        found = await refused(maker.ask("SetQuoting", pb.SetQuotingRequest(**{"symbol": "BTCUSD", **fields})))
        assert found.reason == reason, (fields, found)
    assert limits(await maker.market()) == before


async def test_one_market_is_turned_off_and_on(maker: MarketMaker) -> None:
    await maker.quoting()
    await maker.ask("SetQuoting", pb.SetQuotingRequest(symbol="BTC/USD", enabled=False))
    await maker.quoting(0)
    assert (await maker.market()).state == "DISABLED"
    await maker.ask("SetQuoting", pb.SetQuotingRequest(symbol="BTC/USD", enabled=True, level_quantity="0.1"))
    assert {order.quantity for order in await maker.quoting()} == {"0.10000"}

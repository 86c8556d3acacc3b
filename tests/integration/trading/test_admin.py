"""TradingAdminService: numbers, assets, markets, limits, mass cancel, snapshots."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.trading.core import book as core_book
from exchange.trading.core.constants import RULES_VERSION
from pincex.trading.v1 import admin_service_pb2 as pb
from pincex.trading.v1 import types_pb2
from tests.integration.trading.engine_app import BUY, IOC, STOP, Exchange, eventually, refused

HUGE = "1" + "0" * 37


async def ask(exchange: Exchange, method: str, request: Any) -> Any:
    return await exchange.operator.ask(getattr(exchange.operator.admin, method), request)


def market(**fields: Any) -> pb.CreateMarketRequest:
    good = {"base_asset": "BTC", "quote_asset": "ETH", "tick_size": "0.01", "lot_size": "0.01"}
    return pb.CreateMarketRequest(**{**good, **fields})


# --- numbers ---


async def test_the_book_state_is_what_operators_compare(exchange: Exchange) -> None:
    await exchange.maker.sell("1", "50000")
    await exchange.demo.buy("0.1", "50000")
    await exchange.demo.buy("1", "49000")
    last = await exchange.demo.buy("1", order_type=STOP, stop_price="60000")
    state = await ask(exchange, "GetBookState", pb.GetBookStateRequest(symbol="BTC/USD"))

    assert (state.symbol, state.instance, state.sequence) == ("BTCUSD", "engine-under-test", int(last.sequence))
    assert state.book_hash == core_book.book_hash(exchange.engine.state.markets[0])
    assert (state.bid_order_count, state.ask_order_count, state.stop_order_count) == (1, 1, 1)
    assert (state.bid_level_count, state.ask_level_count, state.last_price) == (1, 1, "50000.00")
    assert [(level.price, level.quantity) for level in state.asks] == [("50000.00", "0.90000")]
    assert (await refused(ask(exchange, "GetBookState", pb.GetBookStateRequest(symbol="X")))).reason == "UNKNOWN_SYMBOL"
    too_deep = pb.GetBookStateRequest(symbol="BTCUSD", depth=5001)
    assert (await refused(ask(exchange, "GetBookState", too_deep))).reason == "INVALID_FIELD"


async def test_the_queue_depth_is_a_bare_number(exchange: Exchange) -> None:
    answer = await ask(exchange, "GetQueueDepth", pb.GetQueueDepthRequest())

    assert (answer.content_type, answer.data) == ("text/plain", b"0\n")


async def test_metrics_have_the_series_of_the_runbooks(exchange: Exchange) -> None:
    await exchange.demo.buy("1", "49000")
    answer = await ask(exchange, "GetMetrics", pb.GetMetricsRequest())
    text = answer.data.decode()

    assert answer.content_type.startswith("text/plain")
    for line in (
        "order_queue_depth{",
        "book_depth_levels{",
        "journal_commit_latency_seconds_bucket{",
        "grpc_request_duration_seconds_bucket{",
        "engine_leading{",
        "engine_sequence{",
    ):
        assert line.rstrip("{") in text, line
    orders = [line for line in text.splitlines() if line.startswith("book_orders{") and "BTCUSD" in line]
    assert {line.rsplit(" ", 1)[1] for line in orders if 'side="buy"' in line} == {"1.0"}


async def test_the_engine_state_names_the_history_and_the_hash(exchange: Exchange) -> None:
    await exchange.demo.buy("1", "49000")
    state = await ask(exchange, "GetEngineState", pb.GetEngineStateRequest())

    assert (state.role, state.epoch, state.floor_sequence, state.rules_version) == ("LEADER", 1, 1, RULES_VERSION)
    assert (state.sequence, state.state_hash) == (exchange.engine.state.sequence, exchange.engine.state_hash())
    assert state.incarnation == exchange.store.incarnation
    assert (state.open_order_count, state.snapshot_sequence) == (1, 0)
    assert state.core_mode in {"compiled", "pure"}


async def test_a_snapshot_is_stored_and_the_next_start_uses_it(exchange: Exchange) -> None:
    await exchange.demo.buy("1", "49000")
    before = await exchange.state_hash()
    state = await ask(exchange, "CreateSnapshot", pb.CreateSnapshotRequest(reason="before a release"))

    assert state.snapshot_sequence == state.sequence == exchange.engine.state.sequence
    assert exchange.store.snapshots[state.sequence].state_hash == state.state_hash
    await exchange.lead_again()
    assert exchange.app.desk.snapshot_sequence == state.sequence
    assert await exchange.state_hash() == before


async def test_only_operators_may(exchange: Exchange) -> None:
    """The service is not on the public listener at all; on the ops listener the role is asked for."""
    admin = exchange.demo.admin
    for method in ("GetEngineState", "EnableCircuitBreaker"):
        request = pb.GetEngineStateRequest() if method == "GetEngineState" else pb.SetSwitchRequest()
        with pytest.raises(Exception, match="UNIMPLEMENTED"):
            await exchange.demo.ask(getattr(admin, method), request)


# --- assets ---


async def test_an_asset_is_made_once(exchange: Exchange) -> None:
    made = await ask(exchange, "CreateAsset", pb.CreateAssetRequest(code="SOL", decimals=9, request_id="a-1"))
    again = await ask(exchange, "CreateAsset", pb.CreateAssetRequest(code="SOL", decimals=9, request_id="a-1"))
    refusal = await refused(ask(exchange, "CreateAsset", pb.CreateAssetRequest(code="SOL", decimals=9)))

    assert made == again == types_pb2.Asset(code="SOL", decimals=9)
    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "ALREADY_EXISTS")


@pytest.mark.parametrize(
    ("code", "decimals", "reason"),
    [
        ("", 8, "INVALID_FIELD"),
        ("S", 8, "INVALID_FIELD"),
        ("sol", 8, "INVALID_FIELD"),
        ("SOL-X", 8, "INVALID_FIELD"),
        ("X" * 11, 8, "INVALID_FIELD"),
        ("SOL", 13, "INVALID_DEFINITION"),
        ("SOL", 2**32 - 1, "INVALID_DEFINITION"),
    ],
)
async def test_an_asset_that_must_not_be_is_refused(exchange: Exchange, code: str, decimals: int, reason: str) -> None:
    refusal = await refused(ask(exchange, "CreateAsset", pb.CreateAssetRequest(code=code, decimals=decimals)))

    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", reason)


async def test_assets_are_listed_by_code_in_pages(exchange: Exchange) -> None:
    first = await ask(exchange, "ListAssets", pb.ListAssetsRequest(page_size=2))
    second = await ask(exchange, "ListAssets", pb.ListAssetsRequest(page_size=2, page_token=first.next_page_token))

    assert [asset.code for asset in (*first.assets, *second.assets)] == ["BTC", "ETH", "USD"]
    assert second.next_page_token == ""
    bad = pb.ListAssetsRequest(page_token="AAAA")
    assert (await refused(ask(exchange, "ListAssets", bad))).reason == "INVALID_PAGE_TOKEN"


# --- markets ---


async def test_a_market_is_made_with_its_defaults_and_trades_at_once(exchange: Exchange) -> None:
    made = await ask(exchange, "CreateMarket", market(request_id="m-1"))

    assert (made.symbol, made.mode, made.tick_size, made.lot_size) == ("BTCETH", types_pb2.OPEN, "0.01", "0.01")
    assert (made.min_quantity, made.max_quantity, made.min_notional) == ("0.01", "", "0.00000000")
    assert (made.price_band_ppm, made.market_protection_ppm) == (0, 50_000)
    assert made.default_self_trade_prevention == types_pb2.CANCEL_NEWEST
    assert await ask(exchange, "CreateMarket", market(request_id="m-1")) == made
    order = await exchange.demo.place(BUY, "0.5", "16.25", symbol="btc/eth")
    assert (order.price, order.quantity) == ("16.25", "0.50")


async def test_a_market_has_every_rule_it_was_given(exchange: Exchange) -> None:
    rules = {
        "symbol": "btc-x",
        "tick_size": "0.250",
        "lot_size": "0.02",
        "min_quantity": "0.04",
        "max_quantity": "100",
        "min_notional": "0.5",
        "maker_fee_ppm": 10,
        "taker_fee_ppm": 20,
        "price_band_ppm": 100_000,
        "market_protection_ppm": 1_000,
        "default_self_trade_prevention": types_pb2.CANCEL_BOTH,
        "reference_price": "16.5",
    }
    made = await ask(exchange, "CreateMarket", market(**rules))

    assert (made.symbol, made.tick_size, made.lot_size) == ("BTCX", "0.25", "0.02")
    assert (made.min_quantity, made.max_quantity, made.min_notional) == ("0.04", "100.00", "0.50000000")
    assert (made.maker_fee_ppm, made.taker_fee_ppm, made.price_band_ppm) == (10, 20, 100_000)
    assert (made.market_protection_ppm, made.default_self_trade_prevention) == (1_000, types_pb2.CANCEL_BOTH)
    assert (made.reference_price, made.last_price) == ("16.50", "")


BAD_MARKETS: list[tuple[dict[str, Any], str, str]] = [
    ({"symbol": "BTCUSD"}, "ALREADY_EXISTS", "ALREADY_EXISTS"),
    ({"symbol": "X"}, "INVALID_ARGUMENT", "INVALID_FIELD"),
    ({"symbol": "WITH SPACE"}, "INVALID_ARGUMENT", "INVALID_FIELD"),
    ({"base_asset": "DOGE"}, "NOT_FOUND", "UNKNOWN_ASSET"),
    ({"quote_asset": ""}, "INVALID_ARGUMENT", "FIELD_REQUIRED"),
    ({"quote_asset": "BTC", "symbol": "SAME"}, "INVALID_ARGUMENT", "INVALID_DEFINITION"),
    ({"tick_size": ""}, "INVALID_ARGUMENT", "FIELD_REQUIRED"),
    ({"tick_size": "0"}, "INVALID_ARGUMENT", "NOT_POSITIVE"),
    ({"tick_size": "-1"}, "INVALID_ARGUMENT", "NOT_POSITIVE"),
    ({"tick_size": "1e-2"}, "INVALID_ARGUMENT", "INVALID_DECIMAL"),
    ({"tick_size": "0.0000000000001"}, "INVALID_ARGUMENT", "INVALID_DEFINITION"),
    ({"tick_size": HUGE}, "INVALID_ARGUMENT", "NUMBER_TOO_LARGE"),
    ({"lot_size": ""}, "INVALID_ARGUMENT", "FIELD_REQUIRED"),
    ({"lot_size": "0"}, "INVALID_ARGUMENT", "NOT_POSITIVE"),
    ({"lot_size": "0.000000001"}, "INVALID_ARGUMENT", "INVALID_FIELD"),
    ({"lot_size": HUGE}, "INVALID_ARGUMENT", "NUMBER_TOO_LARGE"),
    ({"tick_size": "0.001", "lot_size": "0.00000001"}, "INVALID_ARGUMENT", "INVALID_DEFINITION"),
    ({"min_quantity": "0.015"}, "INVALID_ARGUMENT", "INVALID_FIELD"),
    ({"min_quantity": "nan"}, "INVALID_ARGUMENT", "INVALID_DECIMAL"),
    ({"min_quantity": HUGE}, "INVALID_ARGUMENT", "NUMBER_TOO_LARGE"),
    ({"min_quantity": "2", "max_quantity": "1"}, "INVALID_ARGUMENT", "INVALID_DEFINITION"),
    ({"max_quantity": HUGE}, "INVALID_ARGUMENT", "NUMBER_TOO_LARGE"),
    ({"min_notional": "-1"}, "INVALID_ARGUMENT", "NOT_POSITIVE"),
    ({"min_notional": "0.000000001"}, "INVALID_ARGUMENT", "INVALID_FIELD"),
    ({"min_notional": HUGE}, "INVALID_ARGUMENT", "NUMBER_TOO_LARGE"),
    ({"reference_price": "1.005"}, "INVALID_ARGUMENT", "INVALID_FIELD"),
    ({"reference_price": HUGE}, "INVALID_ARGUMENT", "NUMBER_TOO_LARGE"),
    ({"maker_fee_ppm": 100_001}, "INVALID_ARGUMENT", "INVALID_DEFINITION"),
    ({"taker_fee_ppm": 2**32 - 1}, "INVALID_ARGUMENT", "INVALID_DEFINITION"),
    ({"price_band_ppm": 1_000_001}, "INVALID_ARGUMENT", "INVALID_DEFINITION"),
    ({"default_self_trade_prevention": 9}, "INVALID_ARGUMENT", "INVALID_DEFINITION"),
    ({"request_id": "with space"}, "INVALID_ARGUMENT", "INVALID_FIELD"),
]


async def test_every_market_that_breaks_a_rule_is_refused_and_the_engine_lives(exchange: Exchange) -> None:
    for fields, code, reason in BAD_MARKETS:
        refusal = await refused(ask(exchange, "CreateMarket", market(**fields)))
        assert (refusal.code, refusal.reason) == (code, reason), fields
    assert len(exchange.engine.state.markets) == 2
    assert (await exchange.demo.buy("1", "50000")).order_id


async def test_a_market_s_rules_change_and_open_orders_keep_their_fees(exchange: Exchange) -> None:
    resting = await exchange.maker.sell("1", "50000")
    request = pb.UpdateMarketRequest(
        symbol="BTCUSD",
        min_quantity="0.5",
        max_quantity="2",
        min_notional="10",
        maker_fee_ppm=0,
        taker_fee_ppm=5_000,
        price_band_ppm=100_000,
        market_protection_ppm=1,
        default_self_trade_prevention=types_pb2.NONE,
        request_id="u-1",
        reason="test",
    )
    changed = await ask(exchange, "UpdateMarket", request)

    assert (changed.min_quantity, changed.max_quantity, changed.min_notional) == ("0.50000", "2.00000", "10.00000000")
    assert (changed.maker_fee_ppm, changed.taker_fee_ppm, changed.price_band_ppm) == (0, 5_000, 100_000)
    assert (changed.market_protection_ppm, changed.default_self_trade_prevention) == (1, types_pb2.NONE)
    assert (changed.tick_size, changed.lot_size) == ("0.01", "0.00001")
    for quantity, price, reason in (
        ("0.4", "50000", "QUANTITY_TOO_SMALL"),
        ("2.1", "50000", "QUANTITY_TOO_LARGE"),
        ("1", "44999", "PRICE_OUT_OF_BAND"),
    ):
        assert (await refused(exchange.demo.buy(quantity, price))).reason == reason
    taken = await exchange.demo.buy("1", "50000")
    assert (taken.fee_paid, (await exchange.maker.get(resting.order_id)).fee_paid) == ("250.00000000", "50.00000000")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "FIELD_REQUIRED"),
        ({"symbol": "NONE", "maker_fee_ppm": 1}, "UNKNOWN_SYMBOL"),
        ({"maker_fee_ppm": 100_001}, "INVALID_DEFINITION"),
        ({"min_quantity": "0.000001"}, "INVALID_FIELD"),
        ({"max_quantity": HUGE}, "NUMBER_TOO_LARGE"),
        ({"min_notional": HUGE}, "NUMBER_TOO_LARGE"),
        ({"default_self_trade_prevention": 0}, "INVALID_DEFINITION"),
    ],
    ids=str,
)
async def test_a_change_that_must_not_be_is_refused(exchange: Exchange, fields: dict[str, Any], reason: str) -> None:
    request = pb.UpdateMarketRequest(**{"symbol": "BTCUSD", **fields})

    assert (await refused(ask(exchange, "UpdateMarket", request))).reason == reason
    assert (await exchange.demo.buy("1", "50000")).order_id


# --- accounts ---


async def test_limits_hold_from_now_on_and_zero_lifts_them(exchange: Exchange) -> None:
    await exchange.demo.buy("1", "40000")
    request = pb.SetAccountLimitsRequest(account="demo", max_open_orders=1, reason="test")
    limits = await ask(exchange, "SetAccountLimits", request)

    assert (limits.max_open_orders, limits.open_orders) == (1, 1)
    assert (await refused(exchange.demo.buy("1", "40000"))).reason == "TOO_MANY_OPEN_ORDERS"
    await ask(exchange, "SetAccountLimits", pb.SetAccountLimitsRequest(account="demo", max_open_orders=0))
    assert (await exchange.demo.buy("1", "40000")).order_id
    for account, reason in (("", "FIELD_REQUIRED"), ("$fees", "INVALID_FIELD"), ("x" * 65, "INVALID_FIELD")):
        refusal = await refused(ask(exchange, "SetAccountLimits", pb.SetAccountLimitsRequest(account=account)))
        assert refusal.reason == reason


async def test_the_kill_switch_cancels_by_account_by_symbol_and_by_both(exchange: Exchange) -> None:
    async def place_all() -> None:
        for client in (exchange.demo, exchange.maker):
            await client.buy("0.1", "40000")
            await client.place(BUY, "1", "2000", symbol="ETHUSD")

    for fields, count in (
        ({"account": "demo"}, 2),
        ({"symbol": "BTC/USD"}, 2),
        ({"account": "demo", "symbol": "BTCUSD"}, 1),
        ({"account": "nobody"}, 0),
    ):
        await place_all()
        answer = await ask(exchange, "MassCancel", pb.MassCancelRequest(**fields, reason="test"))
        assert (answer.cancelled_count, answer.sequence > 0) == (count, True), fields
        await ask(exchange, "MassCancel", pb.MassCancelRequest(symbol="BTCUSD", reason="tidy"))
        await ask(exchange, "MassCancel", pb.MassCancelRequest(symbol="ETHUSD", reason="tidy"))
    order = await exchange.demo.buy("0.1", "40000")
    await ask(exchange, "MassCancel", pb.MassCancelRequest(account="demo", reason="test"))
    assert (await exchange.demo.get(order.order_id)).cancel_reason == types_pb2.OPERATOR


async def test_the_kill_switch_repeated_with_its_id_cancels_nothing_more(exchange: Exchange) -> None:
    await exchange.demo.buy("0.1", "40000")
    request = pb.MassCancelRequest(account="demo", reason="test", request_id="k-1")
    first = await ask(exchange, "MassCancel", request)
    await exchange.demo.buy("0.1", "40000")

    assert await ask(exchange, "MassCancel", request) == first
    assert len(await exchange.demo.listed()) == 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"reason": "x"}, "account"), ({"account": "demo"}, "reason"), ({"account": "a b", "reason": "x"}, "account")],
    ids=str,
)
async def test_the_kill_switch_needs_whose_and_why(exchange: Exchange, fields: dict[str, str], field: str) -> None:
    refusal = await refused(ask(exchange, "MassCancel", pb.MassCancelRequest(**fields)))

    assert (refusal.code, refusal.metadata["field"]) == ("INVALID_ARGUMENT", field)


async def test_books_are_hashed_from_time_to_time(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.trading.instance.HASH_BOOKS_EVERY_S", 0.01)
    await exchange.lead_again()
    order = await exchange.demo.place(BUY, "0.1", "40000", time_in_force=IOC)

    await eventually(lambda: exchange.engine.state.sequence > int(order.sequence), "a book's hash is published")

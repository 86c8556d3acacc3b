"""Assets, markets, their rules, and versions of the matching rules."""

import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core import registry as reg
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import ASSET_CREATED, BH_HASH, MARKET_CHANGED, MC_DEFINITION, R_COUNT
from tests.unit.core.desk import Desk, definition, reason_of

pytestmark = pytest.mark.core


def with_assets(*decimals: int) -> Desk:
    """A desk with further assets, numbered from 2."""
    desk = Desk(rich=0)
    for number, places in enumerate(decimals, start=2):
        result = desk.send(cmd.create_asset("operator", f"A{number}", places))
        assert result[R_COUNT] == number
        assert desk.events == [(ASSET_CREATED, number, f"A{number}", places)]
    return desk


@pytest.mark.parametrize(
    ("code", "places", "reason"),
    [
        ("BASE", 0, "ALREADY_EXISTS"),
        ("", 0, "INVALID_DEFINITION"),
        ("NEW", -1, "INVALID_DEFINITION"),
        ("NEW", 13, "INVALID_DEFINITION"),
        ("NEW", 12, "DONE"),
    ],
)
def test_an_asset_is_new_and_has_up_to_12_decimals(code: str, places: int, reason: str) -> None:
    assert reason_of(Desk(rich=0).send(cmd.create_asset("operator", code, places))) == reason


@pytest.mark.parametrize(
    ("tick", "price_decimals", "lot", "base_decimals", "quote_decimals", "unit"),
    [
        (1, 2, 10_000, 8, 6, 1),  # 0.01 USD x 0.0001 BTC = 0.000001 USD
        (1, 2, 1_000, 8, 6, 0),  # a tenth of a unit
        (10, 2, 1_000, 8, 6, 1),
        (25, 2, 1, 0, 2, 25),  # 0.25 x 1 contract
        (25, 3, 1, 0, 2, 0),  # 2.5 cents
        (1, 0, 1, 0, 0, 1),
        (1, 12, 10**12, 12, 12, 1),
        (1, 12, 10**11, 12, 12, 0),
        (3, 1, 10, 1, 0, 0),  # 0.3 x 1 = 0.3 units
        (3, 1, 100, 1, 0, 3),
    ],
)
def test_tick_times_lot_is_a_whole_number_of_quote_units(
    tick: int, price_decimals: int, lot: int, base_decimals: int, quote_decimals: int, unit: int
) -> None:
    desk = with_assets(base_decimals, quote_decimals)
    rules = definition(symbol="NEW", base=2, quote=3, tick=tick, price_decimals=price_decimals, lot=lot)
    result = desk.send(cmd.create_market("operator", rules))
    assert reason_of(result) == ("DONE" if unit else "INVALID_DEFINITION")
    if unit:
        assert result[R_COUNT] == 1
        assert desk.engine.state.markets[1].quote_per_tick_lot == unit


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"symbol": "BASEQUOTE"}, "ALREADY_EXISTS"),
        ({"base": 2}, "UNKNOWN_ASSET"),
        ({"quote": -1}, "UNKNOWN_ASSET"),
        ({"base": 1}, "INVALID_DEFINITION"),
        ({"tick": 0}, "INVALID_DEFINITION"),
        ({"tick": -1}, "INVALID_DEFINITION"),
        ({"tick": 10**30, "price_decimals": 12, "lot": 1}, "INVALID_DEFINITION"),
        ({"lot": 0}, "INVALID_DEFINITION"),
        ({"lot": c.MAX_AMOUNT + 1}, "INVALID_DEFINITION"),
        ({"lot": c.MAX_AMOUNT, "tick": 2}, "INVALID_DEFINITION"),
        ({"price_decimals": -1}, "INVALID_DEFINITION"),
        ({"price_decimals": 13}, "INVALID_DEFINITION"),
        ({"min_lots": 0}, "INVALID_DEFINITION"),
        ({"min_lots": c.MAX_LOTS + 1}, "INVALID_DEFINITION"),
        ({"min_lots": 5, "max_lots": 4}, "INVALID_DEFINITION"),
        ({"max_lots": c.MAX_LOTS + 1}, "INVALID_DEFINITION"),
        ({"max_lots": -1}, "INVALID_DEFINITION"),
        ({"min_notional": -1}, "INVALID_DEFINITION"),
        ({"maker_ppm": -1}, "INVALID_DEFINITION"),
        ({"maker_ppm": c.MAX_FEE_PPM + 1}, "INVALID_DEFINITION"),
        ({"taker_ppm": c.MAX_FEE_PPM + 1}, "INVALID_DEFINITION"),
        ({"band_ppm": c.PPM + 1}, "INVALID_DEFINITION"),
        ({"protection_ppm": -1}, "INVALID_DEFINITION"),
        ({"stp": c.STP_DEFAULT}, "INVALID_DEFINITION"),
        ({"stp": 5}, "INVALID_DEFINITION"),
        ({"reference": c.MAX_TICKS + 1}, "INVALID_DEFINITION"),
        ({"maker_ppm": c.MAX_FEE_PPM, "band_ppm": c.PPM, "stp": 4}, "DONE"),
    ],
)
def test_a_definition_that_breaks_a_rule_is_refused(change: dict[str, int], reason: str) -> None:
    desk = Desk(rich=0)
    result = desk.send(cmd.create_market("operator", definition(**({"symbol": "NEW"} | change))))
    assert reason_of(result) == reason
    assert len(desk.engine.state.markets) == (2 if reason == "DONE" else 1)


def test_a_markets_rules_change_and_its_money_rules_do_not() -> None:
    desk = Desk()
    changes = {
        reg.D_MIN_LOTS: 2, reg.D_MAX_LOTS: 9, reg.D_MIN_NOTIONAL: 10, reg.D_MAKER_PPM: 1, reg.D_TAKER_PPM: 2,
        reg.D_BAND_PPM: 3, reg.D_PROTECTION_PPM: 4, reg.D_DEFAULT_STP: 4,
    }  # fmt: skip
    assert reason_of(desk.send(cmd.update_market("operator", 0, changes))) == "DONE"
    told = desk.events[0]
    assert (told[0], told[MC_DEFINITION]) == (MARKET_CHANGED, reg.definition_of(desk.market))
    assert told[MC_DEFINITION][reg.D_MIN_LOTS : reg.D_DEFAULT_STP + 1] == (2, 9, 10, 1, 2, 3, 4, 4)
    for fixed in (reg.D_SYMBOL, reg.D_BASE, reg.D_QUOTE, reg.D_TICK, reg.D_PRICE_DECIMALS, reg.D_LOT, reg.D_REFERENCE):
        assert reason_of(desk.send(cmd.update_market("operator", 0, {fixed: 1}))) == "INVALID_DEFINITION"


def test_a_change_that_is_wrong_in_part_changes_nothing() -> None:
    desk = Desk()
    before = reg.definition_of(desk.market)
    wrong = {reg.D_MIN_LOTS: 2, reg.D_TAKER_PPM: c.MAX_FEE_PPM + 1}
    assert reason_of(desk.send(cmd.update_market("operator", 0, wrong))) == "INVALID_DEFINITION"
    assert reg.definition_of(desk.market) == before
    assert reason_of(desk.send(cmd.update_market("operator", 3, {}))) == "UNKNOWN_SYMBOL"


def test_orders_that_rest_stay_when_the_rules_of_their_market_change() -> None:
    desk = Desk()
    desk.say("ann buy 5 @ 100 as x")
    desk.send(cmd.update_market("operator", 0, {reg.D_MIN_LOTS: 10}))
    assert desk.book() == "bid 100  ann:5"
    assert reason_of(desk.say("ann reduce x by 1")) == "DONE"
    assert reason_of(desk.say("ann replace x 9 @ 100")) == "QUANTITY_TOO_SMALL"


def test_rules_are_activated_one_version_at_a_time_and_never_go_back() -> None:
    desk = Desk(rich=0)
    assert desk.engine.state.rules_version == 1
    for version, reason, then in (
        (0, "RULES_NOT_SUPPORTED", 1),
        (3, "RULES_NOT_SUPPORTED", 1),
        (1, "DONE", 1),
        (2, "DONE", 2),
        (2, "DONE", 2),
        (1, "RULES_NOT_SUPPORTED", 2),
        (99, "RULES_NOT_SUPPORTED", 2),
    ):
        assert reason_of(desk.send(cmd.activate_rules("operator", version))) == reason, version
        assert desk.engine.state.rules_version == then


def test_a_core_stops_where_a_newer_build_has_activated_rules_that_it_does_not_know() -> None:
    """To refuse them would be another history than the journal's."""
    desk = Desk(rich=0)
    for version in range(2, c.RULES_VERSION + 1):
        desk.send(cmd.activate_rules("operator", version))
    with pytest.raises(AssertionError, match=f"this build knows 1 to {c.RULES_VERSION}"):
        desk.send(cmd.activate_rules("operator", c.RULES_VERSION + 1))


def test_the_hash_of_a_book_is_published_on_request() -> None:
    desk = Desk()
    desk.send(cmd.hash_book(0))
    empty = desk.events[0][BH_HASH]
    desk.say("ann buy 5 @ 100")
    desk.send(cmd.hash_book(0))
    assert desk.events[0][BH_HASH] == desk.engine.book_hash("BASEQUOTE") != empty
    assert reason_of(desk.send(cmd.hash_book(4))) == "UNKNOWN_SYMBOL"


def test_a_book_has_one_hash_whatever_its_history() -> None:
    desk, other = Desk(), Desk()
    desk.say("ann buy 5 @ 100")
    other.say("ann buy 9 @ 100 as x")
    other.say("ann reduce x by 4")
    assert desk.engine.book_hash("BASEQUOTE") == other.engine.book_hash("BASEQUOTE")
    other.say("ann reduce x by 1")
    assert desk.engine.book_hash("BASEQUOTE") != other.engine.book_hash("BASEQUOTE")


def test_a_new_engine_knows_nothing_but_the_account_of_its_fees() -> None:
    engine = Engine()
    assert list(engine.state.accounts) == [c.FEE_ACCOUNT]
    assert engine.recall(cmd.credit("ann", 0, 1, request_id="x")) is None
    assert engine.due_ns() == -1

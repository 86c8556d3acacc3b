"""What a market and the engine refuse: sizes, prices, bands, and numbers that are too large."""

import pytest

from exchange.trading import core_loader
from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core.events import R_REASON
from tests.unit.core.desk import BASE, QUOTE, Desk, lines, reason_of

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("ann buy 2 @ 100", "QUANTITY_TOO_SMALL"),
        ("ann buy 3 @ 100", "DONE"),
        ("ann buy 50 @ 100", "DONE"),
        ("ann buy 51 @ 100", "QUANTITY_TOO_LARGE"),
        ("ann buy 3 @ 66", "NOTIONAL_TOO_SMALL"),
        ("ann buy 4 @ 50", "DONE"),
        ("ann sell 3 @ 66 stop 90", "NOTIONAL_TOO_SMALL"),
        ("ann sell 2 market", "NO_LIQUIDITY"),
        ("ann sell 51 stop 90", "QUANTITY_TOO_LARGE"),
        ("ann buy 0 @ 100", "QUANTITY_TOO_SMALL"),
        ("ann buy -5 @ 100", "QUANTITY_TOO_SMALL"),
        ("ann buy 5 @ -100", "NUMBER_TOO_LARGE"),
        ("ann buy 5 @ 0", "NUMBER_TOO_LARGE"),
        ("ann buy 5 @ 50 stop -1", "NUMBER_TOO_LARGE"),
    ],
)
def test_a_market_bounds_size_and_notional(says: str, reason: str) -> None:
    desk = Desk(min_lots=3, max_lots=50, min_notional=200)
    assert reason_of(desk.say(says)) == reason
    if reason != "DONE":
        assert desk.told() == f"rejected {reason}"
        assert desk.balance("ann", BASE)[1] == desk.balance("ann", QUOTE)[1] == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("ann replace x 2 @ 100", "QUANTITY_TOO_SMALL"),
        ("ann replace x 51 @ 100", "QUANTITY_TOO_LARGE"),
        ("ann replace x 3 @ 66", "NOTIONAL_TOO_SMALL"),
        ("ann replace x 5 @ 120", "PRICE_OUT_OF_BAND"),
        ("ann replace x 5 @ 0", "NUMBER_TOO_LARGE"),
        ("ann replace x 5 @ 110", "DONE"),
    ],
)
def test_a_replacement_meets_the_same_bounds(change: str, reason: str) -> None:
    desk = Desk(min_lots=3, max_lots=50, min_notional=200, band_ppm=100_000, reference=100)
    desk.say("ann buy 5 @ 100 as x")
    assert reason_of(desk.say(change)) == reason
    assert desk.book() == ("bid 110  ann:5" if reason == "DONE" else "bid 100  ann:5")


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("ann buy 1 @ 110", "DONE"),
        ("ann buy 1 @ 111", "PRICE_OUT_OF_BAND"),
        ("ann sell 1 @ 90", "DONE"),
        ("ann sell 1 @ 89", "PRICE_OUT_OF_BAND"),
        ("ann buy 1 @ 132 stop 120", "DONE"),
        ("ann buy 1 @ 133 stop 120", "PRICE_OUT_OF_BAND"),
        ("ann buy 1 @ 107 stop 120", "PRICE_OUT_OF_BAND"),
    ],
)
def test_prices_stay_in_a_band_around_the_reference(says: str, reason: str) -> None:
    desk = Desk(band_ppm=100_000, reference=100)
    assert reason_of(desk.say(says)) == reason


def test_the_band_follows_the_last_trade() -> None:
    desk = Desk(band_ppm=100_000, reference=100)
    desk.last_trade(110)
    assert reason_of(desk.say("ann buy 1 @ 121")) == "DONE"
    assert reason_of(desk.say("ann buy 1 @ 98")) == "PRICE_OUT_OF_BAND"


def test_without_a_trade_or_a_reference_there_is_no_band() -> None:
    desk = Desk(band_ppm=100_000)
    assert reason_of(desk.say("ann buy 1 @ 5")) == "DONE"
    assert reason_of(desk.say("ann sell 1 @ 1000000")) == "DONE"


def test_the_band_of_a_command_is_that_of_its_start_although_it_moves_the_last_price() -> None:
    desk = Desk(band_ppm=100_000, reference=100)
    desk.given("""
        ask 110  bob:1
        ask 101  bob:1
        ask 91   bob:1
    """)
    desk.say("ann buy 3 @ 110")
    assert lines(desk.told()).splitlines()[1:] == [
        "trade 1 @ 91 bob -> ann",
        "trade 1 @ 101 bob -> ann",
        "trade 1 @ 110 bob -> ann",
    ]


def test_a_market_order_does_not_leave_the_band() -> None:
    desk = Desk(band_ppm=100_000, protection_ppm=500_000, reference=100)
    desk.given("ask 105  bob:1")
    desk.say("ann buy 5 market")
    assert desk.told().startswith("accepted ann buy @ 110 ")
    desk.given("bid 100  bob:1")
    desk.say("ann sell 5 market @ 3")
    assert desk.told().startswith("accepted ann sell @ 95 "), "the last trade was at 105"


def test_an_account_has_so_many_open_orders_and_no_more() -> None:
    desk = Desk()
    desk.send(cmd.set_account_limits("operator", "ann", 2))
    desk.say("ann buy 1 @ 100 as x")
    desk.say("ann buy 1 stop 200")
    assert reason_of(desk.say("ann buy 1 @ 100")) == "TOO_MANY_OPEN_ORDERS"
    assert reason_of(desk.say("bob buy 1 @ 100")) == "DONE", "another account's limit is its own"
    desk.say("ann cancel x")
    assert reason_of(desk.say("ann buy 1 @ 100")) == "DONE"
    desk.send(cmd.set_account_limits("operator", "ann", 0))
    assert reason_of(desk.say("ann buy 1 @ 100")) == "DONE", "0 is no limit"


def test_an_account_without_a_limit_of_its_own_has_the_engines() -> None:
    desk = Desk()
    desk.engine.state.default_max_open_orders = 1
    desk.say("ann buy 1 @ 100")
    assert reason_of(desk.say("ann buy 1 @ 100")) == "TOO_MANY_OPEN_ORDERS"


def test_a_negative_limit_is_refused() -> None:
    desk = Desk()
    assert reason_of(desk.send(cmd.set_account_limits("operator", "ann", -1))) == "INVALID_DEFINITION"


# --- numbers that are too large ---


@pytest.mark.parametrize(
    ("lots", "price", "reason"),
    [
        (2**40, 2**40, "NUMBER_TOO_LARGE"),
        (2**32, 2**32, "NUMBER_TOO_LARGE"),
        (c.MAX_LOTS, c.MAX_TICKS, "NUMBER_TOO_LARGE"),
        (c.MAX_LOTS + 1, 1, "NUMBER_TOO_LARGE"),
        (1, c.MAX_TICKS + 1, "NUMBER_TOO_LARGE"),
        (2**63, 1, "NUMBER_TOO_LARGE"),
        (1, 2**64, "NUMBER_TOO_LARGE"),
        (c.MAX_LOTS, 1, "DONE"),
        (1, c.MAX_TICKS, "DONE"),
        (c.MAX_LOTS, c.MAX_AMOUNT // c.MAX_LOTS, "DONE"),
        (c.MAX_LOTS, c.MAX_AMOUNT // c.MAX_LOTS + 1, "NUMBER_TOO_LARGE"),
    ],
)
def test_no_product_wraps_around(lots: int, price: int, reason: str) -> None:
    desk = Desk(rich=c.MAX_AMOUNT // 4)
    desk.credit("ann", QUOTE, 0)
    for trader in ("bob", "cy", "dee"):
        available = desk.balance(trader, QUOTE)[0]
        desk.send(cmd.transfer(trader, "ann", QUOTE, available, request_id=f"all of {trader}"))
    assert desk.balance("ann", QUOTE) == (c.MAX_AMOUNT, 0)
    assert reason_of(desk.say(f"ann buy {lots} @ {price}")) == reason
    assert desk.balance("ann", QUOTE)[1] == (lots * price if reason == "DONE" else 0)


def test_2_to_the_40_times_2_to_the_40_passes_no_funds_check_of_a_poor_account() -> None:
    desk = Desk(rich=10)
    assert reason_of(desk.say(f"ann buy {2**40} @ {2**40}")) == "NUMBER_TOO_LARGE"
    assert reason_of(desk.say(f"ann sell {c.MAX_LOTS} @ 1")) == "INSUFFICIENT_FUNDS"
    assert reason_of(desk.say(f"ann buy {c.MAX_LOTS} @ 4000000")) == "INSUFFICIENT_FUNDS"


def test_the_largest_lot_bounds_the_quantity() -> None:
    desk = Desk(rich=0, lot=10**15, tick=1)
    assert reason_of(desk.say("ann sell 4001 @ 1")) == "NUMBER_TOO_LARGE"
    assert reason_of(desk.say("ann sell 4000 @ 1")) == "INSUFFICIENT_FUNDS"


def test_a_market_order_whose_protection_makes_it_too_large_is_refused() -> None:
    desk = Desk()
    desk.given(f"ask {c.MAX_TICKS}  bob:1")
    assert reason_of(desk.say(f"ann buy {c.MAX_LOTS} market")) == "NUMBER_TOO_LARGE"
    assert reason_of(desk.say(f"ann buy 1 market @ {c.MAX_TICKS + 1}")) == "NUMBER_TOO_LARGE"


def test_protection_stays_within_the_prices_that_exist() -> None:
    desk = Desk(rich=c.MAX_AMOUNT // 4)
    desk.given(f"ask {c.MAX_TICKS}  bob:1")
    desk.say("ann buy 1 market")
    assert desk.told().startswith(f"accepted ann buy @ {c.MAX_TICKS} ")
    desk.given("bid 1  bob:1")
    desk.say("ann sell 1 market")
    assert desk.told().startswith("accepted ann sell @ 1 ")


def test_supply_is_bounded_for_all_accounts_together() -> None:
    desk = Desk(rich=0)
    assert reason_of(desk.credit("ann", BASE, c.MAX_AMOUNT - 1)) == "DONE"
    assert reason_of(desk.credit("bob", BASE, 2)) == "BALANCE_LIMIT"
    assert reason_of(desk.credit("bob", BASE, 1)) == "DONE"
    assert reason_of(desk.credit("bob", BASE, 1)) == "BALANCE_LIMIT"
    assert reason_of(desk.credit("bob", BASE, c.MAX_AMOUNT + 1)) == "NUMBER_TOO_LARGE"
    assert reason_of(desk.credit("bob", BASE, 0)) == "NUMBER_TOO_LARGE"
    assert reason_of(desk.credit("bob", BASE, -1)) == "NUMBER_TOO_LARGE"


def test_an_order_replaced_again_and_again_trades_no_more_than_64_bits_hold() -> None:
    desk = Desk(rich=c.MAX_AMOUNT // 4)
    big = c.MAX_AMOUNT // c.MAX_LOTS // 4
    desk.say(f"ann buy {c.MAX_LOTS} @ {big} as x")
    rounds = 0
    while desk.say(f"bob sell {c.MAX_LOTS - 1} @ {big}")[R_REASON] == 0:
        rounds += 1
        money = desk.balance("bob", QUOTE)[0]
        desk.send(cmd.transfer("bob", "ann", QUOTE, money, request_id=f"money {rounds}"))
        desk.send(cmd.transfer("ann", "bob", BASE, desk.balance("ann", BASE)[0], request_id=f"goods {rounds}"))
        if desk.say(f"ann replace x {c.MAX_LOTS} @ {big}")[R_REASON] != 0:
            break
    assert desk.told() == "refused NUMBER_TOO_LARGE"
    assert desk.order("x").notional + big * c.MAX_LOTS > c.MAX_AMOUNT >= desk.order("x").notional
    assert rounds == 4


def test_an_unknown_market_is_refused() -> None:
    desk = Desk()
    for market in (-1, 1, 2**40):
        result = desk.send(cmd.place("ann", market, c.BUY, c.LIMIT, 1, 1, tif=c.GTC))
        assert reason_of(result) == "UNKNOWN_SYMBOL"


@pytest.mark.skipif(core_loader.mode() == "compiled", reason="mypyc folds the bound in; the interpreted run shows it")
def test_an_account_beyond_the_bound_is_refused_and_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    state = desk.engine.state
    monkeypatch.setattr("exchange.trading.core.engine.MAX_ACCOUNTS", len(state.accounts))
    before = list(state.accounts)
    assert reason_of(desk.send(cmd.cancel_all("one-too-many"))) == "TOO_MANY_OBJECTS"
    assert list(state.accounts) == before

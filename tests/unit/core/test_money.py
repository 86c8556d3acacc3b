"""Money: held before matching and released exactly, fees rounded up within the hold, no unit made or lost."""

import random
from fractions import Fraction
from math import ceil

import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core import events as ev
from exchange.trading.core import registry as reg
from tests.unit.core.desk import BASE, QUOTE, RICH, Desk, lines, reason_of

pytestmark = pytest.mark.core


def test_a_buy_holds_its_notional_and_the_dearer_of_its_fees() -> None:
    desk = Desk(maker_ppm=1_000, taker_ppm=2_500)
    desk.say("ann buy 7 @ 100")
    assert desk.balance("ann", QUOTE) == (RICH - 702, 702), "700 and 1.75 of fee, rounded up"
    assert desk.events[0][ev.OA_HELD] == 702


def test_a_buy_holds_the_maker_fee_where_that_is_the_dearer() -> None:
    desk = Desk(maker_ppm=2_500, taker_ppm=1_000)
    desk.say("ann buy 7 @ 100")
    assert desk.balance("ann", QUOTE)[1] == 702


def test_a_sell_holds_what_it_sells_and_pays_its_fee_from_the_proceeds() -> None:
    desk = Desk(taker_ppm=10_000, lot=5)
    desk.given("bid 100  bob:2")
    desk.say("ann sell 2 @ 100")
    assert lines(desk.told()).splitlines()[1] == "trade 2 @ 100 bob -> ann fees 0 10"
    assert desk.balance("ann", BASE) == (RICH - 10, 0)
    assert desk.balance("ann", QUOTE) == (RICH + 990, 0)
    assert desk.balance("bob", BASE) == (RICH + 10, 0)
    assert desk.balance("$fees", QUOTE) == (10, 0)


def test_a_buy_that_trades_at_a_better_price_gets_the_difference_back() -> None:
    desk = Desk(taker_ppm=10_000)
    desk.given("ask 90  bob:3")
    desk.say("ann buy 5 @ 100")
    # 5 x 100 + 5 of fee were held; 3 cost 270 + 3 (2.7 rounded up); 2 x 100 + fee up to 4.7 in all stay held.
    assert desk.balance("ann", QUOTE) == (RICH - 273 - 202, 202)
    assert desk.events[1][ev.T_BUYER_RELEASED] == 505 - 202
    desk.send(cmd.cancel_all("ann"))
    assert desk.balance("ann", QUOTE) == (RICH - 273, 0)


@pytest.mark.parametrize(
    "says", ["ann buy 7 @ 100", "ann sell 7 @ 100", "ann buy 7 stop 100", "ann sell 7 @ 9 stop 10"]
)
def test_a_cancelled_order_gives_back_exactly_what_it_held(says: str) -> None:
    desk = Desk(maker_ppm=333, taker_ppm=777)
    desk.say(says + " as x")
    assert desk.balance("ann", QUOTE)[1] + desk.balance("ann", BASE)[1] > 0
    desk.say("ann cancel x")
    assert (desk.balance("ann", QUOTE), desk.balance("ann", BASE)) == ((RICH, 0), (RICH, 0))


def test_a_reduced_order_gives_back_what_it_no_longer_needs() -> None:
    desk = Desk(maker_ppm=333)
    desk.say("ann buy 7 @ 100 as x")
    assert desk.balance("ann", QUOTE)[1] == 701
    desk.say("ann reduce x by 3")
    assert desk.balance("ann", QUOTE)[1] == 401
    assert desk.events[0][ev.OD_RELEASED] == 300


def test_a_replaced_order_holds_what_its_new_terms_need() -> None:
    desk = Desk()
    desk.say("ann buy 7 @ 100 as x")
    desk.say("ann replace x 9 @ 110")
    assert desk.events[0][ev.OP_HELD_CHANGE] == 290
    assert desk.balance("ann", QUOTE) == (RICH - 990, 990)
    desk.say("ann replace x 1 @ 50")
    assert desk.events[0][ev.OP_HELD_CHANGE] == -940
    assert desk.balance("ann", QUOTE) == (RICH - 50, 50)


def test_a_replacement_may_use_what_the_order_holds_already() -> None:
    desk = Desk(rich=1_000)
    desk.say("ann buy 10 @ 100 as x")
    assert reason_of(desk.say("ann replace x 5 @ 200")) == "DONE"
    assert reason_of(desk.say("ann replace x 5 @ 201")) == "INSUFFICIENT_FUNDS"
    assert desk.balance("ann", QUOTE) == (0, 1_000)


def test_an_order_of_all_that_an_account_has_passes_and_one_unit_more_does_not() -> None:
    desk = Desk(rich=1_000, taker_ppm=1_000)
    assert reason_of(desk.say("ann buy 1 @ 1000")) == "INSUFFICIENT_FUNDS"
    assert reason_of(desk.say("ann buy 1 @ 999")) == "DONE"
    assert reason_of(desk.say("bob sell 1001 @ 1")) == "INSUFFICIENT_FUNDS"
    assert reason_of(desk.say("bob sell 1000 @ 1")) == "DONE"
    assert reason_of(desk.say("bob sell 1 @ 1")) == "INSUFFICIENT_FUNDS"
    assert reason_of(desk.say("eve sell 1 @ 1")) == "INSUFFICIENT_FUNDS", "an account that never had any"


# --- fees ---


@pytest.mark.parametrize("rate", [1, 333, 2_500, 99_999, c.MAX_FEE_PPM])
@pytest.mark.parametrize("buys", [True, False])
def test_the_fees_of_many_fills_sum_up_to_the_fee_of_the_whole_rounded_up(rate: int, buys) -> None:
    desk = Desk(maker_ppm=rate, taker_ppm=rate)
    desk.say(f"ann {'buy' if buys else 'sell'} 100 @ 37 as x")
    paid = 0
    draw = random.Random(rate)
    while desk.order("x").lots_open:
        lots = min(draw.randint(1, 9), desk.order("x").lots_open)
        desk.say(f"bob {'sell' if buys else 'buy'} {lots} @ 37")
        paid += desk.events[1][ev.T_MAKER_FEE]
        exact = Fraction(desk.order("x").lots_filled * 37 * rate, c.PPM)
        assert paid == desk.order("x").fee_paid == ceil(exact), "after every fill"
    assert desk.balance("ann", QUOTE)[1] == 0
    assert desk.balance("ann", QUOTE)[0] == RICH + (-3_700 if buys else 3_700) - paid


def test_an_order_keeps_the_fee_rates_of_its_acceptance() -> None:
    desk = Desk(maker_ppm=10_000, taker_ppm=20_000)
    desk.say("ann buy 10 @ 100")
    desk.send(cmd.update_market("operator", 0, {reg.D_MAKER_PPM: 50_000, reg.D_TAKER_PPM: 70_000}))
    desk.say("bob sell 10 @ 100")
    assert desk.events[1][ev.T_MAKER_FEE] == 10, "1% as when ann came"
    assert desk.events[1][ev.T_TAKER_FEE] == 70, "7% as when bob came"
    assert desk.balance("ann", QUOTE) == (RICH - 1_010, 0)


def test_an_order_that_takes_and_then_makes_pays_each_rate_for_its_part() -> None:
    desk = Desk(maker_ppm=10_000, taker_ppm=50_000)
    desk.given("ask 100  bob:3")
    desk.say("ann buy 5 @ 100 as x")
    assert desk.order("x").fee_paid == 15
    desk.say("bob sell 2 @ 100")
    assert desk.order("x").fee_paid == 17
    assert desk.balance("ann", QUOTE) == (RICH - 517, 0)


def test_the_largest_fee_on_the_largest_notional_is_exact_and_survives_a_snapshot() -> None:
    desk = Desk(rich=c.MAX_AMOUNT // 4, maker_ppm=c.MAX_FEE_PPM, taker_ppm=c.MAX_FEE_PPM)
    price = c.MAX_AMOUNT // 5 // c.MAX_LOTS
    desk.say(f"ann buy {c.MAX_LOTS} @ {price} as x")
    desk.say(f"bob sell {c.MAX_LOTS - 1} @ {price}")
    assert desk.order("x").fee_paid == ceil(Fraction((c.MAX_LOTS - 1) * price, 10))
    assert desk.engine.restore(desk.engine.snapshot()).state_hash() == desk.engine.state_hash()


def test_a_fee_never_exceeds_what_it_is_charged_on() -> None:
    desk = Desk(rich=10, maker_ppm=1, taker_ppm=1)
    desk.say("ann buy 1 @ 1")
    desk.say("bob sell 1 @ 1")
    assert desk.balance("bob", QUOTE) == (10, 0), "one unit of proceeds, one unit of fee"
    assert desk.balance("$fees", QUOTE) == (2, 0)


# --- money that comes, waits and goes ---


def test_a_withdrawal_is_held_then_settled_or_released() -> None:
    desk = Desk(rich=100)
    desk.send(cmd.hold("ann", QUOTE, 60, request_id="w1"))
    desk.send(cmd.hold("ann", QUOTE, 30, request_id="w2"))
    assert desk.balance("ann", QUOTE) == (10, 90)
    desk.send(cmd.settle_hold("ann", "w1", request_id="s1"))
    assert desk.balance("ann", QUOTE) == (10, 30)
    assert desk.engine.state.assets[QUOTE].supply == 340
    desk.send(cmd.release_hold("ann", "w2", request_id="r2"))
    assert desk.balance("ann", QUOTE) == (40, 0)
    assert desk.engine.state.assets[QUOTE].supply == 340


@pytest.mark.parametrize("end", [cmd.settle_hold, cmd.release_hold])
def test_a_hold_ends_once(end) -> None:
    desk = Desk(rich=100)
    desk.send(cmd.hold("ann", QUOTE, 60, request_id="w1"))
    assert reason_of(desk.send(end("bob", "w1", request_id="s0"))) == "HOLD_NOT_FOUND"
    assert reason_of(desk.send(end("ann", "w1", request_id="s1"))) == "DONE"
    assert reason_of(desk.send(end("ann", "w1", request_id="s2"))) == "HOLD_NOT_FOUND"
    assert desk.balance("ann", QUOTE)[1] == 0


def test_a_hold_needs_available_money_and_a_new_name() -> None:
    desk = Desk(rich=100)
    desk.say("ann buy 1 @ 50")
    assert reason_of(desk.send(cmd.hold("ann", QUOTE, 51, request_id="w1"))) == "INSUFFICIENT_FUNDS"
    assert reason_of(desk.send(cmd.hold("ann", QUOTE, 50, request_id="w2"))) == "DONE"
    desk.send(cmd.set_retention("operator", 1, 10**18, 1))
    for number in range(9):
        desk.send(cmd.cancel("bob", order_id=1, request_id=f"pushes out another {number}"))
    assert reason_of(desk.send(cmd.hold("ann", QUOTE, 50, request_id="w2"))) == "ALREADY_EXISTS", "id forgotten"
    assert reason_of(desk.send(cmd.hold("eve", QUOTE, 1, request_id="w3"))) == "INSUFFICIENT_FUNDS"


def test_a_transfer_moves_available_money_and_makes_the_account_it_goes_to() -> None:
    desk = Desk(rich=100)
    assert reason_of(desk.send(cmd.transfer("ann", "eve", QUOTE, 101, request_id="t1"))) == "INSUFFICIENT_FUNDS"
    assert "eve" not in desk.engine.state.accounts
    assert reason_of(desk.send(cmd.transfer("ann", "eve", QUOTE, 100, request_id="t2"))) == "DONE"
    assert (desk.balance("ann", QUOTE), desk.balance("eve", QUOTE)) == ((0, 0), (100, 0))
    assert reason_of(desk.send(cmd.transfer("eve", "eve", QUOTE, 40, request_id="t3"))) == "DONE"
    assert desk.balance("eve", QUOTE) == (100, 0)


def test_an_unknown_asset_is_refused() -> None:
    desk = Desk()
    for asset in (-1, 2, 2**40):
        assert reason_of(desk.credit("ann", asset, 1)) == "UNKNOWN_ASSET"
        assert reason_of(desk.send(cmd.hold("ann", asset, 1, request_id=f"h{asset}"))) == "UNKNOWN_ASSET"


# --- events tell the whole story ---


def test_events_alone_tell_every_balance() -> None:
    desk = Desk(rich=5_000, maker_ppm=333, taker_ppm=7_777, stp=c.STP_CANCEL_OLDEST)
    told: dict[tuple[str, int], list[int]] = {
        (name, asset): [5_000, 0] for name in ("ann", "bob", "cy", "dee") for asset in (BASE, QUOTE)
    }
    sides: dict[int, int] = {}
    draw = random.Random(7)
    for _ in range(600):
        desk.send(random_command(draw, desk))
        for event in desk.events:
            follow(told, sides, event)
        for (name, asset), balance in told.items():
            assert tuple(balance) == (desk.balance(name, asset) if name != "$fees" else tuple(balance)), (name, asset)
    assert told["$fees", QUOTE][0] == desk.balance("$fees", QUOTE)[0] > 0


def random_command(draw: random.Random, desk: Desk) -> cmd.Command:
    account = draw.choice(("ann", "bob", "cy", "dee"))
    mine = list(desk.engine.state.accounts[account].orders)
    lots, price = draw.randint(1, 9), draw.randint(95, 105)
    chance = draw.random()
    if mine and chance < 0.1:
        return cmd.cancel(account, order_id=draw.choice(mine))
    if mine and chance < 0.2:
        return cmd.replace(account, lots, price, order_id=draw.choice(mine))
    if mine and chance < 0.3:
        return cmd.reduce(account, 1, order_id=draw.choice(mine))
    side = draw.choice((c.BUY, c.SELL))
    if chance < 0.4:
        stop = (desk.market.last_price or 100) + (2 if side == c.BUY else -2)
        return cmd.place(account, 0, side, c.STOP, lots, 0, tif=c.IOC, stop=stop)
    return cmd.place(account, 0, side, c.LIMIT, lots, price, tif=draw.choice((c.GTC, c.IOC)))


def follow(told: dict[tuple[str, int], list[int]], sides: dict[int, int], event: ev.Event) -> None:
    """Balances as somebody keeps them who knows nothing but events."""
    kind = event[ev.E_KIND]
    if kind == ev.TRADE:
        buys = event[ev.T_TAKER_SIDE] == c.BUY
        names = (event[ev.T_TAKER_ACCOUNT], event[ev.T_MAKER_ACCOUNT])
        fees = (event[ev.T_TAKER_FEE], event[ev.T_MAKER_FEE])
        buyer, seller = names if buys else names[::-1]
        buyer_fee, seller_fee = fees if buys else fees[::-1]
        lots, notional = event[ev.T_LOTS], event[ev.T_LOTS] * event[ev.T_PRICE]
        told[buyer, QUOTE][1] -= event[ev.T_BUYER_RELEASED]
        told[buyer, QUOTE][0] += event[ev.T_BUYER_RELEASED] - notional - buyer_fee
        told[buyer, BASE][0] += lots
        told[seller, BASE][1] -= lots
        told[seller, QUOTE][0] += notional - seller_fee
        told.setdefault(("$fees", QUOTE), [0, 0])[0] += sum(fees)
        return
    moved = {
        ev.ORDER_ACCEPTED: (ev.OA_HELD, 1),
        ev.ORDER_REDUCED: (ev.OD_RELEASED, -1),
        ev.ORDER_REPLACED: (ev.OP_HELD_CHANGE, 1),
        ev.ORDER_CANCELLED: (ev.OC_RELEASED, -1),
    }.get(kind)
    if moved is not None:
        amount = event[moved[0]] * moved[1]
        balance = told[event[ev.O_ACCOUNT], QUOTE if event[ev.O_SIDE] == c.BUY else BASE]
        balance[0] -= amount
        balance[1] += amount

"""The core and a naive exchange take the same commands, and never differ: results, events, books, money, stop orders."""

import os
import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core import registry as reg
from tests.reference.compare import Pair
from tests.reference.naive_rules import Definition

pytestmark = pytest.mark.core

ACCOUNTS = ("ann", "bob", "cy")
RULES = tuple(range(1, c.RULES_VERSION + 1))
KEYS = ((), (), ("ak_1", 0, 0), ("ak_1", 2, 0), ("ak_2", 3, 6), ("", 0, 5))
"""What may stand at the end of a PLACE: the key, its limit, the account's by its tier."""
EXTREMES = (0, 1, -1, 2**31, 2**40, c.MAX_LOTS - 1, c.MAX_LOTS, c.MAX_LOTS + 1, c.MAX_AMOUNT, 2**62, -(2**40))


def markets() -> list[Definition]:
    """One market that is strict about everything, one that lets everything pass, both of the same money."""
    strict = Definition(
        0,
        1,
        lot=10,
        unit=30,
        min_lots=2,
        max_lots=60,
        min_notional=3_000,
        maker_ppm=333,
        taker_ppm=7_777,
        band_ppm=150_000,
        protection_ppm=40_000,
        stp=c.STP_CANCEL_NEWEST,
        reference=100,
    )
    return [strict, Definition(2, 1, lot=1, unit=1)]


class Trading(RuleBasedStateMachine):
    """Any commands in any order."""

    accounts = st.sampled_from(ACCOUNTS)
    sides = st.sampled_from((c.BUY, c.SELL))
    prices = st.one_of(st.integers(88, 112), st.sampled_from(EXTREMES))
    near = st.integers(95, 105)
    lots = st.one_of(st.integers(1, 30), st.sampled_from(EXTREMES))
    which = st.integers(0, 1)
    stps = st.sampled_from((c.STP_DEFAULT, c.STP_NONE, c.STP_CANCEL_NEWEST, c.STP_CANCEL_OLDEST, c.STP_CANCEL_BOTH))
    ids = st.sampled_from(("", "", "", "x1", "x2", "x3"))
    picks = st.integers(0, 40)
    keys = st.sampled_from(KEYS)

    @initialize(rich=st.booleans(), rules=st.sampled_from(RULES))
    def fund(self, rich, rules) -> None:
        self.pair = Pair(markets())
        self.pair.activate(rules)
        amount = c.MAX_AMOUNT // 4 if rich else 60_000
        for account in ACCOUNTS:
            for asset in range(3):
                self.pair.send(cmd.credit(account, asset, amount, request_id=f"c{account}{asset}"))

    def order_id(self, pick: int) -> int:
        """The id of an order that was accepted lately, or one that nobody knows."""
        known = list(self.pair.engine.state.orders)[-20:]
        return known[pick % len(known)] if known and pick < 38 else pick * 1_000

    @rule(
        account=accounts,
        market=which,
        side=sides,
        price=near,
        lots=st.integers(2, 30),
        tif=st.sampled_from((1, 1, 2)),
        key=keys,
    )
    def limit(self, account, market, side, price, lots, tif, key) -> None:
        self.pair.send((*cmd.place(account, market, side, c.LIMIT, lots, price, tif=tif), *key))

    @rule(
        account=accounts,
        market=st.integers(-1, 2),
        side=sides,
        price=prices,
        lots=lots,
        tif=st.sampled_from((c.GTC, c.IOC, c.FOK)),
        stp=stps,
        post_only=st.booleans(),
        name=ids,
        key=keys,
    )
    def any_limit(self, account, market, side, price, lots, tif, stp, post_only, name, key) -> None:
        command = cmd.place(
            account,
            market,
            side,
            c.LIMIT,
            lots,
            price,
            tif=tif,
            stp=stp,
            post_only=post_only and tif == c.GTC,
            client_order_id=name,
        )
        self.pair.send((*command, *key))

    @rule(account=accounts, market=which, side=sides, price=near, lots=st.integers(2, 30), wait=st.integers(-5, 60))
    def good_till_date(self, account, market, side, price, lots, wait) -> None:
        expire = self.pair.time + wait
        self.pair.send(cmd.place(account, market, side, c.LIMIT, lots, price, tif=c.GTD, expire_ns=expire))

    @rule(
        account=accounts,
        market=which,
        side=sides,
        price=st.one_of(st.just(0), prices),
        lots=lots,
        tif=st.sampled_from((c.IOC, c.FOK)),
        stp=stps,
    )
    def market_order(self, account, market, side, price, lots, tif, stp) -> None:
        self.pair.send(cmd.place(account, market, side, c.MARKET, lots, price, tif=tif, stp=stp))

    @rule(account=accounts, market=which, side=sides, lots=st.integers(2, 30), stop=st.one_of(near, prices), stp=stps)
    def stop(self, account, market, side, lots, stop, stp) -> None:
        self.pair.send(cmd.place(account, market, side, c.STOP, lots, 0, tif=c.IOC, stop=stop, stp=stp))

    @rule(
        account=accounts,
        market=which,
        side=sides,
        lots=st.integers(2, 30),
        stop=near,
        price=near,
        tif=st.sampled_from((c.GTC, c.GTD, c.IOC)),
        wait=st.integers(1, 60),
        key=keys,
    )
    def stop_limit(self, account, market, side, lots, stop, price, tif, wait, key) -> None:
        expire = self.pair.time + wait if tif == c.GTD else 0
        command = cmd.place(account, market, side, c.STOP_LIMIT, lots, price, tif=tif, stop=stop, expire_ns=expire)
        self.pair.send((*command, *key))

    @rule(account=accounts, pick=picks, name=ids)
    def cancel(self, account, pick, name) -> None:
        self.pair.send(cmd.cancel(account, order_id=self.order_id(pick), request_id=name))

    @rule(account=accounts, name=ids)
    def cancel_by_client_id(self, account, name) -> None:
        self.pair.send(cmd.cancel(account, client_order_id=name))

    @rule(pick=picks)
    def cancel_own(self, pick) -> None:
        order = self.pair.engine.state.orders.get(self.order_id(pick))
        if order is not None:
            self.pair.send(cmd.cancel(order.account.name, order_id=order.order_id))

    @rule(account=accounts, pick=picks, lots=st.one_of(st.integers(1, 12), lots))
    def reduce(self, account, pick, lots) -> None:
        self.pair.send(cmd.reduce(account, lots, order_id=self.order_id(pick)))

    @rule(
        pick=picks, lots=st.one_of(st.integers(2, 30), lots), price=st.one_of(near, prices), expected=st.integers(-1, 4)
    )
    def replace(self, pick, lots, price, expected) -> None:
        order = self.pair.engine.state.orders.get(self.order_id(pick))
        account = order.account.name if order is not None else "ann"
        self.pair.send(
            cmd.replace(account, lots, price, order_id=self.order_id(pick), expected_filled=min(expected, 0))
        )

    @rule(pick=picks, less=st.integers(-1, 12))
    def replace_at_its_price(self, pick, less) -> None:
        order = self.pair.engine.state.orders.get(self.order_id(pick))
        if order is not None:
            lots = order.lots_open - less
            self.pair.send(cmd.replace(order.account.name, lots, order.price, order_id=order.order_id))

    @rule(account=accounts, market=st.integers(-1, 1), key=st.sampled_from(("", "ak_1", "ak_2", "ak_3")))
    def cancel_those_of_a_key(self, account, market, key) -> None:
        self.pair.send(cmd.mass_cancel("operator", account, market, key=key))

    @rule(account=accounts, market=st.integers(-1, 1), operator=st.booleans(), everybody=st.booleans())
    def cancel_many(self, account, market, operator, everybody) -> None:
        if operator:
            self.pair.send(cmd.mass_cancel("operator", "" if everybody else account, market))
        else:
            self.pair.send(cmd.cancel_all(account, market))

    @rule(
        account=accounts,
        asset=st.integers(-1, 3),
        amount=st.one_of(st.integers(1, 5_000), lots),
        kind=st.integers(0, 2),
    )
    def move_money(self, account, asset, amount, kind) -> None:
        name = f"m{self.pair.sequence}"
        if kind == 0:
            self.pair.send(cmd.credit(account, asset, amount, request_id=name))
        elif kind == 1:
            self.pair.send(cmd.hold(account, asset, amount, request_id=name))
        else:
            self.pair.send(cmd.transfer(account, "bob", asset, amount, request_id=name))

    @rule(account=accounts, settle=st.booleans(), unknown=st.booleans())
    def end_hold(self, account, settle, unknown) -> None:
        holds = list(self.pair.engine.state.accounts[account].holds)
        hold = "nothing" if unknown or not holds else holds[0]
        make = cmd.settle_hold if settle else cmd.release_hold
        self.pair.send(make(account, hold, request_id=f"h{self.pair.sequence}"))

    @rule(market=which, mode=st.sampled_from((c.OPEN, c.OPEN, c.CANCEL_ONLY, c.HALTED)))
    def mode(self, market, mode) -> None:
        self.pair.send(cmd.set_market_mode("operator", market, mode))

    @precondition(lambda self: not self.pair.naive.switches["accept"] or self.pair.sequence % 3 == 0)
    @rule(switch=st.integers(1, 3), on=st.booleans())
    def switch(self, switch, on) -> None:
        self.pair.send(cmd.set_switch("operator", switch, on=on))

    @rule(market=which, maker=st.integers(0, 900), taker=st.integers(0, 9_000), stp=st.integers(1, 4))
    def change_rules(self, market, maker, taker, stp) -> None:
        changes = {reg.D_MAKER_PPM: maker, reg.D_TAKER_PPM: taker, reg.D_DEFAULT_STP: stp}
        self.pair.send(cmd.update_market("operator", market, changes))

    @rule(version=st.sampled_from((0, *RULES, 99)))
    def activate_rules(self, version) -> None:
        self.pair.send(cmd.activate_rules("operator", version))

    @rule(account=accounts, most=st.sampled_from((0, 3, 10)))
    def limit_account(self, account, most) -> None:
        self.pair.send(cmd.set_account_limits("operator", account, most))

    @rule(kept=st.sampled_from((1, 3, 200)))
    def forget_finished(self, kept) -> None:
        self.pair.send(cmd.set_retention("operator", 1_000, 10**18, kept))

    @rule(by=st.sampled_from((-30, 1, 10, 100)))
    def time_passes(self, by) -> None:
        self.pair.time += by
        self.pair.send(cmd.tick())

    @rule()
    def restart(self) -> None:
        self.pair.restart()

    @invariant()
    def never_in_doubt(self) -> None:
        if hasattr(self, "pair"):
            self.pair.check()


SMALL = settings(
    max_examples=int(os.environ.get("PINCEX_EXAMPLES", "60")),
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
LARGE = settings(SMALL, max_examples=3_000, stateful_step_count=120)

TestTrading = Trading.TestCase
TestTrading.settings = SMALL


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_thousands_of_longer_stories_show_no_difference() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Trading, settings=LARGE)


def random_command(draw: random.Random, pair: Pair) -> cmd.Command:
    """A command that mostly succeeds, so that books become deep and stops go off."""
    account, market = draw.choice(ACCOUNTS), draw.randrange(2)
    side, lots, price = draw.choice((c.BUY, c.SELL)), draw.randint(2, 30), round(draw.gauss(100, 3))
    last = pair.engine.state.markets[market].last_price or 100
    open_orders = [order for order in pair.engine.state.orders.values() if order.lots_open]
    chance = draw.random()
    if chance < 0.15 and open_orders:
        order = draw.choice(open_orders)
        return cmd.cancel(order.account.name, order_id=order.order_id)
    if chance < 0.2 and open_orders:
        order = draw.choice(open_orders)
        return cmd.replace(order.account.name, lots, price, order_id=order.order_id)
    if chance < 0.25 and open_orders:
        order = draw.choice(open_orders)
        return cmd.replace(order.account.name, draw.randint(1, order.lots_open), order.price, order_id=order.order_id)
    if chance < 0.3 and open_orders:
        order = draw.choice(open_orders)
        return cmd.reduce(order.account.name, draw.randint(1, order.lots_open), order_id=order.order_id)
    stp = draw.randrange(5)
    if chance < 0.45:
        stop = last + draw.randint(1, 4) * (1 if side == c.BUY else -1)
        if draw.random() < 0.5:
            return cmd.place(account, market, side, c.STOP, lots, 0, tif=c.IOC, stop=stop, stp=stp)
        return cmd.place(account, market, side, c.STOP_LIMIT, lots, price, tif=c.GTC, stop=stop, stp=stp)
    if chance < 0.5:
        return cmd.place(account, market, side, c.MARKET, lots, 0, tif=draw.choice((c.IOC, c.FOK)), stp=stp)
    if chance < 0.55:
        return cmd.place(account, market, side, c.LIMIT, lots, price, tif=draw.choice((c.IOC, c.FOK)), stp=stp)
    if chance < 0.6:
        expire = pair.time + draw.randint(1, 200)
        return cmd.place(account, market, side, c.LIMIT, lots, price, tif=c.GTD, expire_ns=expire)
    post_only = draw.random() < 0.1
    command = cmd.place(account, market, side, c.LIMIT, lots, price, tif=c.GTC, stp=stp, post_only=post_only)
    return (*command, *draw.choice(KEYS))


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("part", range(3))
def test_a_busy_market_makes_the_same_trades_as_the_naive_one(part: int, rules: int, seed: int) -> None:
    draw = random.Random(seed * 1_000 + part)
    pair = Pair(markets())
    pair.activate(rules)
    for account in ACCOUNTS:
        for asset in range(3):
            pair.send(cmd.credit(account, asset, 400_000, request_id=f"c{account}{asset}"))
    for step in range(500):
        pair.time += draw.randrange(4)
        pair.send(random_command(draw, pair))
        if step % 100 == 99:
            pair.restart()
    assert sum(order.filled > 0 for order in pair.naive.orders.values()) > 100

"""Every invariant finds the damage that it is there for, and no other one reports it."""

from collections.abc import Callable

import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core.invariants import check_market, check_money
from exchange.trading.core.model import Level, Order
from tests.unit.core.desk import BASE, QUOTE, Desk

pytestmark = pytest.mark.core


@pytest.fixture
def desk() -> Desk:
    desk = Desk(maker_ppm=333)
    desk.given("""
        ask 103  cy:4
        ask 102  bob:3 cy:2
        bid 100  bob:5 cy:1
        bid 99   bob:2
    """)
    for text in ("ann buy 2 @ 98 as resting", "ann buy 2 stop 110 as asleep", "ann sell 2 stop 90 as low"):
        desk.say(text)
    desk.say("ann buy 2 stop 111 as later")
    desk.say("ann buy 2 @ 98 gtd=500 as timed")
    desk.say("ann buy 1 @ 102 as done")
    desk.say("ann buy 1 @ 97", key="ak_1")
    desk.send(cmd.hold("ann", QUOTE, 7, request_id="w"))
    return desk


def failing(desk: Desk) -> list[str]:
    findings = check_market(desk.engine.state, desk.market) + check_money(desk.engine.state)
    assert all(bool(detail) is not holds for _, holds, detail in findings), "a failure says where"
    return [name for name, holds, _ in findings if not holds]


def test_a_sound_exchange_fails_no_check(desk: Desk) -> None:
    assert failing(desk) == []


def level(desk: Desk, price: int) -> Level:
    return desk.market.bids.levels[price]


def cross(desk: Desk) -> None:
    """The last level of asks says that it stands below the bids; its order says so too."""
    asks = desk.market.asks
    moved = asks.levels.pop(-asks.keys.pop())
    asks.keys.append(-100)
    asks.levels[100] = moved
    moved.price = 100
    order = moved.head
    while order is not None:
        order.price = 100
        order = order.next


def swap_prices(desk: Desk) -> None:
    keys = desk.market.bids.keys
    keys[0], keys[1] = keys[1], keys[0]


def hide_a_level(desk: Desk) -> None:
    desk.market.bids.keys.remove(99)


def mislabel_a_level(desk: Desk) -> None:
    desk.market.bids.levels[99].price = 97
    head = desk.market.bids.levels[99].head
    assert head is not None
    head.price = 97


def leave_an_empty_level(desk: Desk) -> None:
    desk.market.bids.keys.insert(0, 5)
    desk.market.bids.levels[5] = Level(5)


def unlink(desk: Desk) -> None:
    desk.order("timed").prev = None


def lose_the_tail(desk: Desk) -> None:
    level(desk, 98).tail = desk.order("resting")


def miscount_lots(desk: Desk) -> None:
    level(desk, 98).lots += 1


def miscount_orders(desk: Desk) -> None:
    level(desk, 98).count += 1


def keep_a_finished_order_by_its_level(desk: Desk) -> None:
    desk.order("done").level = level(desk, 98)


def keep_a_finished_orders_neighbour(desk: Desk) -> None:
    desk.order("done").next = desk.order("resting")


def rest_at_a_wrong_price(desk: Desk) -> None:
    desk.order("resting").price = 97


def disown(desk: Desk) -> None:
    """The order is gone from its account, which keeps the books of its number all the same."""
    account = desk.engine.state.accounts["ann"]
    order = account.orders.pop(desk.labels["resting"])
    stand_in = Order(0, account, order.balance, desk.market, order.side, order.price, 2, 0, 0, order.command)
    stand_in.order_id = order.order_id
    stand_in.held = order.held
    account.orders[order.order_id] = stand_in


def forget_a_sleeper(desk: Desk) -> None:
    desk.market.stop_buys.pop()


def sleep_in_the_wrong_order(desk: Desk) -> None:
    desk.market.stop_buys.reverse()


def sleep_under_a_wrong_trigger(desk: Desk) -> None:
    trigger, order_id = desk.market.stop_sells[0]
    desk.market.stop_sells[0] = (trigger + 1, order_id)


def go_below_zero(desk: Desk) -> None:
    """Two accounts, so that the supply is still right."""
    accounts = desk.engine.state.accounts
    balance = accounts["dee"].balances[BASE]
    accounts["bob"].balances[BASE].available += balance.available + 1
    balance.available = -1


def hold_too_much(desk: Desk) -> None:
    balance = desk.engine.state.accounts["ann"].balances[QUOTE]
    balance.held += 1
    balance.available -= 1


def pay_from_another_account(desk: Desk) -> None:
    desk.order("resting").balance = desk.engine.state.accounts["dee"].balances[QUOTE]


def miss_a_woken_order(desk: Desk) -> None:
    desk.market.stop_buys.pop(0)
    desk.order("asleep").triggered = desk.order("asleep").waiting = True
    desk.engine.state.triggered.append(desk.order("asleep"))


def make_money(desk: Desk) -> None:
    desk.engine.state.accounts["dee"].balances[BASE].available += 1


def overcharge(desk: Desk) -> None:
    desk.order("resting").fee_paid = 1


def miscount_a_key(desk: Desk) -> None:
    desk.engine.state.accounts["ann"].open_by_key["ak_1"] += 1


def keep_a_key_without_orders(desk: Desk) -> None:
    desk.engine.state.accounts["bob"].open_by_key["ak_1"] = 0


def keep_too_many_finished(desk: Desk) -> None:
    desk.engine.state.max_finished_orders = 0


def lose_a_finished_order(desk: Desk) -> None:
    desk.engine.state.accounts["ann"].finished.clear()


def lose_an_id(desk: Desk) -> None:
    del desk.engine.state.accounts["ann"].placed["resting"]


def misfile_an_id(desk: Desk) -> None:
    placed = desk.engine.state.accounts["ann"].placed
    placed["another name"] = placed.pop("resting")


def miscount_timers(desk: Desk) -> None:
    desk.engine.state.timers_live += 1


def lose_a_timer(desk: Desk) -> None:
    desk.engine.state.timers.clear()


DAMAGES: list[tuple[Callable[[Desk], None], list[str]]] = [
    (cross, ["book_not_crossed"]),
    (swap_prices, ["levels_sorted"]),
    (mislabel_a_level, ["levels_sorted"]),
    (leave_an_empty_level, ["no_empty_level"]),
    (unlink, ["level_links_whole"]),
    (lose_the_tail, ["level_links_whole"]),
    (miscount_lots, ["level_totals_match_orders"]),
    (miscount_orders, ["counts_match"]),
    (rest_at_a_wrong_price, ["resting_orders_open"]),
    (forget_a_sleeper, ["open_orders_filed"]),
    (sleep_in_the_wrong_order, ["sleepers_filed"]),
    (sleep_under_a_wrong_trigger, ["sleepers_filed"]),
    (go_below_zero, ["no_negative_balance"]),
    (hold_too_much, ["holds_match_open_orders"]),
    (pay_from_another_account, ["holds_match_open_orders"]),
    (make_money, ["supply_conserved"]),
    (overcharge, ["fees_rounded_up"]),
    (miscount_a_key, ["keys_counted"]),
    (keep_a_key_without_orders, ["keys_counted"]),
    (keep_too_many_finished, ["finished_bounded"]),
    (lose_a_finished_order, ["finished_bounded"]),
    (keep_a_finished_order_by_its_level, ["finished_detached"]),
    (keep_a_finished_orders_neighbour, ["finished_detached"]),
    (lose_an_id, ["ids_filed"]),
    (misfile_an_id, ["ids_filed"]),
    (miscount_timers, ["timers_counted"]),
    (lose_a_timer, ["timers_counted"]),
    (miss_a_woken_order, ["woken_noticed"]),
    # One wound that two rules see: the level is not listed, so its orders are nowhere.
    (hide_a_level, ["levels_sorted", "open_orders_filed"]),
    (disown, ["orders_indexed_by_account", "finished_bounded"]),
]


@pytest.mark.parametrize(("damage", "names"), DAMAGES, ids=lambda value: getattr(value, "__name__", None))
def test_damage_is_found_and_named(desk: Desk, damage: Callable[[Desk], None], names: list[str]) -> None:
    damage(desk)
    assert failing(desk) == names


def test_every_invariant_has_a_damage_that_it_finds(desk: Desk) -> None:
    findings = check_market(desk.engine.state, desk.market) + check_money(desk.engine.state)
    assert {name for name, _, _ in findings} == {name for _, names in DAMAGES for name in names}

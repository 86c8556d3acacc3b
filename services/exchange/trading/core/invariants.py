"""What must hold between two commands, each rule under its name: for operators who validate a book, and for tests.

Pure and slow: every check walks all that it speaks of.
"""

from __future__ import annotations

from collections.abc import Iterable

from exchange.trading.core import keys, memory
from exchange.trading.core.book import orders_in_priority
from exchange.trading.core.commands import C_ACCOUNT, C_KIND, C_REQUEST_ID, P_EXPIRE, P_STOP, PLACE, Command
from exchange.trading.core.constants import BUY, FEE_ACCOUNT, MAX_AMOUNT
from exchange.trading.core.events import R_COMMAND
from exchange.trading.core.model import BookSide, Level, Market, Order, State

Finding = tuple[str, bool, str]
"""Name of the invariant, whether it holds, and where it fails first ("" if it holds)."""


def check_market(state: State, market: Market) -> list[Finding]:
    """The invariants of one market's book and stop orders."""
    resting = [order for side in (market.bids, market.asks) for order in orders_in_priority(side)]
    return [
        _finding("book_not_crossed", _crossed(market)),
        _finding("levels_sorted", _first(_unsorted(side) for side in (market.bids, market.asks))),
        _finding("no_empty_level", _first(_empty_level(side) for side in (market.bids, market.asks))),
        _finding("level_links_whole", _first(_broken_links(side) for side in (market.bids, market.asks))),
        _finding("level_totals_match_orders", _first(_wrong_totals(side) for side in (market.bids, market.asks))),
        _finding("counts_match", _first(_wrong_counts(side) for side in (market.bids, market.asks))),
        _finding("resting_orders_open", _first(_not_open(state, order) for order in resting)),
        _finding("orders_indexed_by_account", _first(_not_indexed(order) for order in resting)),
        _finding("open_orders_filed", _unfiled(state, market, resting)),
        _finding("sleepers_filed", _wrong_sleepers(state, market)),
    ]


def check_money(state: State) -> list[Finding]:
    """The invariants of balances, and of what the engine keeps beside the books."""
    return [
        _finding("no_negative_balance", _negative(state)),
        _finding("holds_match_open_orders", _wrong_holds(state)),
        _finding("supply_conserved", _wrong_supply(state)),
        _finding("fees_rounded_up", _wrong_fees(state)),
        _finding("keys_counted", _wrong_keys(state)),
        _finding("finished_bounded", _wrong_finished(state)),
        _finding("finished_detached", _first(_still_attached(order) for order in state.finished)),
        _finding("ids_filed", _wrong_ids(state)),
        _finding("timers_counted", _wrong_timers(state)),
        _finding("woken_noticed", _unnoticed(state)),
    ]


def _finding(name: str, detail: str) -> Finding:
    return (name, detail == "", detail)


def _first(details: Iterable[str]) -> str:
    """The first detail that is not empty."""
    for detail in details:
        if detail:
            return detail
    return ""


# --- book ---


def _crossed(market: Market) -> str:
    bids, asks = market.bids.keys, market.asks.keys
    if bids and asks and bids[-1] >= -asks[-1]:
        return f"best bid {bids[-1]} meets best ask {-asks[-1]}"
    return ""


def _unsorted(side: BookSide) -> str:
    keys = side.keys
    for at in range(1, len(keys)):
        if keys[at - 1] >= keys[at]:
            return f"price {keys[at] * side.sign} stands out of order"
    if {key * side.sign for key in keys} != set(side.levels):
        return f"{len(keys)} prices are listed, {len(side.levels)} levels are kept"
    for price, level in side.levels.items():
        if level.price != price:
            return f"the level of price {price} says {level.price}"
    return ""


def _empty_level(side: BookSide) -> str:
    for level in side.levels.values():
        if level.head is None or level.count == 0:
            return f"price {level.price} has no order"
    return ""


def _broken_links(side: BookSide) -> str:
    for level in side.levels.values():
        before: Order | None = None
        order = level.head
        while order is not None:
            if order.prev is not before or order.level is not level:
                return f"order {order.order_id} does not stand where price {level.price} has it"
            before = order
            order = order.next
        if level.tail is not before:
            return f"price {level.price} does not end with its last order"
    return ""


def _orders_of(level: Level) -> list[Order]:
    found = []
    order = level.head
    while order is not None:
        found.append(order)
        order = order.next
    return found


def _wrong_totals(side: BookSide) -> str:
    for level in side.levels.values():
        lots = sum(order.lots_open for order in _orders_of(level))
        if lots != level.lots:
            return f"price {level.price} says {level.lots} lots, its orders have {lots}"
    return ""


def _wrong_counts(side: BookSide) -> str:
    for level in side.levels.values():
        count = len(_orders_of(level))
        if count != level.count:
            return f"price {level.price} says {level.count} orders, it has {count}"
    return ""


def _not_open(state: State, order: Order) -> str:
    if state.orders.get(order.order_id) is not order:
        return f"order {order.order_id} rests but is not known"
    if order.lots_open <= 0:
        return f"order {order.order_id} rests with {order.lots_open} lots"
    if order.level is not None and order.level.price != order.price:
        return f"order {order.order_id} of price {order.price} rests at {order.level.price}"
    return ""


def _not_indexed(order: Order) -> str:
    if order.account.orders.get(order.order_id) is not order:
        return f"order {order.order_id} rests but is not among those of {order.account.name}"
    return ""


def _unfiled(state: State, market: Market, resting: list[Order]) -> str:
    """Every open order rests, sleeps or waits; none does two of these."""
    filed = [order.order_id for order in resting]
    filed += [order_id for _, order_id in market.stop_buys + market.stop_sells]
    filed += [order.order_id for order in state.triggered if order.market is market]
    known = [order.order_id for order in state.orders.values() if order.market is market and order.lots_open > 0]
    if sorted(filed) != known:
        wrong = sorted(set(filed) ^ set(known)) or filed
        return f"order {wrong[0]} is open without a place, or has a place without being open, or two"
    return ""


def _wrong_sleepers(state: State, market: Market) -> str:
    for sleepers, sign in ((market.stop_buys, 1), (market.stop_sells, -1)):
        if sleepers != sorted(sleepers):
            return "stop orders stand out of order"
        for trigger, order_id in sleepers:
            order = state.orders.get(order_id)
            if order is None or order.triggered or order.level is not None:
                return f"order {order_id} is filed as a sleeper but does not sleep"
            if order.command[P_STOP] * sign != trigger or (order.side == BUY) != (sign == 1):
                return f"order {order_id} sleeps under the wrong trigger {trigger * sign}"
    return ""


# --- money and memory ---


def _negative(state: State) -> str:
    for account in state.accounts.values():
        for asset, balance in account.balances.items():
            if balance.available < 0 or balance.held < 0:
                return f"{account.name} has {balance.available} available, {balance.held} held of asset {asset}"
    return ""


def _wrong_holds(state: State) -> str:
    for account in state.accounts.values():
        held: dict[int, int] = {}
        for asset, amount in account.holds.values():
            held[asset] = held.get(asset, 0) + amount
        for order in account.orders.values():
            asset = order.market.quote if order.side == BUY else order.market.base
            if account.balances.get(asset) is not order.balance:
                return f"order {order.order_id} is not paid from the asset {asset} of {account.name}"
            held[asset] = held.get(asset, 0) + order.held
        for asset in sorted(held.keys() | account.balances.keys()):
            balance = account.balances.get(asset)
            stands = 0 if balance is None else balance.held
            if stands != held.get(asset, 0):
                return f"{account.name} holds {stands} of asset {asset}, its orders and holds {held.get(asset, 0)}"
    return ""


def _wrong_supply(state: State) -> str:
    for asset in state.assets:
        total = 0
        for account in state.accounts.values():
            balance = account.balances.get(asset.index)
            if balance is not None:
                total += balance.available + balance.held
        if total != asset.supply or total > MAX_AMOUNT:
            return f"all accounts have {total} of {asset.code}, its supply is {asset.supply}"
    return ""


def _wrong_fees(state: State) -> str:
    for order in state.orders.values():
        if not 0 <= order.fee_ahead < 1_000_000 or not 0 <= order.fee_paid <= order.notional:
            return f"order {order.order_id} paid {order.fee_paid} on {order.notional}, {order.fee_ahead} ppm ahead"
    return ""


def _wrong_keys(state: State) -> str:
    for account in state.accounts.values():
        counted: dict[str, int] = {}
        for order in account.orders.values():
            key = keys.key_of(order.command)
            if key:
                counted[key] = counted.get(key, 0) + 1
        for key in sorted(counted.keys() | account.open_by_key.keys()):
            says = account.open_by_key.get(key, 0)
            if says != counted.get(key, 0) or says == 0:
                return f"key {key} of {account.name} is said to have {says} orders open, it has {counted.get(key, 0)}"
    return ""


def _wrong_finished(state: State) -> str:
    if len(state.finished) > state.max_finished_orders:
        return f"{len(state.finished)} finished orders are kept, {state.max_finished_orders} may be"
    open_orders = 0
    finished = 0
    for account in state.accounts.values():
        open_orders += len(account.orders)
        finished += len(account.finished)
        for order in account.orders.values():
            if order.lots_open <= 0 or state.orders.get(order.order_id) is not order:
                return f"order {order.order_id} of {account.name} is not open"
    if finished != len(state.finished) or open_orders + finished != len(state.orders):
        return f"{len(state.orders)} orders are known, {open_orders} open and {finished} finished"
    return ""


def _still_attached(order: Order) -> str:
    """A finished order that still points into the book would keep what it points to for as long as it is kept."""
    if order.level is not None or order.prev is not None or order.next is not None or order.held != 0:
        return f"order {order.order_id} has ended and still stands somewhere or holds something"
    return ""


def _wrong_ids(state: State) -> str:
    ids = sum(len(account.placed) + len(account.requests) for account in state.accounts.values())
    if ids != len(state.remembered):
        return f"{ids} ids are known, {len(state.remembered)} are filed to be forgotten"
    for entry in state.remembered:
        _, result = memory.filed(entry)
        command: Command = result[R_COMMAND]
        account = state.accounts[command[C_ACCOUNT] or FEE_ACCOUNT]
        known = account.placed if command[C_KIND] == PLACE else account.requests
        if known.get(command[C_REQUEST_ID]) is not result:
            return f"id {command[C_REQUEST_ID]} of {account.name} is filed but not known"
    return ""


def _wrong_timers(state: State) -> str:
    expiring = {
        (order.command[P_EXPIRE], order.order_id)
        for order in state.orders.values()
        if order.lots_open > 0 and order.command[P_EXPIRE] != 0
    }
    if len(expiring) != state.timers_live:
        return f"{len(expiring)} open orders expire, {state.timers_live} are counted"
    missing = expiring - set(state.timers)
    if missing:
        return f"order {min(missing)[1]} has no timer"
    return ""


def _unnoticed(state: State) -> str:
    if state.triggered and not state.stirred:
        return f"order {state.triggered[0].order_id} was woken, and the next command would not match it"
    return ""

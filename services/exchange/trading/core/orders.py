"""Placing, cancelling, reducing, replacing: what the rules say before and after matching."""

from __future__ import annotations

from typing import Final

from exchange.trading.core import admission, book, keys, money, timers
from exchange.trading.core.book import rest
from exchange.trading.core.commands import (
    A_MARKET,
    C_ACCOUNT,
    C_REQUEST_ID,
    M_ACCOUNT,
    M_KEY,
    M_MARKET,
    P_EXPIRE,
    P_KEY,
    P_LOTS,
    P_MARKET,
    P_SIDE,
    P_STOP,
    P_STP,
    P_TIF,
    P_TYPE,
    X_CLIENT_ORDER_ID,
    X_LOTS,
    X_ORDER_ID,
    X_PRICE,
    Command,
)
from exchange.trading.core.constants import (
    BUY,
    CANCEL_OPERATOR,
    CANCEL_REDUCED,
    CANCEL_REMAINDER,
    CANCEL_REQUESTED,
    CANCEL_SELF_TRADE,
    CANCELLED,
    GTC,
    GTD,
    HALTED,
    LIMIT,
    MAX_AMOUNT,
    PENDING,
    RULES_KEEP_PRIORITY,
    STOP_LIMIT,
    STP_DEFAULT,
    Boxed,
)
from exchange.trading.core.events import (
    COMMAND_REJECTED,
    MASS_CANCELLED,
    ORDER_ACCEPTED,
    ORDER_REDUCED,
    ORDER_REJECTED,
    ORDER_REPLACED,
    R_ORDER_ID,
    Event,
    Result,
)
from exchange.trading.core.matching import cancel_open, finish, match
from exchange.trading.core.memory import refusal
from exchange.trading.core.model import Account, Market, Order, State
from exchange.trading.core.reasons import (
    DONE,
    INSUFFICIENT_FUNDS,
    ORDER_NOT_FOUND,
    QUANTITY_TOO_SMALL,
    REDUCE_EXCEEDS_OPEN,
)

# What results say most often, as objects.
_NONE: Final[Boxed] = 0
_DONE: Final[Boxed] = DONE
_PENDING: Final[Boxed] = PENDING
_CANCELLED: Final[Boxed] = CANCELLED
_REQUESTED: Final[Boxed] = CANCEL_REQUESTED


def order_result(state: State, order: Order, command: Command) -> Result:
    """How the order stands right now."""
    return (
        state.sequence,
        state.time_ns,
        _DONE,
        order.order_id,
        order.status,
        order.lots_open,
        order.lots_filled,
        order.notional,
        order.fee_paid,
        order.price,
        order.cancel_reason,
        _NONE,
        command,
    )


def reject_command(state: State, command: Command, reason: int, events: list[Event], reference: str = "") -> Result:
    """Refuse a command other than PLACE."""
    events.append((COMMAND_REJECTED, command[C_ACCOUNT], reference or command[C_REQUEST_ID], reason))
    return refusal(state, command, reason)


# --- placing ---


def place(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """Accept an order and match it, or refuse it and change nothing.

    Most orders are plain limit orders that break no rule and find a place in the book at once: they take the short way
    through here. All others take `_place_any`, which knows every rule and the reasons of refusals.
    """
    # What events and results only pass on stays boxed; the arithmetic has bare numbers.
    side: int
    order_type: int
    tif: int
    expire_ns: int
    keyed = len(command) > P_KEY
    terms = command[:P_KEY] if keyed else command
    _, _, _, _, _, _, market_index, side, order_type, tif, _, stp, boxed_lots, boxed_price, _, expire_ns = terms
    market = state.entry.get(market_index)
    if market is None:
        return _reject(state, command, admission.entry_refusal(state, market_index), events)
    if order_type != LIMIT or tif != GTC or expire_ns != 0:
        return _place_any(state, account, market, command, events)
    price: int = boxed_price
    lots: int = boxed_lots
    notional = price * lots * market.quote_per_tick_lot
    if not (
        market.band_low <= price <= market.band_high
        and market.min_lots <= lots <= market.most_lots
        and market.min_notional <= notional <= MAX_AMOUNT
    ):
        return _place_any(state, account, market, command, events)
    if side == BUY:
        own, facing = market.bids, market.asks.keys
        if facing and facing[-1] >= -price:
            return _place_any(state, account, market, command, events)
        held = notional + money.fee_of(notional, market.hold_ppm, 0)
        balance = account.balances.get(market.quote)
    else:
        own, facing = market.asks, market.bids.keys
        if facing and facing[-1] >= price:
            return _place_any(state, account, market, command, events)
        held = lots * market.base_per_lot
        balance = account.balances.get(market.base)
    if keyed:
        full = keys.too_many_open(state, account, command)
    else:
        limit = account.max_open_orders
        if limit < 0:
            limit = state.default_max_open_orders
        full = limit != 0 and len(account.orders) >= limit
    if full or balance is None or balance.available < held:
        return _place_any(state, account, market, command, events)
    balance.available -= held
    balance.held += held
    order_id: Boxed = state.sequence
    time_ns: Boxed = state.time_ns
    order = Order(order_id, account, balance, market, side, boxed_price, lots, held, time_ns, command)
    account.orders[order_id] = order
    state.orders[order_id] = order
    if keyed:
        keys.opened(account, command)
    rest(own, order)
    events.append((
        ORDER_ACCEPTED, order_id, account.name, market_index, side, boxed_price, boxed_lots, held, command,
        stp or market.default_stp,
    ))  # fmt: skip
    return (
        order_id, time_ns, _DONE, order_id, _PENDING, boxed_lots, _NONE, _NONE, _NONE, boxed_price, _NONE, _NONE, command,
    )  # fmt: skip


def _place_any(state: State, account: Account, market: Market, command: Command, events: list[Event]) -> Result:
    """Accept any order and match it, or refuse it."""
    side: int = command[P_SIDE]
    lots: int = command[P_LOTS]
    price = admission.working_price(market, command)
    stp: int = command[P_STP]
    if stp == STP_DEFAULT:
        stp = market.default_stp
    reason = admission.order_refusal(state, account, market, command, price, stp)
    if reason != DONE:
        return _reject(state, command, reason, events)
    order_id: Boxed = state.sequence
    balance = account.balances.get(market.quote if side == BUY else market.base)
    if balance is None:
        return _reject(state, command, INSUFFICIENT_FUNDS, events)
    order = Order(order_id, account, balance, market, side, price, lots, 0, state.time_ns, command)
    held = money.hold_for(order, price, lots)
    if balance.available < held:
        return _reject(state, command, INSUFFICIENT_FUNDS, events)
    balance.available -= held
    balance.held += held
    order.held = held
    account.orders[order_id] = order
    state.orders[order_id] = order
    keys.opened(account, command)
    expire_ns: int = command[P_EXPIRE]
    if expire_ns != 0:
        timers.add(state, expire_ns, order_id)
    stop: int = command[P_STOP]
    position = len(events)
    events.append(())
    if stop == 0:
        execute(state, order, stp, events)
    else:
        book.sleep(market, order)
    resting = order.lots_open if order.level is not None else 0
    events[position] = (ORDER_ACCEPTED, order_id, account.name, market.index, side, price, resting, held, command, stp)
    return order_result(state, order, command)


def _reject(state: State, command: Command, reason: int, events: list[Event]) -> Result:
    events.append((ORDER_REJECTED, command[C_ACCOUNT], command[P_MARKET], command[C_REQUEST_ID], reason))
    return refusal(state, command, reason)


def execute(state: State, order: Order, stp: int, events: list[Event]) -> None:
    """Match an order that has arrived, woken or been replaced; then rest, finish or cancel what is left."""
    market = order.market
    before = order.lots_open
    opposite = market.asks if order.side == BUY else market.bids
    keys = opposite.keys
    price: int = order.price
    meets = bool(keys) and keys[-1] >= (-price if order.side == BUY else price)
    stopped = meets and match(state, order, stp, events)
    if order.lots_open != before:
        order.updated_sequence = state.sequence
        order.updated_ns = state.time_ns
        state.traded = market
        state.stirred = True
        admission.set_band(market)
    if order.lots_open == 0:
        finish(state, order)
        return
    if stopped:
        cancel_open(state, order, CANCEL_SELF_TRADE, events)
        return
    command = order.command
    order_type: int = command[P_TYPE]
    tif: int = command[P_TIF]
    if tif in (GTC, GTD) and order_type in (LIMIT, STOP_LIMIT):
        rest(market.bids if order.side == BUY else market.asks, order)
    else:
        cancel_open(state, order, CANCEL_REMAINDER, events)


# --- changing ---


def find_order(state: State, account: Account, order_id: Boxed, client_order_id: str) -> Order | None:
    """The account's own order of either id, open or ended; None for unknown, forgotten and foreign alike."""
    # Open orders first: few, so they are in the processor's caches, which all that are known are not.
    order = account.orders.get(order_id)
    if order is not None:
        return order
    if order_id == 0:
        first = account.placed.get(client_order_id)
        if first is None:
            return None
        order_id = first[R_ORDER_ID]
    order = state.orders.get(order_id)
    if order is None or order.account is not account:
        return None
    return order


def _reference(command: Command) -> str:
    order_id: int = command[X_ORDER_ID]
    client_order_id: str = command[X_CLIENT_ORDER_ID]
    return str(order_id) if order_id else client_order_id


def cancel(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """Cancel one order."""
    order = account.orders.get(command[X_ORDER_ID])
    if order is None:
        order = find_order(state, account, command[X_ORDER_ID], command[X_CLIENT_ORDER_ID])
    if order is None:
        return reject_command(state, command, ORDER_NOT_FOUND, events, _reference(command))
    if order.lots_open == 0 or order.market.mode == HALTED:
        return reject_command(state, command, admission.change_refusal(order), events, _reference(command))
    cancel_open(state, order, CANCEL_REQUESTED, events)
    return (
        state.sequence,
        state.time_ns,
        _DONE,
        order.order_id,
        _CANCELLED,
        _NONE,
        order.lots_filled,
        order.notional,
        order.fee_paid,
        order.price,
        _REQUESTED,
        _NONE,
        command,
    )


def reduce(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """Take lots off an open order, which keeps its place; all of them cancel it."""
    order = find_order(state, account, command[X_ORDER_ID], command[X_CLIENT_ORDER_ID])
    reason = admission.change_refusal(order)
    lots: int = command[X_LOTS]
    if reason == DONE and order is not None:
        if lots <= 0:
            reason = QUANTITY_TOO_SMALL
        elif lots > order.lots_open:
            reason = REDUCE_EXCEEDS_OPEN
    if reason != DONE:
        return reject_command(state, command, reason, events, _reference(command))
    assert order is not None
    if lots == order.lots_open:
        cancel_open(state, order, CANCEL_REDUCED, events)
        return order_result(state, order, command)
    market = order.market
    resting = order.level is not None
    if resting:
        book.shrink(order, lots)
    else:
        order.lots_open -= lots
    released = -money.move_hold(order, order.price, order.lots_open)
    order.updated_ns = state.time_ns
    order.updated_sequence = state.sequence
    events.append(
        (
            ORDER_REDUCED,
            order.order_id,
            account.name,
            market.index,
            order.side,
            order.price,
            lots,
            order.lots_open,
            released,
            order.lots_filled,
            order.notional,
            order.fee_paid,
            resting,
        )
    )
    return order_result(state, order, command)


def replace(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """Give an open order a new price and open quantity: it goes to the back, and may trade as the taker first.

    Since RULES_KEEP_PRIORITY an order that keeps its price and does not grow keeps its place: it takes nothing from
    those behind it. Resting at its own price it could meet nobody, so there is nothing to match.
    """
    order = find_order(state, account, command[X_ORDER_ID], command[X_CLIENT_ORDER_ID])
    reason = admission.replace_refusal(state, order, command)
    if reason != DONE:
        return reject_command(state, command, reason, events, _reference(command))
    assert order is not None
    market = order.market
    price: int = command[X_PRICE]
    lots: int = command[X_LOTS]
    old_price = order.price
    old_open = order.lots_open
    keeps_place = state.rules_version >= RULES_KEEP_PRIORITY and price == old_price and lots <= old_open
    if keeps_place:
        book.shrink(order, old_open - lots)
    else:
        book.remove(order)
        order.price = price
        order.lots_open = lots
    change = money.move_hold(order, price, lots)
    order.updated_ns = state.time_ns
    order.updated_sequence = state.sequence
    filled, notional, fee_paid = order.lots_filled, order.notional, order.fee_paid
    position = len(events)
    events.append(())
    if not keeps_place:
        stp: int = order.command[P_STP]
        execute(state, order, stp or market.default_stp, events)
    events[position] = (
        ORDER_REPLACED,
        order.order_id,
        account.name,
        market.index,
        order.side,
        price,
        old_price,
        old_open,
        lots,
        order.lots_open if order.level is not None else 0,
        change,
        filled,
        notional,
        fee_paid,
    )
    return order_result(state, order, command)


def cancel_all(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """Cancel the account's open orders, but for those in halted markets."""
    market_index: int = command[A_MARKET]
    count = 0
    for order in list(account.orders.values()):
        if (market_index < 0 or order.market.index == market_index) and order.market.mode != HALTED:
            cancel_open(state, order, CANCEL_REQUESTED, events)
            count += 1
    return _counted(state, command, count)


def mass_cancel(state: State, command: Command, events: list[Event]) -> Result:
    """Operator: cancel the open orders of an account, of a market, or of an account in a market; halted ones too. Of an
    account perhaps only those that one API key placed.
    """
    name: str = command[M_ACCOUNT]
    market_index: int = command[M_MARKET]
    key: str = command[M_KEY] if len(command) > M_KEY and keys.are_known(state) else ""
    if name:
        account = state.accounts.get(name)
        orders = list(account.orders.values()) if account is not None else []
    else:
        orders = [order for account in state.accounts.values() for order in account.orders.values()]
    count = 0
    for order in orders:
        if (market_index < 0 or order.market.index == market_index) and (not key or keys.key_of(order.command) == key):
            cancel_open(state, order, CANCEL_OPERATOR, events)
            count += 1
    events.append((MASS_CANCELLED, name, market_index, count))
    return _counted(state, command, count)


def _counted(state: State, command: Command, count: int) -> Result:
    return (state.sequence, state.time_ns, DONE, 0, 0, 0, 0, 0, 0, 0, 0, count, command)

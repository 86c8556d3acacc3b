"""Placing, cancelling, reducing, replacing: what the rules say before and after matching."""

from __future__ import annotations

from exchange.trading.core import book, money, timers
from exchange.trading.core.commands import (
    A_MARKET,
    C_ACCOUNT,
    C_REQUEST_ID,
    M_ACCOUNT,
    M_MARKET,
    P_EXPIRE,
    P_LOTS,
    P_MARKET,
    P_POST_ONLY,
    P_PRICE,
    P_SIDE,
    P_STOP,
    P_STP,
    P_TIF,
    P_TYPE,
    X_CLIENT_ORDER_ID,
    X_EXPECTED_FILLED,
    X_LOTS,
    X_ORDER_ID,
    X_PRICE,
    Command,
)
from exchange.trading.core.constants import (
    BUY,
    CANCEL_ONLY,
    CANCEL_OPERATOR,
    CANCEL_REDUCED,
    CANCEL_REMAINDER,
    CANCEL_REQUESTED,
    CANCEL_SELF_TRADE,
    FILLED,
    FOK,
    GTC,
    GTD,
    HALTED,
    LIMIT,
    MARKET,
    MAX_AMOUNT,
    MAX_LOTS,
    MAX_TICKS,
    OPEN,
    PARTIAL,
    PENDING,
    PPM,
    STOP,
    STOP_LIMIT,
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
from exchange.trading.core.matching import cancel_open, fillable, finish, match, would_cross
from exchange.trading.core.memory import refusal
from exchange.trading.core.model import Account, Market, Order, State
from exchange.trading.core.reasons import (
    CIRCUIT_BREAKER,
    DONE,
    EXPIRE_TIME_PASSED,
    FILLED_QUANTITY_CHANGED,
    FOK_NOT_FILLABLE,
    INSUFFICIENT_FUNDS,
    MAINTENANCE,
    MARKET_CANCEL_ONLY,
    MARKET_HALTED,
    NEW_ORDERS_DISABLED,
    NO_LIQUIDITY,
    NOTIONAL_TOO_SMALL,
    NUMBER_TOO_LARGE,
    ORDER_ASLEEP,
    ORDER_CLOSED,
    ORDER_NOT_FOUND,
    POST_ONLY_WOULD_CROSS,
    PRICE_OUT_OF_BAND,
    QUANTITY_TOO_LARGE,
    QUANTITY_TOO_SMALL,
    REDUCE_EXCEEDS_OPEN,
    STOP_ALREADY_REACHED,
    TOO_MANY_OPEN_ORDERS,
    UNKNOWN_SYMBOL,
)


def order_result(state: State, order: Order, command: Command) -> Result:
    """How the order stands right now."""
    return (
        state.sequence,
        state.time_ns,
        DONE,
        order.order_id,
        order.status,
        order.lots_open,
        order.lots_filled,
        order.notional,
        order.fee_paid,
        order.price,
        order.cancel_reason,
        0,
        command,
    )


def reject_command(state: State, command: Command, reason: int, events: list[Event], reference: str = "") -> Result:
    """Refuse a command other than PLACE."""
    events.append((COMMAND_REJECTED, command[C_ACCOUNT], reference or command[C_REQUEST_ID], reason))
    return refusal(state, command, reason)


# --- placing ---


def place(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """Accept an order and match it, or refuse it and change nothing."""
    market_index: int = command[P_MARKET]
    market = state.markets[market_index] if 0 <= market_index < len(state.markets) else None
    reason = _entry_refusal(state, market)
    price = 0
    stp: int = command[P_STP]
    if reason == DONE:
        assert market is not None
        price = _working_price(market, command)
        stp = stp or market.default_stp
        reason = _order_refusal(state, account, market, command, price, stp)
    if reason != DONE:
        events.append((ORDER_REJECTED, account.name, market_index, command[C_REQUEST_ID], reason))
        return refusal(state, command, reason)
    assert market is not None
    order = Order(state.sequence, account, market, command[P_SIDE], price, command[P_LOTS], state.time_ns, command)
    held = money.hold_for(order, price, order.lots_open)
    balance = account.balances.get(market.quote if order.side == BUY else market.base)
    if balance is None or balance.available < held:
        events.append((ORDER_REJECTED, account.name, market_index, command[C_REQUEST_ID], INSUFFICIENT_FUNDS))
        return refusal(state, command, INSUFFICIENT_FUNDS)
    balance.available -= held
    balance.held += held
    order.held = held
    _accept(state, order, command)
    position = len(events)
    events.append(())
    if command[P_STOP] == 0:
        execute(state, order, stp, events)
    else:
        book.sleep(market, order)
    resting = order.lots_open if order.level is not None else 0
    events[position] = (
        ORDER_ACCEPTED,
        order.order_id,
        account.name,
        market_index,
        order.side,
        price,
        resting,
        held,
        command,
        stp,
    )
    return order_result(state, order, command)


def _accept(state: State, order: Order, command: Command) -> None:
    order_id = order.order_id
    order.account.orders[order_id] = order
    state.orders[order_id] = order
    expire_ns: int = command[P_EXPIRE]
    if expire_ns != 0:
        timers.add(state, expire_ns, order_id)


def execute(state: State, order: Order, stp: int, events: list[Event]) -> None:
    """Match an order that has arrived, woken or been replaced; then rest, finish or cancel what is left."""
    market = order.market
    before = order.lots_open
    opposite = market.asks if order.side == BUY else market.bids
    stopped = (
        bool(opposite.keys) and opposite.keys[-1] >= order.price * opposite.sign and match(state, order, stp, events)
    )
    if order.lots_open != before:
        order.updated_sequence = state.sequence
        order.updated_ns = state.time_ns
        state.traded = market
    if order.lots_open == 0:
        order.status = FILLED
        finish(state, order)
        return
    order.status = PARTIAL if order.lots_filled else PENDING
    if stopped:
        cancel_open(state, order, CANCEL_SELF_TRADE, events)
        return
    command = order.command
    order_type: int = command[P_TYPE]
    tif: int = command[P_TIF]
    if (tif in (GTC, GTD)) and (order_type in (LIMIT, STOP_LIMIT)):
        book.rest(market.bids if order.side == BUY else market.asks, order)
    else:
        cancel_open(state, order, CANCEL_REMAINDER, events)


def _entry_refusal(state: State, market: Market | None) -> int:
    """Why no new order may come in at all."""
    if state.maintenance:
        return MAINTENANCE
    if state.circuit_breaker:
        return CIRCUIT_BREAKER
    if not state.accept_new_orders:
        return NEW_ORDERS_DISABLED
    if market is None:
        return UNKNOWN_SYMBOL
    if market.mode != OPEN:
        return MARKET_CANCEL_ONLY if market.mode == CANCEL_ONLY else MARKET_HALTED
    return DONE


def _working_price(market: Market, command: Command) -> int:
    """The limit at which the order may trade: its own, or for MARKET and STOP the protection price; 0: none found."""
    order_type: int = command[P_TYPE]
    price: int = command[P_PRICE]
    if order_type in (LIMIT, STOP_LIMIT):
        return price
    side: int = command[P_SIDE]
    if order_type == STOP:
        return protected(market, side, command[P_STOP])
    if price == 0:
        touch = book.best_price(market.asks if side == BUY else market.bids)
        if touch == 0:
            return 0
        price = protected(market, side, touch)
    low, high = band(market)
    if side == BUY:
        return min(price, high) if high else price
    return max(price, low)


def protected(market: Market, side: int, price: int) -> int:
    """A price moved against the order by the market's protection, rounded towards the price given, at least one tick."""
    width = price * market.protection_ppm // PPM
    return min(price + width, MAX_TICKS) if side == BUY else max(price - width, 1)


def band(market: Market) -> tuple[int, int]:
    """Lowest and highest price allowed now, both included; (0, 0) without a band or a reference."""
    reference = market.last_price or market.reference_price
    if market.band_ppm == 0 or reference == 0:
        return (0, 0)
    width = reference * market.band_ppm // PPM
    return (max(reference - width, 1), reference + width)


def _order_refusal(state: State, account: Account, market: Market, command: Command, price: int, stp: int) -> int:
    """Why this order may not come in, funds aside."""
    lots: int = command[P_LOTS]
    side: int = command[P_SIDE]
    order_type: int = command[P_TYPE]
    if price <= 0:
        return NO_LIQUIDITY if order_type == MARKET else NUMBER_TOO_LARGE
    if lots < market.min_lots or lots <= 0:
        return QUANTITY_TOO_SMALL
    if market.max_lots and lots > market.max_lots:
        return QUANTITY_TOO_LARGE
    reason = size_refusal(market, price, lots)
    if reason != DONE:
        return reason
    stop: int = command[P_STOP]
    if order_type == LIMIT:
        if price * lots * market.quote_per_tick_lot < market.min_notional:
            return NOTIONAL_TOO_SMALL
        if market.band_ppm:
            low, high = band(market)
            if high and (price < low or price > high):
                return PRICE_OUT_OF_BAND
        if command[P_POST_ONLY] and would_cross(market, side, price):
            return POST_ONLY_WOULD_CROSS
    elif order_type == MARKET:
        if not (market.asks if side == BUY else market.bids).keys:
            return NO_LIQUIDITY
    else:
        if stop <= 0 or stop > MAX_TICKS:
            return NUMBER_TOO_LARGE
        last = market.last_price
        if last and (last >= stop if side == BUY else last <= stop):
            return STOP_ALREADY_REACHED
        if order_type == STOP_LIMIT:
            if price * lots * market.quote_per_tick_lot < market.min_notional:
                return NOTIONAL_TOO_SMALL
            width = stop * market.band_ppm // PPM
            if market.band_ppm and (price < stop - width or price > stop + width):
                return PRICE_OUT_OF_BAND
    expire_ns: int = command[P_EXPIRE]
    if expire_ns != 0 and expire_ns <= state.time_ns:
        return EXPIRE_TIME_PASSED
    limit = account.max_open_orders if account.max_open_orders >= 0 else state.default_max_open_orders
    if limit and len(account.orders) >= limit:
        return TOO_MANY_OPEN_ORDERS
    if command[P_TIF] == FOK and not fillable(market, account, side, price, lots, stp):
        return FOK_NOT_FILLABLE
    return DONE


def size_refusal(market: Market, price: int, lots: int) -> int:
    """Whether price, quantity or their product is beyond what the engine holds exactly, with room for fees."""
    if price > MAX_TICKS or lots > MAX_LOTS or lots * market.base_per_lot > MAX_AMOUNT:
        return NUMBER_TOO_LARGE
    if price * lots * market.quote_per_tick_lot > MAX_AMOUNT:
        return NUMBER_TOO_LARGE
    return DONE


# --- changing ---


def find_order(state: State, account: Account, order_id: int, client_order_id: str) -> Order | None:
    """The account's own order of either id, open or ended; None for unknown, forgotten and foreign alike."""
    if order_id == 0:
        first = account.placed.get(client_order_id)
        if first is None:
            return None
        order_id = first[R_ORDER_ID]
    order = state.orders.get(order_id)
    if order is None or order.account is not account:
        return None
    return order


def _change_refusal(order: Order | None) -> int:
    """Why an order may not be cancelled or reduced."""
    if order is None:
        return ORDER_NOT_FOUND
    if order.lots_open == 0:
        return ORDER_CLOSED
    if order.market.mode == HALTED:
        return MARKET_HALTED
    return DONE


def _reference(command: Command) -> str:
    order_id: int = command[X_ORDER_ID]
    client_order_id: str = command[X_CLIENT_ORDER_ID]
    return str(order_id) if order_id else client_order_id


def cancel(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """Cancel one order."""
    order = find_order(state, account, command[X_ORDER_ID], command[X_CLIENT_ORDER_ID])
    reason = _change_refusal(order)
    if reason != DONE:
        return reject_command(state, command, reason, events, _reference(command))
    assert order is not None
    cancel_open(state, order, CANCEL_REQUESTED, events)
    return order_result(state, order, command)


def reduce(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """Take lots off an open order, which keeps its place; all of them cancel it."""
    order = find_order(state, account, command[X_ORDER_ID], command[X_CLIENT_ORDER_ID])
    reason = _change_refusal(order)
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
        book.shrink(market.bids if order.side == BUY else market.asks, order, lots)
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
    """Give an open order a new price and open quantity: it goes to the back, and may trade as the taker first."""
    order = find_order(state, account, command[X_ORDER_ID], command[X_CLIENT_ORDER_ID])
    reason = _replace_refusal(state, order, command)
    if reason != DONE:
        return reject_command(state, command, reason, events, _reference(command))
    assert order is not None
    market = order.market
    price: int = command[X_PRICE]
    lots: int = command[X_LOTS]
    old_price = order.price
    old_open = order.lots_open
    book.remove(market.bids if order.side == BUY else market.asks, order)
    order.price = price
    order.lots_open = lots
    change = money.move_hold(order, price, lots)
    order.updated_ns = state.time_ns
    order.updated_sequence = state.sequence
    filled, notional, fee_paid = order.lots_filled, order.notional, order.fee_paid
    position = len(events)
    events.append(())
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


def _replace_refusal(state: State, order: Order | None, command: Command) -> int:
    """Why an order may not be replaced; nothing has changed then."""
    reason = _change_refusal(order)
    if reason != DONE:
        return reason
    assert order is not None
    market = order.market
    if state.maintenance:
        return MAINTENANCE
    if state.circuit_breaker:
        return CIRCUIT_BREAKER
    if market.mode != OPEN:
        return MARKET_CANCEL_ONLY
    if order.level is None:
        return ORDER_ASLEEP
    price: int = command[X_PRICE]
    lots: int = command[X_LOTS]
    expected: int = command[X_EXPECTED_FILLED]
    if expected >= 0 and expected != order.lots_filled:
        return FILLED_QUANTITY_CHANGED
    if lots < market.min_lots or lots <= 0:
        return QUANTITY_TOO_SMALL
    if market.max_lots and lots > market.max_lots:
        return QUANTITY_TOO_LARGE
    if price <= 0 or size_refusal(market, price, lots) != DONE:
        return NUMBER_TOO_LARGE
    # Replaced again and again, an order could trade more in all than 64 bits hold.
    if order.notional + price * lots * market.quote_per_tick_lot > MAX_AMOUNT:
        return NUMBER_TOO_LARGE
    if (order.lots_filled + lots) * market.base_per_lot > MAX_AMOUNT:
        return NUMBER_TOO_LARGE
    if price * lots * market.quote_per_tick_lot < market.min_notional:
        return NOTIONAL_TOO_SMALL
    low, high = band(market)
    if high and (price < low or price > high):
        return PRICE_OUT_OF_BAND
    if order.command[P_POST_ONLY] and would_cross(market, order.side, price):
        return POST_ONLY_WOULD_CROSS
    balance = order.account.balances[market.quote if order.side == BUY else market.base]
    if money.hold_for(order, price, lots) - order.held > balance.available:
        return INSUFFICIENT_FUNDS
    return DONE


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
    """Operator: cancel the open orders of an account, of a market, or of an account in a market; halted ones too."""
    name: str = command[M_ACCOUNT]
    market_index: int = command[M_MARKET]
    if name:
        account = state.accounts.get(name)
        orders = list(account.orders.values()) if account is not None else []
    else:
        orders = [order for account in state.accounts.values() for order in account.orders.values()]
    count = 0
    for order in orders:
        if market_index < 0 or order.market.index == market_index:
            cancel_open(state, order, CANCEL_OPERATOR, events)
            count += 1
    events.append((MASS_CANCELLED, name, market_index, count))
    return _counted(state, command, count)


def _counted(state: State, command: Command, count: int) -> Result:
    return (state.sequence, state.time_ns, DONE, 0, 0, 0, 0, 0, 0, 0, 0, count, command)

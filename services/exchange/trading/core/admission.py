"""What may come in, and at which price: every check of a new, replaced or cancelled order."""

from __future__ import annotations

from exchange.trading.core import book, keys, money
from exchange.trading.core.commands import (
    P_EXPIRE,
    P_LOTS,
    P_POST_ONLY,
    P_PRICE,
    P_SIDE,
    P_STOP,
    P_TIF,
    P_TYPE,
    X_EXPECTED_FILLED,
    X_LOTS,
    X_PRICE,
    Command,
)
from exchange.trading.core.constants import (
    BUY,
    CANCEL_ONLY,
    FOK,
    HALTED,
    LIMIT,
    MARKET,
    MAX_AMOUNT,
    MAX_TICKS,
    OPEN,
    PPM,
    STOP,
    STOP_LIMIT,
)
from exchange.trading.core.matching import fillable, would_cross
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
    STOP_ALREADY_REACHED,
    TOO_MANY_OPEN_ORDERS,
    UNKNOWN_SYMBOL,
)


def entry_refusal(state: State, market_index: int) -> int:
    """Why no new order may come in at all."""
    if state.maintenance:
        return MAINTENANCE
    if state.circuit_breaker:
        return CIRCUIT_BREAKER
    if not state.accept_new_orders:
        return NEW_ORDERS_DISABLED
    if not 0 <= market_index < len(state.markets):
        return UNKNOWN_SYMBOL
    return MARKET_CANCEL_ONLY if state.markets[market_index].mode == CANCEL_ONLY else MARKET_HALTED


def working_price(market: Market, command: Command) -> int:
    """The limit at which the order may trade: its own, or for MARKET and STOP the protection price; 0: none found."""
    order_type: int = command[P_TYPE]
    price: int = command[P_PRICE]
    if order_type in (LIMIT, STOP_LIMIT):
        return price
    side: int = command[P_SIDE]
    if order_type == STOP:
        return protected(market, side, command[P_STOP])
    if price < 0:
        return 0
    if price == 0:
        touch = book.best_price(market.asks if side == BUY else market.bids)
        if touch == 0:
            return 0
        price = protected(market, side, touch)
    # Beyond the largest price it stays what it is, too large.
    if side == BUY:
        return min(price, market.band_high) if market.band_high < MAX_TICKS else price
    return max(price, market.band_low)


def protected(market: Market, side: int, price: int) -> int:
    """A price moved against the order by the market's protection, rounded towards the price given, at least one tick."""
    width = price * market.protection_ppm // PPM
    return min(price + width, MAX_TICKS) if side == BUY else max(price - width, 1)


def set_entry(state: State) -> None:
    """Work out which markets take new orders; whenever a mode or a switch has changed."""
    taking = state.accept_new_orders and not state.maintenance and not state.circuit_breaker
    state.entry = {market.index: market for market in state.markets if taking and market.mode == OPEN}


def set_band(market: Market) -> None:
    """Work out the lowest and highest price allowed; after each command that traded, and when rules have changed."""
    reference = market.last_price or market.reference_price
    if market.band_ppm == 0 or reference == 0:
        market.band_low = 1
        market.band_high = MAX_TICKS
        return
    width = reference * market.band_ppm // PPM
    market.band_low = max(reference - width, 1)
    market.band_high = min(reference + width, MAX_TICKS)


def order_refusal(state: State, account: Account, market: Market, command: Command, price: int, stp: int) -> int:
    """Why this order may not come in, funds aside."""
    lots: int = command[P_LOTS]
    side: int = command[P_SIDE]
    order_type: int = command[P_TYPE]
    if price <= 0 and order_type == MARKET:
        return NO_LIQUIDITY
    reason = size_refusal(market, price, lots)
    if reason != DONE:
        return reason
    notional = price * lots * market.quote_per_tick_lot
    if order_type == LIMIT:
        if notional < market.min_notional:
            return NOTIONAL_TOO_SMALL
        if not market.band_low <= price <= market.band_high:
            return PRICE_OUT_OF_BAND
        if command[P_POST_ONLY] and would_cross(market, side, price):
            return POST_ONLY_WOULD_CROSS
    elif order_type == MARKET:
        if not (market.asks if side == BUY else market.bids).keys:
            return NO_LIQUIDITY
    else:
        reason = _stop_refusal(market, command, price, notional)
        if reason != DONE:
            return reason
    expire_ns: int = command[P_EXPIRE]
    if expire_ns != 0 and expire_ns <= state.time_ns:
        return EXPIRE_TIME_PASSED
    if keys.too_many_open(state, account, command):
        return TOO_MANY_OPEN_ORDERS
    if command[P_TIF] == FOK and not fillable(market, account, side, price, lots, stp):
        return FOK_NOT_FILLABLE
    return DONE


def _stop_refusal(market: Market, command: Command, price: int, notional: int) -> int:
    stop: int = command[P_STOP]
    if stop <= 0 or stop > MAX_TICKS:
        return NUMBER_TOO_LARGE
    last = market.last_price
    if last and (last >= stop if command[P_SIDE] == BUY else last <= stop):
        return STOP_ALREADY_REACHED
    if command[P_TYPE] == STOP_LIMIT:
        if notional < market.min_notional:
            return NOTIONAL_TOO_SMALL
        width = stop * market.band_ppm // PPM
        if market.band_ppm and (price < stop - width or price > stop + width):
            return PRICE_OUT_OF_BAND
    return DONE


def size_refusal(market: Market, price: int, lots: int) -> int:
    """Whether price, quantity or their product is beyond the market's bounds, or beyond what the engine holds exactly
    with room for fees.
    """
    if price <= 0:
        return NUMBER_TOO_LARGE
    if lots < market.min_lots or lots <= 0:
        return QUANTITY_TOO_SMALL
    if market.max_lots and lots > market.max_lots:
        return QUANTITY_TOO_LARGE
    if price > MAX_TICKS or lots > market.most_lots:
        return NUMBER_TOO_LARGE
    if price * lots * market.quote_per_tick_lot > MAX_AMOUNT:
        return NUMBER_TOO_LARGE
    return DONE


def change_refusal(order: Order | None) -> int:
    """Why an order may not be cancelled or reduced."""
    if order is None:
        return ORDER_NOT_FOUND
    if order.lots_open == 0:
        return ORDER_CLOSED
    if order.market.mode == HALTED:
        return MARKET_HALTED
    return DONE


def replace_refusal(state: State, order: Order | None, command: Command) -> int:
    """Why an order may not be replaced; nothing has changed then."""
    reason = change_refusal(order)
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
    reason = size_refusal(market, price, lots)
    if reason != DONE:
        return reason
    # Replaced again and again, an order could trade more in all than 64 bits hold.
    if order.notional + price * lots * market.quote_per_tick_lot > MAX_AMOUNT:
        return NUMBER_TOO_LARGE
    if (order.lots_filled + lots) * market.base_per_lot > MAX_AMOUNT:
        return NUMBER_TOO_LARGE
    if price * lots * market.quote_per_tick_lot < market.min_notional:
        return NOTIONAL_TOO_SMALL
    if not market.band_low <= price <= market.band_high:
        return PRICE_OUT_OF_BAND
    if order.command[P_POST_ONLY] and would_cross(market, order.side, price):
        return POST_ONLY_WOULD_CROSS
    balance = order.account.balances[market.quote if order.side == BUY else market.base]
    if money.hold_for(order, price, lots) - order.held > balance.available:
        return INSUFFICIENT_FUNDS
    return DONE

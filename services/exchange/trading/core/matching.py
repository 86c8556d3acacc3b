"""Matching: an incoming order against the other side of its book, price first, then time."""

from __future__ import annotations

from exchange.trading.core import book, keys, money
from exchange.trading.core.commands import P_EXPIRE, P_STOP
from exchange.trading.core.constants import (
    BUY,
    CANCEL_SELF_TRADE,
    STP_CANCEL_NEWEST,
    STP_CANCEL_OLDEST,
    STP_NONE,
)
from exchange.trading.core.events import ORDER_CANCELLED, TRADE, Event
from exchange.trading.core.model import Account, Level, Market, Order, State


def would_cross(market: Market, side: int, price: int) -> bool:
    """Whether an order of this side at this price would trade at once."""
    opposite = market.asks if side == BUY else market.bids
    return bool(opposite.keys) and opposite.keys[-1] >= price * opposite.sign


def fillable(market: Market, account: Account, side: int, price: int, lots: int, stp: int) -> bool:
    """Whether `lots` can trade at once and whole, own orders treated as the self-trade prevention would."""
    opposite = market.asks if side == BUY else market.bids
    threshold = price * opposite.sign
    for key in reversed(opposite.keys):
        if key < threshold:
            return False
        level = opposite.levels[key * opposite.sign]
        if stp == STP_NONE:
            lots -= level.lots
            if lots <= 0:
                return True
            continue
        maker = level.head
        while maker is not None:
            if maker.account is not account:
                lots -= maker.lots_open
                if lots <= 0:
                    return True
            elif stp != STP_CANCEL_OLDEST:
                return False
            maker = maker.next
    return False


def match(state: State, taker: Order, stp: int, events: list[Event]) -> bool:
    """Trade the taker against the book until it is filled, its price is passed, or self-trade prevention stops it.

    Appends TRADE events, and ORDER_CANCELLED for own orders that were in the way. Answers whether self-trade
    prevention stopped the taker; what is left of it is the caller's.
    """
    market = taker.market
    opposite = market.asks if taker.side == BUY else market.bids
    buying = taker.side == BUY
    limit: int = taker.price
    threshold = -limit if buying else limit
    keys = opposite.keys
    while taker.lots_open > 0 and keys:
        key = keys[-1]
        if key < threshold:
            break
        level = opposite.levels[-key if buying else key]
        maker = level.head
        while maker is not None and taker.lots_open > 0:
            following = maker.next
            if stp != STP_NONE and maker.account is taker.account:
                if stp != STP_CANCEL_NEWEST:
                    cancel_open(state, maker, CANCEL_SELF_TRADE, events)
                if stp != STP_CANCEL_OLDEST:
                    return True
            else:
                _trade(state, market, level, maker, taker, events)
            maker = following
        # An own order that was cancelled as the last of its level has dropped the level already.
        if level.count == 0 and keys and keys[-1] == key:
            book.drop_level(opposite, level)
    return False


def _trade(
    state: State,
    market: Market,
    level: Level,
    maker: Order,
    taker: Order,
    events: list[Event],
) -> None:
    """One execution at the maker's price; a filled maker leaves its level, which may stay behind empty."""
    maker_open = maker.lots_open
    taker_open = taker.lots_open
    lots = min(taker_open, maker_open)
    maker_open -= lots
    taker_open -= lots
    maker.lots_open = maker_open
    taker.lots_open = taker_open
    price: int = level.price
    notional = price * lots * market.quote_per_tick_lot
    maker_fee = money.charge(maker, notional, maker.maker_ppm)
    taker_fee = money.charge(taker, notional, taker.taker_ppm)
    if taker.side == BUY:
        released = money.settle_buyer(taker, market, lots, notional + taker_fee)
        money.settle_seller(maker, market, lots, notional - maker_fee)
    else:
        released = money.settle_buyer(maker, market, lots, notional + maker_fee)
        money.settle_seller(taker, market, lots, notional - taker_fee)
    if maker_fee or taker_fee:
        state.fees.balance(market.quote).available += maker_fee + taker_fee
    index = state.trades = state.trades + 1
    maker.lots_filled += lots
    maker.notional += notional
    taker.lots_filled += lots
    taker.notional += notional
    market.last_price = price
    level.lots -= lots
    maker.updated_sequence = state.sequence
    maker.updated_ns = state.time_ns
    if maker_open == 0:
        after = maker.next
        level.head = after
        if after is None:
            level.tail = None
        else:
            after.prev = None
            maker.next = None
        maker.level = None
        level.count -= 1
        finish(state, maker)
    events.append((
        TRADE, index, market.index, level.price, lots, taker.side,
        maker.order_id, taker.order_id, maker.account.name, taker.account.name, maker_fee, taker_fee, released,
        maker_open, maker.lots_filled, maker.notional, maker.fee_paid,
        taker_open, taker.lots_filled, taker.notional, taker.fee_paid,
    ))  # fmt: skip


def cancel_open(state: State, order: Order, reason: int, events: list[Event]) -> None:
    """End an open order, resting or asleep or just arrived, and give back what it holds."""
    market = order.market
    resting = order.level is not None
    if resting:
        book.remove(order)
    elif order.waiting:
        state.triggered.remove(order)
        order.waiting = False
    elif order.command[P_STOP] != 0 and not order.triggered:
        book.unsleep(market, order)
    lots = order.lots_open
    released = order.held
    balance = order.balance
    balance.held -= released
    balance.available += released
    order.held = 0
    order.lots_cancelled = lots
    order.lots_open = 0
    order.cancel_reason = reason
    order.updated_ns = state.time_ns
    order.updated_sequence = state.sequence
    events.append((
        ORDER_CANCELLED, order.order_id, order.account.name, market.index, order.side, order.price,
        lots, reason, released, resting, order.lots_filled, order.notional, order.fee_paid,
    ))  # fmt: skip
    finish(state, order)


def finish(state: State, order: Order) -> None:
    """An order has ended: it is no longer open, and is kept until as many as allowed have ended after it."""
    account = order.account
    del account.orders[order.order_id]
    if account.open_by_key:
        keys.closed(account, order.command)
    account.finished.append(order)
    finished = state.finished
    finished.append(order)
    if state.timers_live != 0 and order.command[P_EXPIRE] != 0:
        state.timers_live -= 1
    if len(finished) > state.max_finished_orders:
        forget_finished(state)


def forget_finished(state: State) -> None:
    """Forget the oldest of the finished orders beyond as many as are kept."""
    finished = state.finished
    while len(finished) > state.max_finished_orders:
        oldest = finished.popleft()
        oldest.account.finished.popleft()
        del state.orders[oldest.order_id]

"""Expiry times of GTD orders: a heap of (time, order id), next first. Entries of orders that ended before linger in it
until they come up, or until they are too many.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from exchange.trading.core.model import Order, State

TIMER_SLACK = 1_024
"""Dead entries tolerated beyond as many as there are live ones, before the heap is built anew."""


def add(state: State, expire_ns: int, order_id: int) -> None:
    """Set the timer of an order that has just been accepted."""
    state.timers_live += 1
    timers = state.timers
    heappush(timers, (expire_ns, order_id))
    if len(timers) > 2 * state.timers_live + TIMER_SLACK:
        state.timers = [entry for entry in timers if _open(state, entry[1]) is not None]
        heapify(state.timers)


def next_due(state: State) -> Order | None:
    """The open order whose time came first and has come, taken off the heap."""
    timers = state.timers
    while timers and timers[0][0] <= state.time_ns:
        order = _open(state, heappop(timers)[1])
        if order is not None:
            return order
    return None


def next_ns(state: State) -> int:
    """When the next open order expires; -1: never."""
    timers = state.timers
    while timers and _open(state, timers[0][1]) is None:
        heappop(timers)
    return timers[0][0] if timers else -1


def _open(state: State, order_id: int) -> Order | None:
    order = state.orders.get(order_id)
    return order if order is not None and order.lots_open > 0 else None

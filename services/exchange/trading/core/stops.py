"""Stop orders: they sleep under their trigger price, and wake by the last trade of a command, once it has completed.

Those that are due join one queue, by trigger price and then by age (buys from the lowest trigger up, sells from the
highest down; where both are due, buys first), and stay due even if the price turns. At most MAX_TRIGGERS_PER_COMMAND of
them are matched behind one command; the others wait for the next command or tick.
"""

from __future__ import annotations

from exchange.trading.core.commands import P_STP
from exchange.trading.core.constants import MAX_TRIGGERS_PER_COMMAND, OPEN
from exchange.trading.core.events import ORDER_TRIGGERED, Event
from exchange.trading.core.model import Market, State
from exchange.trading.core.orders import execute


def collect(state: State, market: Market) -> None:
    """Queue every sleeper whose trigger the last price has reached."""
    last = market.last_price
    if last == 0 or not (market.stop_buys or market.stop_sells):
        return
    for sleepers, limit in ((market.stop_buys, last), (market.stop_sells, -last)):
        due = 0
        while due < len(sleepers) and sleepers[due][0] <= limit:
            order = state.orders[sleepers[due][1]]
            order.triggered = order.waiting = True
            state.triggered.append(order)
            state.stirred = True
            due += 1
        if due:
            del sleepers[:due]


def may_run(state: State) -> bool:
    """Whether woken orders may trade now: no switch stops new orders, and some woken order's market is open."""
    if state.maintenance or state.circuit_breaker:
        return False
    return any(order.market.mode == OPEN for order in state.triggered)


def run(state: State, events: list[Event]) -> None:
    """Match woken orders in turn; what they trade may wake more. Those of markets that are not open keep their turn."""
    waiting = []
    budget = MAX_TRIGGERS_PER_COMMAND
    while state.triggered and budget > 0:
        order = state.triggered.popleft()
        market = order.market
        if market.mode != OPEN:
            waiting.append(order)
            continue
        budget -= 1
        order.waiting = False
        order.updated_ns = state.time_ns
        order.updated_sequence = state.sequence
        lots_open = order.lots_open
        position = len(events)
        events.append(())
        stp: int = order.command[P_STP]
        execute(state, order, stp or market.default_stp, events)
        events[position] = (
            ORDER_TRIGGERED,
            order.order_id,
            order.account.name,
            market.index,
            order.side,
            order.price,
            order.lots_open if order.level is not None else 0,
            lots_open,
        )
        collect(state, market)
    state.traded = None
    state.triggered.extendleft(reversed(waiting))

"""Short results of commands, for sessions and batches."""

from __future__ import annotations

from exchange.runtime.errors import ServiceError, message_of
from exchange.trading.core.commands import C_KIND, C_REQUEST_ID, P_MARKET, PLACE, Command
from exchange.trading.core.events import (
    R_CANCEL_REASON,
    R_COUNT,
    R_FILLED,
    R_NOTIONAL,
    R_OPEN,
    R_ORDER_ID,
    R_REASON,
    R_SEQUENCE,
    R_STATUS,
    Result,
)
from exchange.trading.service.desk import Desk
from pincex.trading.v1.order_session_pb2 import CommandResult


def command_result(desk: Desk, result: Result, command: Command, target: CommandResult) -> None:
    """Fill in what became of a command that reached the core."""
    kind = command[C_KIND]
    target.sequence = result[R_SEQUENCE]
    reason = result[R_REASON]
    if kind == PLACE:
        client_order_id = command[C_REQUEST_ID]
        if client_order_id:
            target.client_order_id = client_order_id
        market = command[P_MARKET]
    else:
        market = -1
    if reason:
        target.reason = reason
        target.message = message_of(reason)
        return
    order_id = result[R_ORDER_ID]
    if order_id == 0:
        target.cancelled_count = result[R_COUNT]
        return
    target.order_id = str(order_id)
    target.status = result[R_STATUS]
    lots_open, lots_filled = result[R_OPEN], result[R_FILLED]
    if result[R_CANCEL_REASON]:
        target.cancel_reason = result[R_CANCEL_REASON]
    if not lots_open and not lots_filled:
        return
    if market < 0:
        order = desk.state.orders.get(order_id)
        if order is None:
            return
        market = order.market.index
    units = desk.units(market)
    if lots_open:
        target.open_quantity = units.quantity(lots_open)
    if lots_filled:
        target.filled_quantity = units.quantity(lots_filled)
        target.filled_notional = units.quote(result[R_NOTIONAL])


def refused_result(error: ServiceError) -> CommandResult:
    """What became of a command that did not reach the core."""
    return CommandResult(reason=error.reason, message=error.message)  # type: ignore[arg-type]

"""Short results of commands, for sessions and batches."""

from __future__ import annotations

from exchange.runtime.errors import ServiceError, message_of
from exchange.trading.core.commands import C_KIND, C_REQUEST_ID, PLACE, Command
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


def command_result(desk: Desk, result: Result, command: Command, market: int = -1) -> CommandResult:
    """What became of a command that reached the core. `market` is its market's number where PLACE does not say it."""
    kind = command[C_KIND]
    reason = result[R_REASON]
    if reason:
        message = CommandResult(sequence=result[R_SEQUENCE], reason=reason, message=message_of(reason))
        if kind == PLACE:
            message.client_order_id = command[C_REQUEST_ID]
        return message
    order_id = result[R_ORDER_ID]
    if order_id == 0:
        return CommandResult(sequence=result[R_SEQUENCE], cancelled_count=result[R_COUNT])
    message = CommandResult(order_id=str(order_id), sequence=result[R_SEQUENCE], status=result[R_STATUS])
    if kind == PLACE:
        market = command[6]
        message.client_order_id = command[C_REQUEST_ID]
    elif market < 0:
        order = desk.state.orders.get(order_id)
        if order is None:
            return message
        market = order.market.index
    units = desk.units(market)
    if result[R_OPEN]:
        message.open_quantity = units.quantity(result[R_OPEN])
    if result[R_FILLED]:
        message.filled_quantity = units.quantity(result[R_FILLED])
        message.filled_notional = units.quote(result[R_NOTIONAL])
    if result[R_CANCEL_REASON]:
        message.cancel_reason = result[R_CANCEL_REASON]
    return message


def refused_result(error: ServiceError) -> CommandResult:
    """What became of a command that did not reach the core."""
    return CommandResult(reason=error.reason, message=error.message)  # type: ignore[arg-type]

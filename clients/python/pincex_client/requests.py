"""Builds the messages that change orders, for unary calls and order sessions alike.

Each carries an id, the caller's or a fresh one, so that it may be repeated. Amounts are Decimal, int or plain text.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

from google.protobuf.message import Message

from pincex.trading.v1 import order_commands_pb2 as commands
from pincex.trading.v1 import types_pb2
from pincex_client.convert import now_timestamp, plain_decimal, to_timestamp
from pincex_client.transport import new_id

Amount = Decimal | int | str


def enum_value(enum: str, name: str) -> Any:
    """Number of an enum value by its name, any case; ValueError names the choices."""
    return named_value(getattr(types_pb2, enum), enum, name)


def named_value(kind: Any, what: str, name: str) -> Any:
    """Number of a value of any generated enum by its name, any case; ValueError names the choices."""
    wanted = name.strip().upper().replace("-", "_")
    values: dict[str, int] = {key: number for key, number in kind.items() if number != 0}
    if wanted not in values:
        raise ValueError(f"{name!r} is no {what}: one of {', '.join(values)}")
    return values[wanted]


def side_value(side: str) -> Any:
    """Number of a side; `b` and `s` will do."""
    short = {"B": "BUY", "S": "SELL"}
    return enum_value("Side", short.get(side.strip().upper(), side))


def place_order(
    symbol: str,
    side: str,
    quantity: Amount,
    price: Amount | None = None,
    *,
    order_type: str = "",
    time_in_force: str = "",
    post_only: bool = False,
    stop_price: Amount | None = None,
    self_trade_prevention: str = "",
    client_order_id: str = "",
    expire_time: datetime | None = None,
) -> commands.PlaceOrderRequest:
    """A new order. Without `order_type` the prices say which: LIMIT, MARKET, STOP or STOP_LIMIT."""
    if not order_type:
        order_type = _type_of_prices(has_price=price is not None, has_stop=stop_price is not None)
    request = commands.PlaceOrderRequest(
        symbol=symbol,
        side=side_value(side),
        order_type=enum_value("OrderType", order_type),
        quantity=plain_decimal(quantity, "quantity"),
        post_only=post_only,
        client_order_id=client_order_id or new_id(),
    )
    if price is not None:
        request.price = plain_decimal(price, "price")
    if stop_price is not None:
        request.stop_price = plain_decimal(stop_price, "stop_price")
    if time_in_force:
        request.time_in_force = enum_value("TimeInForce", time_in_force)
    if self_trade_prevention:
        request.self_trade_prevention = enum_value("SelfTradePrevention", self_trade_prevention)
    if expire_time is not None:
        request.expire_time.CopyFrom(to_timestamp(expire_time))
    return request


def cancel_order(order_id: str = "", *, client_order_id: str = "", request_id: str = "") -> commands.CancelOrderRequest:
    """Cancel one order, named by one of the two ids."""
    return commands.CancelOrderRequest(
        order_id=order_id, client_order_id=client_order_id, request_id=request_id or new_id()
    )


def replace_order(
    order_id: str = "",
    *,
    price: Amount,
    quantity: Amount,
    client_order_id: str = "",
    expected_filled_quantity: Amount | None = None,
    request_id: str = "",
) -> commands.ReplaceOrderRequest:
    """Give an order a new price and open quantity."""
    request = commands.ReplaceOrderRequest(
        order_id=order_id,
        client_order_id=client_order_id,
        price=plain_decimal(price, "price"),
        quantity=plain_decimal(quantity, "quantity"),
        request_id=request_id or new_id(),
    )
    if expected_filled_quantity is not None:
        request.expected_filled_quantity = plain_decimal(expected_filled_quantity, "expected_filled_quantity")
    return request


def reduce_order(
    order_id: str = "", *, quantity: Amount, client_order_id: str = "", request_id: str = ""
) -> commands.ReduceOrderRequest:
    """Take quantity off an order."""
    return commands.ReduceOrderRequest(
        order_id=order_id,
        client_order_id=client_order_id,
        quantity=plain_decimal(quantity, "quantity"),
        request_id=request_id or new_id(),
    )


def cancel_all_orders(symbol: str = "", *, request_id: str = "") -> commands.CancelAllOrdersRequest:
    """Cancel all open orders, or those of one symbol."""
    return commands.CancelAllOrdersRequest(symbol=symbol, request_id=request_id or new_id())


def stamp(request: Message) -> None:
    """Write when the request was first made, once: a repeat keeps it, and the exchange refuses one that is too old."""
    if not request.HasField("request_time"):
        request.request_time.CopyFrom(now_timestamp())  # type: ignore[attr-defined]


def _type_of_prices(*, has_price: bool, has_stop: bool) -> str:
    if has_stop:
        return "STOP_LIMIT" if has_price else "STOP"
    return "LIMIT" if has_price else "MARKET"

"""From requests of the contract to commands of the core: every check that needs no state but the market's scales.

What is refused here was never journaled and used up no id. Raises ServiceError only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from exchange.domain.symbols import is_account, is_client_id
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading.core import commands as cmd
from exchange.trading.core.commands import Command
from exchange.trading.core.constants import FOK, GTC, GTD, IOC, LIMIT, MARKET, STOP, STOP_LIMIT
from exchange.trading.limits.sender import NOBODY, Sender
from exchange.trading.service.units import MarketUnits
from pincex.trading.v1 import order_commands_pb2 as pb

MAX_SEQUENCE_DIGITS: Final = 18
_ZERO: Final = re.compile(r"0{1,38}(\.0{1,38})?")

_TIFS: Final = {
    LIMIT: {0: GTC, GTC: GTC, IOC: IOC, FOK: FOK, GTD: GTD},
    MARKET: {0: IOC, IOC: IOC, FOK: FOK},
    STOP: {0: IOC, IOC: IOC},
    STOP_LIMIT: {0: GTC, GTC: GTC, GTD: GTD, IOC: IOC},
}
"""Of each order type: what a time in force of the request, which may be unsaid, means. Others are not allowed."""

M = TypeVar("M", bound=Message)


def refuse(reason: int, field: str, message: str | None = None, value: str | None = None) -> ServiceError:
    """An error about one field."""
    metadata = {"field": field} if value is None else {"field": field, "value": value}
    return ServiceError(reason, message, metadata=metadata)


def nanoseconds(stamp: Timestamp, field: str) -> int:
    """Nanoseconds since 1970 of a timestamp that must lie after it."""
    value = stamp.seconds * 1_000_000_000 + stamp.nanos
    if value <= 0 or value >= 2**62:
        raise refuse(ErrorReason.INVALID_FIELD, field, f"{field} must lie between 1970 and 2116")
    return value


def client_id(text: str, field: str) -> str:
    """A client's own id, or nothing."""
    if text and not is_client_id(text):
        raise refuse(
            ErrorReason.INVALID_FIELD, field, f"{field} must be 1 to 64 printable ASCII characters without spaces", text
        )
    return text


def account_name(text: str, field: str = "account") -> str:
    """An account named in a request."""
    if not text:
        raise refuse(ErrorReason.FIELD_REQUIRED, field)
    if not is_account(text):
        raise refuse(
            ErrorReason.INVALID_FIELD, field, f"{field} must be 1 to 64 letters, digits, '_', '.' or '-'", text
        )
    return text


def order_number(text: str, field: str = "order_id") -> int:
    """The number in an order id. An id that this exchange cannot have made is one that it does not know."""
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= MAX_SEQUENCE_DIGITS) or text[0] == "0":
        raise ServiceError(ErrorReason.ORDER_NOT_FOUND, metadata={field: text})
    return int(text)


def place(
    request: pb.PlaceOrderRequest,
    units: MarketUnits,
    account: str,
    session: str = "",
    number: int = 0,
    sender: Sender = NOBODY,
) -> Command:
    """The PLACE command of a request; `sender` stands at its end.

    Each order of a session passes here. Reading a field of a message costs as much as ten steps of Python, so each is read
    once, and texts that repeat are looked up before anything is called.
    """
    side = request.side
    if side != 1 and side != 2:  # noqa: PLR1714 - the hot path compares twice rather than build a tuple
        raise _bad_enum("side", side)
    order_type: int = request.order_type
    given_tif: int = request.time_in_force
    try:
        tif = _TIFS[order_type][given_tif]
    except KeyError:
        raise _bad_tif(order_type, given_tif) from None
    stp: int = request.self_trade_prevention
    if stp and not 0 < stp <= 4:
        raise _bad_enum("self_trade_prevention", stp)
    quantity_text = request.quantity
    lots = units.known_lots.get(quantity_text) or units.lots(quantity_text, "quantity")
    price_text = request.price
    if order_type == LIMIT:
        if not price_text:
            raise refuse(ErrorReason.FIELD_REQUIRED, "price")
        price = units.known_ticks.get(price_text) or units.ticks(price_text, "price")
        stop = 0
        if request.stop_price:
            raise _no_stop_price()
    else:
        price, stop = _other_prices(order_type, price_text, request.stop_price, units)
    post_only = 0
    if request.post_only:
        if order_type != LIMIT or tif not in (GTC, GTD):
            raise refuse(ErrorReason.FIELD_NOT_ALLOWED, "post_only", "only LIMIT with GTC or GTD may be post-only")
        post_only = 1
    expire_ns = 0
    if tif == GTD:
        if not request.HasField("expire_time"):
            raise refuse(ErrorReason.FIELD_REQUIRED, "expire_time")
        expire_ns = nanoseconds(request.expire_time, "expire_time")
    elif request.HasField("expire_time"):
        raise refuse(ErrorReason.FIELD_NOT_ALLOWED, "expire_time", "only GTD takes an expire time")
    request_time = nanoseconds(request.request_time, "request_time") if request.HasField("request_time") else 0
    coid = request.client_order_id
    if coid and not is_client_id(coid):
        client_id(coid, "client_order_id")
    return (
        cmd.PLACE, account, session, number, coid, request_time,
        units.index, side, order_type, tif, post_only, stp, lots, price, stop, expire_ns, *sender,
    )  # fmt: skip


def _bad_tif(order_type: int, tif: int) -> ServiceError:
    """Why an order type and a time in force do not go together: either may be unknown."""
    if order_type not in _TIFS:
        return _bad_enum("order_type", order_type)
    if not GTC <= tif <= GTD:
        return _bad_enum("time_in_force", tif)
    return refuse(ErrorReason.FIELD_NOT_ALLOWED, "time_in_force", "this order type does not take this time in force")


def _no_stop_price() -> ServiceError:
    return refuse(ErrorReason.FIELD_NOT_ALLOWED, "stop_price", "only STOP and STOP_LIMIT take a stop price")


def _other_prices(order_type: int, price_text: str, stop_text: str, units: MarketUnits) -> tuple[int, int]:
    """(price, stop price) in ticks of an order that is no LIMIT; 0 for none."""
    price = 0
    if price_text:
        if order_type == STOP:
            raise refuse(ErrorReason.FIELD_NOT_ALLOWED, "price", "a STOP order takes no price: use STOP_LIMIT")
        price = units.ticks(price_text, "price")
    elif order_type == STOP_LIMIT:
        raise refuse(ErrorReason.FIELD_REQUIRED, "price")
    if order_type == MARKET:
        if stop_text:
            raise _no_stop_price()
        return price, 0
    return price, units.ticks(stop_text, "stop_price")


def check_filter(values: Iterable[int], highest: int, field: str) -> None:
    """Check the values of an enum that a list is filtered by. Raises ServiceError UNKNOWN_ENUM_VALUE."""
    for value in values:
        if not 1 <= value <= highest:
            raise refuse(ErrorReason.UNKNOWN_ENUM_VALUE, field, f"{field} {value} is not known", str(value))


def _bad_enum(field: str, value: int) -> ServiceError:
    if value == 0:
        return refuse(ErrorReason.UNKNOWN_ENUM_VALUE, field, f"{field} is required")
    return refuse(ErrorReason.UNKNOWN_ENUM_VALUE, field, f"{field} {value} is not known", str(value))


Changing = pb.CancelOrderRequest | pb.ReduceOrderRequest | pb.ReplaceOrderRequest


def named_order(request: Changing) -> tuple[int, str]:
    """(order number or 0, client order id or ""): exactly one is given."""
    order_id = request.order_id
    coid = request.client_order_id
    if order_id:
        if coid:
            raise refuse(ErrorReason.FIELD_NOT_ALLOWED, "client_order_id", "name the order by one id, not by both")
        return order_number(order_id), ""
    if not coid:
        raise refuse(ErrorReason.FIELD_REQUIRED, "order_id", "order_id or client_order_id is required")
    return 0, client_id(coid, "client_order_id")


def _request_time(request: Changing | pb.CancelAllOrdersRequest) -> int:
    return nanoseconds(request.request_time, "request_time") if request.HasField("request_time") else 0


def cancel(request: pb.CancelOrderRequest, account: str, session: str = "", number: int = 0) -> Command:
    """The CANCEL command of a request."""
    order_id, coid = named_order(request)
    request_id = client_id(request.request_id, "request_id")
    return (cmd.CANCEL, account, session, number, request_id, _request_time(request), order_id, coid)


def reduce(
    request: pb.ReduceOrderRequest, units: MarketUnits, account: str, session: str = "", number: int = 0
) -> Command:
    """The REDUCE command of a request; `units` are those of the order's market."""
    order_id, coid = named_order(request)
    lots = units.lots(request.quantity, "quantity")
    request_id = client_id(request.request_id, "request_id")
    return (cmd.REDUCE, account, session, number, request_id, _request_time(request), order_id, coid, lots)


def replace(
    request: pb.ReplaceOrderRequest, units: MarketUnits, account: str, session: str = "", number: int = 0
) -> Command:
    """The REPLACE command of a request; `units` are those of the order's market."""
    order_id, coid = named_order(request)
    lots = units.lots(request.quantity, "quantity")
    if not request.price:
        raise refuse(ErrorReason.FIELD_REQUIRED, "price")
    price = units.ticks(request.price, "price")
    expected = -1
    if request.expected_filled_quantity:
        text = request.expected_filled_quantity
        expected = 0 if _ZERO.fullmatch(text) else units.lots(text, "expected_filled_quantity")
    request_id = client_id(request.request_id, "request_id")
    return (
        cmd.REPLACE, account, session, number, request_id, _request_time(request),
        order_id, coid, lots, price, expected,
    )  # fmt: skip


def cancel_all(
    request: pb.CancelAllOrdersRequest, market: int, account: str, session: str = "", number: int = 0
) -> Command:
    """The CANCEL_ALL command of a request."""
    request_id = client_id(request.request_id, "request_id")
    return (cmd.CANCEL_ALL, account, session, number, request_id, _request_time(request), market)

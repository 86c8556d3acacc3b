"""Finding the order that a request names, before the core sees it: its market's scales are needed to read amounts."""

from __future__ import annotations

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading.core.orders import find_order
from exchange.trading.service import requests
from exchange.trading.service.desk import Desk
from exchange.trading.service.units import MarketUnits


def units_of_order(desk: Desk, account: str, request: requests.Changing) -> MarketUnits:
    """The scales of the market of the account's own order. Raises ServiceError ORDER_NOT_FOUND, foreign ones alike."""
    order_id, client_order_id = requests.named_order(request)
    holder = desk.account(account)
    order = find_order(desk.state, holder, order_id, client_order_id) if holder is not None else None
    if order is None:
        key = "order_id" if order_id else "client_order_id"
        raise ServiceError(ErrorReason.ORDER_NOT_FOUND, metadata={key: order_id or client_order_id})
    return desk.units(order.market.index)

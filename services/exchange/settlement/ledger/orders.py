"""The projection of orders: where each one stands, for SQL."""

from __future__ import annotations

from typing import Final

from exchange.domain.decimals import format_units, parse_units

PENDING: Final = "PENDING"
PARTIAL: Final = "PARTIAL"
FILLED: Final = "FILLED"
CANCELLED: Final = "CANCELLED"


class OrderRow:
    """One order. Quantities are whole units of 10^-`decimals`; prices are text as the engine writes them, "" for none."""

    __slots__ = (
        "cancel_reason",
        "client_order_id",
        "created",
        "decimals",
        "filled",
        "is_new",
        "open",
        "order_id",
        "order_type",
        "price",
        "quantity",
        "sequence",
        "side",
        "status",
        "stop_price",
        "symbol",
        "time_in_force",
        "updated",
        "user_id",
    )

    def __init__(
        self,
        order_id: int,
        user_id: str,
        client_order_id: str,
        symbol: str,
        side: str,
        order_type: str,
        time_in_force: str,
        quantity: int,
        price: str,
        stop_price: str,
        decimals: int,
        created: str,
        sequence: int,
    ) -> None:
        self.order_id = order_id
        self.user_id = user_id
        self.client_order_id = client_order_id
        self.symbol = symbol
        self.side = side
        self.order_type = order_type
        self.time_in_force = time_in_force
        self.quantity = quantity
        self.price = price
        self.stop_price = stop_price
        self.decimals = decimals
        self.created = created
        self.filled = 0
        self.open = quantity
        self.status = PENDING
        self.cancel_reason = ""
        self.updated = created
        self.sequence = sequence
        # Not stored yet: made by the batch that is being gathered.
        self.is_new = True

    def text(self, units: int) -> str:
        """A quantity as decimal text."""
        return format_units(units, self.decimals)


class Orders:
    """All open orders, and those that the present batch has touched."""

    def __init__(self) -> None:
        self.open: dict[int, OrderRow] = {}
        self.touched: dict[int, OrderRow] = {}

    def accepted(self, order: OrderRow) -> None:
        """A new one."""
        self.open[order.order_id] = order
        self.touched[order.order_id] = order

    def traded(self, order_id: int, quantity: int, open_quantity: int, moment: str, sequence: int) -> None:
        """It was filled by so much, and so much is open. Raises KeyError for one that is not open."""
        order = self._touch(order_id, moment, sequence)
        order.filled += quantity
        order.open = open_quantity
        if open_quantity:
            order.status = PARTIAL
        else:
            order.status = FILLED
            del self.open[order_id]

    def reduced(self, order_id: int, reduced: str, open_quantity: str, moment: str, sequence: int) -> None:
        """It was made smaller."""
        order = self._touch(order_id, moment, sequence)
        order.quantity -= parse_units(reduced, order.decimals)
        order.open = parse_units(open_quantity, order.decimals)

    def replaced(self, order_id: int, price: str, open_quantity: str, moment: str, sequence: int) -> None:
        """It has a new price and open quantity."""
        order = self._touch(order_id, moment, sequence)
        order.open = parse_units(open_quantity, order.decimals)
        order.quantity = order.filled + order.open
        order.price = price

    def triggered(self, order_id: int, price: str, moment: str, sequence: int) -> None:
        """A stop order woke up."""
        self._touch(order_id, moment, sequence).price = price

    def cancelled(self, order_id: int, reason: str, moment: str, sequence: int) -> None:
        """It ended before it was filled whole."""
        order = self._touch(order_id, moment, sequence)
        order.open = 0
        order.status = CANCELLED
        order.cancel_reason = reason
        del self.open[order_id]

    def _touch(self, order_id: int, moment: str, sequence: int) -> OrderRow:
        order = self.open[order_id]
        order.updated = moment
        order.sequence = sequence
        self.touched[order_id] = order
        return order

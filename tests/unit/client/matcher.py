"""An independent price-time matcher, written from the description of the recorded flow: the naive reference."""

from bisect import insort
from collections import OrderedDict
from dataclasses import dataclass, field
from decimal import Decimal

Made = tuple[str, str, Decimal, Decimal]  # aggressor, resting, price, quantity


@dataclass
class Resting:
    side: str
    price: Decimal
    quantity: Decimal


@dataclass
class Matcher:
    orders: dict[str, Resting] = field(default_factory=dict)
    levels: dict[str, dict[Decimal, OrderedDict[str, None]]] = field(default_factory=lambda: {"BUY": {}, "SELL": {}})
    keys: dict[str, list[Decimal]] = field(default_factory=lambda: {"BUY": [], "SELL": []})

    def place(self, order_id: str, side: str, price: Decimal, quantity: Decimal, tif: str = "GTC") -> list[Made]:
        other = "SELL" if side == "BUY" else "BUY"
        made: list[Made] = []
        while quantity and self.keys[other]:
            best = self.prices(other)[0]
            if best > price if side == "BUY" else best < price:
                break
            resting_id = next(iter(self.levels[other][best]))
            resting = self.orders[resting_id]
            traded = min(quantity, resting.quantity)
            made.append((order_id, resting_id, best, traded))
            quantity -= traded
            resting.quantity -= traded
            if not resting.quantity:
                self.cancel(resting_id)
        if quantity and tif == "GTC":
            self.orders[order_id] = Resting(side, price, quantity)
            if price not in self.levels[side]:
                self.levels[side][price] = OrderedDict()
                insort(self.keys[side], price)
            self.levels[side][price][order_id] = None
        return made

    def cancel(self, order_id: str) -> Decimal:
        order = self.orders.pop(order_id)
        level = self.levels[order.side][order.price]
        del level[order_id]
        if not level:
            del self.levels[order.side][order.price]
            self.keys[order.side].remove(order.price)
        return order.quantity

    def reduce(self, order_id: str, quantity: Decimal) -> None:
        order = self.orders[order_id]
        order.quantity -= quantity
        if not order.quantity:
            self.cancel(order_id)

    def replace(self, order_id: str, price: Decimal, quantity: Decimal) -> list[Made]:
        side = self.orders[order_id].side
        self.cancel(order_id)
        return self.place(order_id, side, price, quantity)

    def prices(self, side: str) -> list[Decimal]:
        """Best first."""
        return self.keys[side][::-1] if side == "BUY" else self.keys[side]

    def level(self, side: str, price: Decimal) -> tuple[Decimal, int]:
        """Quantity and number of orders."""
        ids = self.levels[side][price]
        return sum((self.orders[order_id].quantity for order_id in ids), Decimal(0)), len(ids)

    def total(self, side: str) -> Decimal:
        return sum((order.quantity for order in self.orders.values() if order.side == side), Decimal(0))

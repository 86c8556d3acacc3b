"""The market maker's account as its own events tell it: open orders, positions, and how far both are."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING

from exchange.market_maker.orders import OwnOrder
from exchange.market_maker.position import Position

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from decimal import Decimal

    from exchange.market_maker.position import Fill
    from exchange.market_maker.rules import MarketRules


@dataclass(frozen=True, slots=True)
class AccountOrder:
    """An order as an event shows it; `open` 0: it has ended."""

    order_id: str
    symbol: str
    side: str
    price: Decimal
    open: Decimal


class AccountBook:
    """`token` continues the events after those that are in it, and is stored with the positions: together they count each
    fill once, whatever stops in between.
    """

    def __init__(self, positions: Mapping[str, Position], token: str) -> None:
        self.token = token
        self.positions = dict(positions)
        self._orders: dict[str, AccountOrder] = {}

    def position(self, symbol: str) -> Position:
        """Of a market; a new one where nothing happened yet."""
        return self.positions.get(symbol) or Position(symbol)

    def begin_anew(self, orders: Iterable[AccountOrder]) -> None:
        """These are all open orders."""
        self._orders = {order.order_id: order for order in orders if order.open}

    def changed(self, order: AccountOrder) -> None:
        """An order as it is now."""
        if order.open:
            self._orders[order.order_id] = order
        else:
            self._orders.pop(order.order_id, None)

    def filled(self, fill: Fill) -> None:
        """An execution."""
        self.positions[fill.symbol] = self.position(fill.symbol).filled(fill)

    def count(self, symbol: str) -> int:
        """Open orders of a market."""
        return sum(order.symbol == symbol for order in self._orders.values())

    def orders(self, rules: MarketRules) -> list[OwnOrder]:
        """Open orders of a market, in its ticks and lots."""
        return [_own(order, rules) for order in self._orders.values() if order.symbol == rules.symbol]


def _own(order: AccountOrder, rules: MarketRules) -> OwnOrder:
    ticks = Fraction(order.price) / Fraction(rules.tick)
    return OwnOrder(
        order_id=order.order_id,
        symbol=order.symbol,
        side=order.side,
        ticks=int(ticks) if ticks.denominator == 1 else 0,
        lots=floor(Fraction(order.open) / Fraction(rules.lot)),
    )

"""One market's book, order by order: price first, then time; kept from events alone, and proved by the engine's hashes.

It is a level book too, so that what is sent by levels and what is sent by orders is one and the same book.
"""

from __future__ import annotations

import sys
from array import array
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from exchange.market_data import events as ev
from exchange.market_data.follower import Inconsistent
from exchange.market_data.scales import Scale
from exchange.runtime.feeds.levels import LevelBook

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHANGED: Final = 0
APPENDED: Final = 1
MOVED: Final = 2


class RestingOrder:
    """An order on the book."""

    __slots__ = ("lots", "order_id", "price", "side")

    def __init__(self, order_id: int, side: int, price: int, lots: int) -> None:
        self.order_id = order_id
        self.side = side
        self.price = price
        self.lots = lots


_UNTOUCHED: Final = (RestingOrder(0, 0, 0, 0), CHANGED)


class OrderBook(LevelBook):
    """Prices in ticks, quantities in lots. `touched` is what to tell of orders since `take_touched`: by order id the
    order, which has no lots where it is gone, and how it changed, in the order in which they got their places.
    """

    def __init__(self, symbol: str, tick_size: str, lot_size: str) -> None:
        super().__init__()
        self.symbol = symbol
        self.prices = Scale(tick_size)
        self.quantities = Scale(lot_size)
        self.orders: dict[int, RestingOrder] = {}
        self.touched: dict[int, tuple[RestingOrder, int]] = {}
        # (side, price) to its orders by priority: a dictionary keeps the order in which they came.
        self._queues: dict[tuple[int, int], dict[int, RestingOrder]] = {}

    def fill(self, resting: Iterable[ev.RestingOrder]) -> None:
        """Take orders as they stand, in the order of priority."""
        for order in resting:
            price, lots = self.prices.count(order.price), self.quantities.count(order.quantity)
            self._append(RestingOrder(order.order_id, order.side, price, lots), APPENDED)
        self.changed.clear()
        self.touched.clear()

    def apply(self, event: ev.Event) -> None:
        """Go on by one event of this market. Raises Inconsistent where it makes no sense here."""
        if isinstance(event, ev.OrderAccepted | ev.OrderTriggered):
            lots = self.quantities.count(event.resting)
            if lots:
                if event.order_id in self.orders:
                    raise self._wrong(event, f"order {event.order_id} rests already")
                self._append(RestingOrder(event.order_id, event.side, self.prices.count(event.price), lots), APPENDED)
        elif isinstance(event, ev.OrderCancelled):
            if event.was_resting:
                self._remove(self._order(event, event.order_id))
        elif isinstance(event, ev.TradeExecuted):
            self._trade(event)
        elif isinstance(event, ev.OrderReplaced):
            self._replace(event)
        elif isinstance(event, ev.OrderReduced):
            # A sleeping stop order may be reduced too.
            order = self.orders.get(event.order_id)
            if order is not None:
                self._set_lots(order, self.quantities.count(event.open_quantity))

    def _trade(self, event: ev.TradeExecuted) -> None:
        maker = self._order(event, event.maker_order_id)
        left = self.quantities.count(event.maker_open)
        if maker.price != self.prices.count(event.price) or maker.lots != left + self.quantities.count(event.quantity):
            raise self._wrong(event, f"order {maker.order_id} has {maker.lots} lots at {maker.price} here")
        if left:
            self._set_lots(maker, left)
        else:
            self._remove(maker)

    def _replace(self, event: ev.OrderReplaced) -> None:
        order = self._order(event, event.order_id)
        lots = self.quantities.count(event.resting)
        if event.kept_place and lots:
            self._set_lots(order, lots)
            return
        is_new = self.touched.get(order.order_id, _UNTOUCHED)[1] == APPENDED
        self._remove(order)
        if lots:
            again = RestingOrder(order.order_id, order.side, self.prices.count(event.price), lots)
            self._append(again, APPENDED if is_new else MOVED)

    def _order(self, event: ev.Event, order_id: int) -> RestingOrder:
        order = self.orders.get(order_id)
        if order is None:
            raise self._wrong(event, f"order {order_id} does not rest here")
        return order

    def _wrong(self, event: ev.Event, why: str) -> Inconsistent:
        return Inconsistent(f"{self.symbol}, sequence {event.sequence}: {type(event).__name__}: {why}")

    def _append(self, order: RestingOrder, how: int) -> None:
        order_id = order.order_id
        self.orders[order_id] = order
        key = (order.side, order.price)
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = {order_id: order}
        else:
            queue[order_id] = order
        self.change(order.side, order.price, order.lots, 1)
        self.touched.pop(order_id, None)
        self.touched[order_id] = (order, how)

    def _remove(self, order: RestingOrder) -> None:
        order_id = order.order_id
        del self.orders[order_id]
        key = (order.side, order.price)
        queue = self._queues[key]
        del queue[order_id]
        if not queue:
            del self._queues[key]
        self.change(order.side, order.price, -order.lots, -1)
        order.lots = 0
        if self.touched.pop(order_id, _UNTOUCHED)[1] != APPENDED:
            self.touched[order_id] = (order, CHANGED)

    def _set_lots(self, order: RestingOrder, lots: int) -> None:
        if lots != order.lots:
            self.change(order.side, order.price, lots - order.lots, 0)
            order.lots = lots
            self.touched.setdefault(order.order_id, (order, CHANGED))

    # --- reading ---

    def in_priority(self) -> Iterator[RestingOrder]:
        """All orders: bids, then asks, each best price first, first come first."""
        for side, levels in ((ev.BUY, self.bids), (ev.SELL, self.asks)):
            for price in levels.best(0):
                yield from self._queues[side, price].values()

    def take_touched(self) -> list[tuple[RestingOrder, int]]:
        """Orders that changed since the last call."""
        touched = list(self.touched.values())
        self.touched.clear()
        return touched

    def is_crossed(self) -> bool:
        """Whether somebody would buy for no less than another one sells, which no engine leaves so."""
        bids, asks = self.bids.keys, self.asks.keys
        return bool(bids) and bool(asks) and bids[-1] >= -asks[-1]

    def book_hash(self) -> str:
        """As docs/FEEDS.md defines it, written from that text: it shall prove the engine's, and so shares nothing with it."""
        values = array("q")
        for order in self.in_priority():
            values.extend((order.side, order.price, order.order_id, order.lots))
        if sys.byteorder == "big":
            values.byteswap()
        return sha256(values.tobytes()).hexdigest()

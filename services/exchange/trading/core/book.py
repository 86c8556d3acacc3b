"""The price-time book: levels first in first out, in a sorted list of price keys with the best last."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, insort
from collections.abc import Iterator
from hashlib import sha256

from exchange.trading.core.commands import P_STOP
from exchange.trading.core.constants import BUY, Boxed
from exchange.trading.core.model import BookSide, Level, Market, Order


def rest(side: BookSide, order: Order) -> None:
    """Put an order at the back of its price."""
    price: Boxed = order.price
    level = side.levels.get(price)
    if level is None:
        level = side.levels[price] = Level(price)
        insort(side.keys, price * side.sign)
        level.head = order
    else:
        tail = level.tail
        assert tail is not None
        tail.next = order
        order.prev = tail
    level.tail = order
    order.level = level
    level.lots += order.lots_open
    level.count += 1


def remove(order: Order) -> None:
    """Take an order off the book, and its level if it was the last."""
    level = order.level
    assert level is not None
    order.level = None
    level.lots -= order.lots_open
    level.count -= 1
    before = order.prev
    after = order.next
    if before is not None:
        before.next = after
        order.prev = None
    else:
        level.head = after
    if after is not None:
        after.prev = before
        order.next = None
    else:
        level.tail = before
        if before is None:
            market = order.market
            drop_level(market.bids if order.side == BUY else market.asks, level)


def drop_level(side: BookSide, level: Level) -> None:
    """Forget an empty level."""
    price: int = level.price
    key = price * side.sign
    keys = side.keys
    if keys[-1] == key:
        keys.pop()
    else:
        del keys[bisect_left(keys, key)]
    del side.levels[level.price]


def shrink(order: Order, lots: int) -> None:
    """Take lots off a resting order, which keeps its place."""
    level = order.level
    assert level is not None
    order.lots_open -= lots
    level.lots -= lots


def sleep(market: Market, order: Order) -> None:
    """File a stop order under its trigger price."""
    stop: int = order.command[P_STOP]
    if order.side == BUY:
        insort(market.stop_buys, (stop, order.order_id))
    else:
        insort(market.stop_sells, (-stop, order.order_id))


def unsleep(market: Market, order: Order) -> None:
    """Take a stop order out of the sleepers."""
    stop: int = order.command[P_STOP]
    sleepers = market.stop_buys if order.side == BUY else market.stop_sells
    entry = (stop if order.side == BUY else -stop, order.order_id)
    del sleepers[bisect_left(sleepers, entry)]


def best_price(side: BookSide) -> int:
    """Best price in ticks, 0 for an empty side."""
    return side.keys[-1] * side.sign if side.keys else 0


def levels(side: BookSide, depth: int = 0) -> list[tuple[int, int, int]]:
    """(price, lots, order count) of the best `depth` levels (0: all), best first."""
    keys = side.keys
    wanted = keys[::-1] if depth == 0 or depth >= len(keys) else keys[: -depth - 1 : -1]
    found = [side.levels[key * side.sign] for key in wanted]
    return [(level.price, level.lots, level.count) for level in found]


def orders_in_priority(side: BookSide) -> Iterator[Order]:
    """Every resting order, best price first, first come first."""
    for key in reversed(side.keys):
        order = side.levels[key * side.sign].head
        while order is not None:
            yield order
            order = order.next


def hash_orders(orders: list[tuple[int, int, int, int]]) -> str:
    """SHA-256 over (side, price in ticks, order id, open lots) of each order as little-endian 64-bit integers, bids
    then asks in priority order: equal books and only equal books have equal hashes.
    """
    values = array("q")
    for row in orders:
        values.extend(row)
    if sys.byteorder == "big":
        values.byteswap()
    return sha256(values.tobytes()).hexdigest()


def book_hash(market: Market) -> str:
    """Hash of a market's book, as `hash_orders` defines it."""
    rows: list[tuple[int, int, int, int]] = []
    for side in (market.bids, market.asks):
        number = side.side
        rows.extend((number, order.price, order.order_id, order.lots_open) for order in orders_in_priority(side))
    return hash_orders(rows)

"""The market maker's own orders, and the fewest changes that make them what they should be."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from exchange.market_maker.quoting import BUY, SELL, Level, Outside

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from exchange.market_maker.exchange import Book
    from exchange.market_maker.quoting import Quotes
    from exchange.market_maker.rules import MarketRules


@dataclass(frozen=True, slots=True)
class OwnOrder:
    """An open order; `lots` is what is open of it. A price off the tick, after the tick was changed, is `ticks` 0."""

    order_id: str
    symbol: str
    side: str
    ticks: int
    lots: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do in one market: cancels go first, so that nothing meets an order of its own."""

    kept: tuple[OwnOrder, ...]
    cancels: tuple[OwnOrder, ...]
    places: tuple[tuple[str, Level], ...]


def changes(orders: Iterable[OwnOrder], wanted: Quotes) -> Changes:
    """Keep every order that can stand for a level, cancel the others, place what is missing.

    An order stands for a level if its price is within the tolerance, and it has at least half of the level's quantity and no
    more than all of it. Both are taken by rising price: of intervals of equal length the greedy choice keeps the most.
    """
    orders = list(orders)
    kept: list[OwnOrder] = []
    places: list[tuple[str, Level]] = []
    for side in (BUY, SELL):
        mine = sorted(
            (order for order in orders if order.side == side), key=lambda order: (order.ticks, order.order_id)
        )
        stand, missing = _match(mine, sorted(wanted.of(side), key=lambda level: level.ticks), wanted.tolerance_ticks)
        kept += stand
        # The best price first: it is the one that counts if what follows is refused.
        best_first = sorted(missing, key=lambda level: -level.ticks if side == BUY else level.ticks)
        places += [(side, level) for level in best_first]
    ids = {order.order_id for order in kept}
    cancels = tuple(order for order in orders if order.order_id not in ids)
    return Changes(tuple(kept), cancels, tuple(places))


def _match(orders: Sequence[OwnOrder], levels: Sequence[Level], tolerance: int) -> tuple[list[OwnOrder], list[Level]]:
    """(orders that stand for a level, levels without one); both come by rising price."""
    kept: list[OwnOrder] = []
    taken: set[str] = set()
    missing: list[Level] = []
    for level in levels:
        found = next(
            (
                order
                for order in orders
                if order.order_id not in taken
                and abs(order.ticks - level.ticks) <= tolerance
                and level.lots <= 2 * order.lots
                and order.lots <= level.lots
            ),
            None,
        )
        if found is None:
            missing.append(level)
        else:
            taken.add(found.order_id)
            kept.append(found)
    return kept, missing


def outside(book: Book, orders: Iterable[OwnOrder], rules: MarketRules) -> Outside:
    """The others' best prices: those of the book, less what is our own."""
    own: dict[tuple[str, Decimal], Decimal] = {}
    for order in orders:
        place = (order.side, rules.price(order.ticks))
        own[place] = own.get(place, Decimal(0)) + rules.quantity(order.lots)
    return Outside(_best(book.bids, BUY, own, rules), _best(book.asks, SELL, own, rules))


def _best(
    levels: Iterable[tuple[Decimal, Decimal]], side: str, own: dict[tuple[str, Decimal], Decimal], rules: MarketRules
) -> int | None:
    for price, quantity in levels:
        if quantity > own.get((side, price), Decimal(0)):
            return int(price / rules.tick)
    return None

"""Compares what the exchange made with what was recorded. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest

from pincex_client.models import Book, Level
from pincex_client.replay.flow import FlowBook, FlowFill, FlowLevel


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: `what` (fill, book, command), `where` (command or level), and both sides as text."""

    what: str
    where: str
    expected: str
    actual: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.what} at {self.where}: expected {self.expected}, got {self.actual}"


def compare_fills(expected: Sequence[FlowFill], actual: Sequence[FlowFill]) -> list[Difference]:
    """Compare command by command, and within a command fill by fill in order."""
    wanted = _by_command(expected)
    made = _by_command(actual)
    differences: list[Difference] = []
    for seq in sorted(wanted.keys() | made.keys()):
        for index, (want, got) in enumerate(zip_longest(wanted[seq], made[seq])):
            if want != got:
                where = f"command {seq}, fill {index + 1}"
                differences.append(Difference("fill", where, _fill_text(want), _fill_text(got)))
    return differences


def compare_book(expected: FlowBook, actual: Book) -> list[Difference]:
    """Compare the recorded levels (price, quantity, orders) and every recorded total."""
    differences: list[Difference] = []
    for side, wanted, made in (("bid", expected.bids, actual.bids), ("ask", expected.asks, actual.asks)):
        for index, (want, got) in enumerate(zip_longest(wanted, made[: len(wanted)])):
            if _level_text(want) != _level_text(got):
                differences.append(Difference("book", f"{side} level {index + 1}", _level_text(want), _level_text(got)))
    totals = book_totals(actual)
    for name, total in expected.totals.items():
        if totals[name] != total:
            differences.append(Difference("book", name, str(total), str(totals[name])))
    return differences


def book_totals(book: Book) -> dict[str, Decimal]:
    """Totals of a book under the names of the recorded file."""
    return {
        "order_count": Decimal(book.bid_order_count + book.ask_order_count),
        "buy_orders": Decimal(book.bid_order_count),
        "sell_orders": Decimal(book.ask_order_count),
        "buy_levels": Decimal(book.bid_level_count),
        "sell_levels": Decimal(book.ask_level_count),
        "buy_quantity": book.bid_quantity,
        "sell_quantity": book.ask_quantity,
    }


def _by_command(fills: Iterable[FlowFill]) -> defaultdict[int, list[FlowFill]]:
    grouped: defaultdict[int, list[FlowFill]] = defaultdict(list)
    for fill in fills:
        grouped[fill.seq].append(fill)
    return grouped


def _fill_text(fill: FlowFill | None) -> str:
    if fill is None:
        return "no fill"
    return f"{fill.aggressor} x {fill.resting} {fill.quantity.normalize():f} @ {fill.price.normalize():f}"


def _level_text(level: FlowLevel | Level | None) -> str:
    if level is None:
        return "no level"
    orders = level.orders if isinstance(level, FlowLevel) else level.order_count
    return f"{level.quantity.normalize():f} @ {level.price.normalize():f} in {orders} orders"

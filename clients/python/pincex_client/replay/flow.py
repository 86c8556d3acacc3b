"""The recorded flow: commands, expected fills, expected book. Reading and sums only; no network.

The format is that of `shared/data/real-order-flow/README.md`: CSV with a header, prices and quantities as plain
decimals, rows in order of execution.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from math import gcd
from pathlib import Path
from typing import Any

COMMAND_COLUMNS = ("seq", "ts_ns", "kind", "order_id", "side", "price", "quantity", "tif")
FILL_COLUMNS = ("seq", "aggressor_order_id", "resting_order_id", "price", "quantity")
KINDS = frozenset({"SEED", "NEW", "CANCEL", "REDUCE", "REPLACE"})
ORDER_KINDS = frozenset({"SEED", "NEW"})


class FlowError(Exception):
    """A file of the flow cannot be used; the message says which line and why."""


@dataclass(frozen=True, slots=True)
class FlowCommand:
    """One recorded command. `price` and `quantity` as in the file; `tif` is empty but for new orders."""

    seq: int
    ts_ns: int
    kind: str
    order_id: str
    side: str
    price: str
    quantity: str
    tif: str


@dataclass(frozen=True, slots=True)
class FlowFill:
    """One fill: `seq` is that of the command that caused it."""

    seq: int
    aggressor: str
    resting: str
    price: Decimal
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class FlowLevel:
    """One level of the expected book."""

    price: Decimal
    quantity: Decimal
    orders: int


@dataclass(frozen=True, slots=True)
class FlowBook:
    """The expected book: the best levels, best first, and totals by name (those of the file)."""

    bids: tuple[FlowLevel, ...]
    asks: tuple[FlowLevel, ...]
    totals: dict[str, Decimal]


TOTALS = (
    "order_count",
    "buy_orders",
    "sell_orders",
    "buy_levels",
    "sell_levels",
    "buy_quantity",
    "sell_quantity",
)


def read_commands(path: Path) -> list[FlowCommand]:
    """Read a commands file. Raises FlowError."""
    commands: list[FlowCommand] = []
    seen: set[str] = set()
    for line, row in _rows(path, COMMAND_COLUMNS):
        command = FlowCommand(
            _whole(path, line, row["seq"]),
            _whole(path, line, row["ts_ns"]),
            row["kind"],
            row["order_id"],
            row["side"],
            row["price"],
            row["quantity"],
            row["tif"],
        )
        _check(path, line, command, seen)
        commands.append(command)
    if not commands:
        raise FlowError(f"{path}: no commands")
    return commands


def _check(path: Path, line: int, command: FlowCommand, seen: set[str]) -> None:
    where = f"{path}, line {line}"
    if command.kind not in KINDS:
        raise FlowError(f"{where}: kind {command.kind!r} is none of {', '.join(sorted(KINDS))}")
    if command.side not in {"BUY", "SELL"}:
        raise FlowError(f"{where}: side {command.side!r} is neither BUY nor SELL")
    if amount(where, command.quantity) <= 0:
        raise FlowError(f"{where}: quantity {command.quantity!r} is not above zero")
    amount(where, command.price)
    if command.kind in ORDER_KINDS:
        if command.tif not in {"GTC", "IOC"}:
            raise FlowError(f"{where}: tif {command.tif!r} is neither GTC nor IOC")
        if command.order_id in seen:
            raise FlowError(f"{where}: order id {command.order_id} is used twice")
        seen.add(command.order_id)
    elif command.order_id not in seen:
        raise FlowError(f"{where}: {command.kind} of order {command.order_id}, which was never placed")


def read_fills(path: Path) -> list[FlowFill]:
    """Read a fills file. Raises FlowError."""
    return [
        FlowFill(
            _whole(path, line, row["seq"]),
            row["aggressor_order_id"],
            row["resting_order_id"],
            amount(f"{path}, line {line}", row["price"]),
            amount(f"{path}, line {line}", row["quantity"]),
        )
        for line, row in _rows(path, FILL_COLUMNS)
    ]


def read_book(path: Path) -> FlowBook:
    """Read a book file. Raises FlowError."""
    try:
        content: dict[str, Any] = json.loads(_text(path), parse_float=Decimal)
        sides = [
            tuple(FlowLevel(Decimal(level["price"]), Decimal(level["quantity"]), level["orders"]) for level in side)
            for side in (content["bids"], content["asks"])
        ]
        totals = {name: Decimal(content[name]) for name in TOTALS if name in content}
    except (ValueError, KeyError, TypeError, InvalidOperation) as error:
        raise FlowError(f"{path}: not a book: {error!r}") from error
    return FlowBook(sides[0], sides[1], totals)


def amount(where: str, text: str) -> Decimal:
    """Read a plain decimal; FlowError says where it is none."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise FlowError(f"{where}: {text!r} is no number") from None
    if not value.is_finite():
        raise FlowError(f"{where}: {text!r} is no number")
    return value


def step_of(amounts: Iterable[str]) -> Decimal:
    """Return the largest step of which every amount is a multiple: the tick of prices, the lot of quantities."""
    values = [Decimal(text) for text in set(amounts)]
    decimals = max((decimals_of(value) for value in values), default=0)
    scale = Decimal(10) ** decimals
    step = gcd(*(int(value * scale) for value in values)) or 1
    return (Decimal(step) / scale).normalize()


def decimals_of(value: Decimal) -> int:
    """Digits that the value needs after the point."""
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int), "finite amounts only"
    return max(0, -exponent)


def tick_of(commands: Iterable[FlowCommand]) -> Decimal:
    """Tick of the flow's prices."""
    return step_of(command.price for command in commands)


def lot_of(commands: Iterable[FlowCommand]) -> Decimal:
    """Lot of the flow's quantities."""
    return step_of(command.quantity for command in commands)


def funds_needed(commands: Iterable[FlowCommand]) -> tuple[Decimal, Decimal]:
    """Base and quote that surely suffice for one account on both sides: as if no order ever gave anything back."""
    base = quote = Decimal(0)
    for command in commands:
        if command.kind in {"CANCEL", "REDUCE"}:
            continue
        quantity = Decimal(command.quantity)
        if command.side == "SELL":
            base += quantity
        else:
            quote += quantity * Decimal(command.price)
    return base, quote


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(_text(path).splitlines())
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise FlowError(f"{path}: no column {', '.join(missing)}")
    for row in reader:
        if None in row.values() or None in row:
            raise FlowError(f"{path}, line {reader.line_num}: expected {len(columns)} fields")
        yield reader.line_num, row


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FlowError(f"{path}: cannot be read: {error}") from error


def _whole(path: Path, line: int, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise FlowError(f"{path}, line {line}: {text!r} is no whole number")
    return int(text)

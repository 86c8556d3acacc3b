"""What a venue speaks, without a connection: messages in, books and trades out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from exchange.market_data.venues.book import VenueBook

T = TypeVar("T")

# Longest number that a venue may send, with its point.
MAX_NUMBER: Final = 40


class Fault(Enum):
    """What is wrong with a feed."""

    GAP = "gap"
    MISMATCH = "mismatch"
    GARBAGE = "garbage"
    REFUSED = "refused"
    SILENT = "silent"


class Broken(Exception):
    """The connection is of no use any more: all its books begin anew on another one."""

    def __init__(self, fault: Fault, why: str) -> None:
        super().__init__(f"{fault.value}: {why}")
        self.fault = fault


@dataclass(slots=True)
class Counts:
    """Of one feed since its process began, over all its connections."""

    messages: int = 0
    reconnects: int = 0
    gaps: int = 0
    mismatches: int = 0
    garbage: int = 0

    def count(self, fault: Fault) -> None:
        """Count a fault."""
        match fault:
            case Fault.GAP:
                self.gaps += 1
            case Fault.MISMATCH:
                self.mismatches += 1
            case Fault.GARBAGE:
                self.garbage += 1
            case Fault.REFUSED | Fault.SILENT:
                pass


@dataclass(slots=True)
class Heard:
    """What a message changed: markets whose book moved or is no longer whole, and trades as (symbol, price)."""

    venue_ns: int | None = None
    moved: set[str] = field(default_factory=set)
    trades: dict[str, Decimal] = field(default_factory=dict)


class Dialect(Protocol):
    """One connection's state. `books` has those that are whole now, by our symbol."""

    symbols: tuple[str, ...]
    books: dict[str, VenueBook]
    counts: Counts

    def path(self) -> str:
        """What follows the venue's address."""
        ...

    def greeting(self) -> Sequence[str]:
        """Messages to begin with."""
        ...

    def receive(self, message: str | bytes) -> Heard:
        """Take a message. Raises Broken."""
        ...

    def snapshots_wanted(self) -> Sequence[str]:
        """Markets whose book must be fetched by `snapshot_path`, each named once until it is given or failed."""
        ...

    def snapshot_path(self, symbol: str) -> str:
        """Where its book is fetched, after the address of the venue's REST interface."""
        ...

    def snapshot(self, symbol: str, body: bytes) -> Heard:
        """Take a book that was fetched. Raises Broken."""
        ...

    def snapshot_failed(self, symbol: str) -> None:
        """It could not be fetched: it is wanted again."""
        ...


def number(text: str) -> Decimal:
    """A plain decimal, zero or more. Raises Broken."""
    if len(text) > MAX_NUMBER or not text.isascii() or not text.replace(".", "", 1).isdigit():
        raise Broken(Fault.GARBAGE, f"{text[:MAX_NUMBER]!r} is no number")
    return Decimal(text)


def price_of(text: str) -> Decimal:
    """A plain decimal above zero. Raises Broken."""
    price = number(text)
    if not price:
        raise Broken(Fault.GARBAGE, "a price of zero")
    return price


def levels_of(pairs: Sequence[tuple[str, str]]) -> list[tuple[Decimal, Decimal]]:
    """Price and quantity of each. Raises Broken."""
    return [(price_of(price), number(quantity)) for price, quantity in pairs]


def inverted(products: Mapping[str, str]) -> dict[str, str]:
    """Our symbol by the venue's name."""
    return {product: symbol for symbol, product in products.items()}


def decoded(data: str | bytes | msgspec.Raw, kind: type[T]) -> T:
    """JSON as one of our structs. Raises Broken."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Broken(Fault.GARBAGE, str(error)[:200]) from error

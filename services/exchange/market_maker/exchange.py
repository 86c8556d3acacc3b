"""What the market maker needs of the exchange, without a word of its contracts; `service/` speaks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from exchange.market_maker.account import AccountBook
    from exchange.market_maker.rules import MarketRules


class Away(Exception):
    """The exchange, or a part of it, does not answer as it should; the text says what. Ask again later."""


@dataclass(frozen=True, slots=True)
class Book:
    """The best levels of a side as (price, quantity), best first."""

    bids: tuple[tuple[Decimal, Decimal], ...]
    asks: tuple[tuple[Decimal, Decimal], ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """What other venues come to, and how old the oldest price in it is."""

    price: Decimal
    age_s: float


@dataclass(frozen=True, slots=True)
class Cancel:
    """Take an order back."""

    order_id: str


@dataclass(frozen=True, slots=True)
class Place:
    """A limit order that rests or is refused; never one that takes."""

    symbol: str
    side: str
    price: Decimal
    quantity: Decimal
    client_order_id: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a command. `reason` is empty where it was done, else the name of an ErrorReason; `sequence` is the
    engine's, 0 where it was refused before it had one.
    """

    reason: str
    sequence: int


class Markets(Protocol):
    """What everybody may ask, and balances. All raise Away."""

    async def markets(self) -> list[MarketRules]:
        """All of them."""
        ...

    async def book(self, symbol: str, min_sequence: int) -> Book:
        """At this sequence or later."""
        ...

    async def reference(self, symbol: str) -> Reference | None:
        """None where no venue has a price that counts."""
        ...

    async def balances(self, min_sequence: int) -> Mapping[str, Decimal]:
        """What is free for new orders, by asset."""
        ...


class Session(Protocol):
    """An order session that takes its orders back when it ends, however it ends."""

    @property
    def is_open(self) -> bool:
        """Whether it was when something was last heard."""
        ...

    async def ping(self) -> int:
        """The newest durable sequence of the exchange. Opens the session where it is not open, and takes back whatever
        orders the account has then. Raises Away.
        """
        ...

    async def run(self, commands: Sequence[Cancel | Place]) -> list[Result]:
        """One result for each, in order. Raises Away: what became of them is unknown."""
        ...

    async def close(self) -> None:
        """End it, and its orders. Never raises: orders of a lost session end too."""
        ...


class Follower(Protocol):
    """Keeps `book` as the exchange has it, by the account's own stream of events."""

    @property
    def book(self) -> AccountBook:
        """Open orders and positions."""
        ...

    @property
    def is_current(self) -> bool:
        """Whether the stream runs, and all that was before it is in the book."""
        ...

    async def reach(self, sequence: int, timeout_s: float) -> bool:
        """Wait until what happened at this sequence is in the book; whether it is."""
        ...

"""What the wallet asks of a network, be it a chain or a bank: the one interface that a connector implements.

Amounts are whole smallest units of the engine's asset, more than zero. A connector moves no trading balance: it says what it
has seen, and sends what it is told to.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class ConnectorAway(Exception):
    """The network does not answer, and what was asked may have happened: ask again."""


class EventKind(Enum):
    """What has become of an incoming transaction."""

    SEEN = "SEEN"
    CONFIRMATIONS = "CONFIRMATIONS"
    VANISHED = "VANISHED"


@dataclass(frozen=True, slots=True)
class ChainEvent:
    """One report of an incoming transaction.

    `number` rises from report to report and is what the next call resumes after. The same thing may be reported again under a
    higher number, and late: `appearance` counts, from 1, how often the transaction has come into the chain, so that a late
    report of one that vanished is told from its return. `output` is the position within the transaction.
    """

    number: int
    kind: EventKind
    transaction_id: str
    output: int
    appearance: int
    address: str
    asset: str
    amount: int
    confirmations: int


@dataclass(frozen=True, slots=True)
class Sent:
    """The network has the transaction; `confirmations` so far, 0 before it stands in a block."""

    transaction_id: str
    confirmations: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The network will never carry it out. Final: the same withdrawal id is always answered so."""

    why: str


class Connector(Protocol):
    """One network. Every method may raise ConnectorAway."""

    network: str

    async def new_address(self, account: str, asset: str) -> str:
        """An address of ours that nobody else was given. Asked again for the same account and asset, any of theirs."""
        ...

    def check_address(self, asset: str, address: str) -> None:
        """Whether money can be sent there, by its form alone. Raises ServiceError INVALID_FIELD, field `address`."""
        ...

    async def events(self, cursor: int) -> list[ChainEvent]:
        """Reports numbered above `cursor`, in order, a bounded number of them; empty when there are none."""
        ...

    async def send(self, withdrawal_id: str, asset: str, address: str, amount: int) -> Sent | Refused:
        """Send it, once for a withdrawal id however often it is asked; a repeat tells how it stands.

        After ConnectorAway the outcome is unknown: ask again.
        """
        ...

    async def outcome(self, withdrawal_id: str) -> Sent | Refused | None:
        """What became of it; None for one that was never asked for."""
        ...

    async def custody(self) -> Mapping[str, int]:
        """What the network says that we have, by asset: all that stands in the chain now, less what was sent."""
        ...

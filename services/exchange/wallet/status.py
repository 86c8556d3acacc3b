"""How the wallet stands: what is under way, what custody the networks report, and why anything is stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from exchange.domain.decimals import format_units
from exchange.runtime.errors import ServiceError
from exchange.wallet import freezes
from exchange.wallet.connector import ConnectorAway

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from exchange.runtime.database import Connection, Database
    from exchange.wallet.networks import Networks

REVERSING: Final = "REVERSING"
_DEPOSITS: Final = """
SELECT CASE WHEN status IN ('SEEN', 'CONFIRMED') THEN status ELSE 'REVERSING' END AS state, count(*) AS count,
    min(seen_at) AS oldest
FROM wallet_deposits
WHERE status IN ('SEEN', 'CONFIRMED') OR (status = 'REVERSED' AND reversal <> 'DONE') OR (status = 'CREDITED' AND vanished)
GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many are in a state that is not an end ("deposit SEEN"), and since when the oldest is there."""

    state: str
    count: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class Custody:
    """What a network says that we have; `amount` is decimal text."""

    network: str
    asset: str
    amount: str


@dataclass(frozen=True, slots=True)
class Status:
    """All of it. `problem` is why withdrawals are stopped, or which network is away."""

    withdrawals_stopped: bool
    problem: str
    states: list[StateCount]
    custody: list[Custody]
    frozen_accounts: int


class _WithdrawalCount(Protocol):
    @property
    def status(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def oldest(self) -> datetime: ...


class Withdrawals(Protocol):
    """`withdrawals.Withdrawals`, as far as it is needed here."""

    async def counts(self) -> Sequence[_WithdrawalCount]:
        """By state, those that have not come to their end."""
        ...


class Stops(Protocol):
    """`stops.Stops`, as far as it is needed here."""

    async def why(self) -> str:
        """What keeps withdrawals in, "" for nothing."""
        ...


class StatusReader:
    """Asks all sides; a network that is away is said so, and does not keep the rest from being told."""

    def __init__(self, database: Database, networks: Networks, withdrawals: Withdrawals, stops: Stops) -> None:
        self._database = database
        self._networks = networks
        self._withdrawals = withdrawals
        self._stops = stops

    async def read(self) -> Status:
        """Now. Raises ServiceError where the database is away."""
        async with self._database.connection() as connection:
            states = await deposit_counts(connection)
            frozen = await freezes.count(connection)
        states += [
            StateCount(f"withdrawal {one.status}", one.count, one.oldest) for one in await self._withdrawals.counts()
        ]
        why = await self._stops.why()
        custody, away = await self.custody()
        return Status(
            withdrawals_stopped=bool(why),
            problem="; ".join(filter(None, (why, *away))),
            states=states,
            custody=custody,
            frozen_accounts=frozen,
        )

    async def custody(self) -> tuple[list[Custody], list[str]]:
        """What each network has, by asset; and which could not say."""
        found: list[Custody] = []
        away: list[str] = []
        for name, connector in self._networks.connectors.items():
            try:
                for asset, units in sorted((await connector.custody()).items()):
                    decimals = await self._networks.assets.decimals(asset)
                    found.append(Custody(name, asset, format_units(units, decimals)))
            except (ConnectorAway, ServiceError) as error:
                away.append(f"{name} does not answer: {error}")
        return found, away


async def deposit_counts(connection: Connection) -> list[StateCount]:
    """Deposits that are not at their end."""
    rows = await connection.fetch(_DEPOSITS)
    return [StateCount(f"deposit {row['state']}", row["count"], row["oldest"]) for row in rows]

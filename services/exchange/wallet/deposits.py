"""Deposits as rows: what each one is, and how reports of the networks change them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import structlog

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.wallet.connector import EventKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from exchange.runtime.database import Connection, Database
    from exchange.wallet.connector import ChainEvent, Connector
    from exchange.wallet.networks import Network, Networks

Key: TypeAlias = tuple[str, str, int, int]
"""(network, transaction, output, appearance)."""

SEEN: Final = "SEEN"
CONFIRMED: Final = "CONFIRMED"
CREDITED: Final = "CREDITED"
ORPHANED: Final = "ORPHANED"
REVERSED: Final = "REVERSED"
READ_EVERY_S: Final = 0.2

_INSERT: Final = """
INSERT INTO wallet_deposits (network, transaction_id, output, appearance, account, asset, decimals, amount, address, status,
    confirmations, required_confirmations)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'SEEN', 0, $10)
ON CONFLICT (network, transaction_id, output, appearance) DO NOTHING
"""
_FIND: Final = """
SELECT * FROM wallet_deposits WHERE network = $1 AND transaction_id = $2 AND output = $3 AND appearance = $4 FOR UPDATE
"""
_MORE_CONFIRMATIONS: Final = """
UPDATE wallet_deposits SET confirmations = greatest(confirmations, $2),
    status = CASE WHEN status = 'SEEN' AND $2 >= required_confirmations THEN 'CONFIRMED' ELSE status END
WHERE deposit_id = $1 AND status IN ('SEEN', 'CONFIRMED', 'CREDITED') AND NOT vanished
"""
# What the engine was never asked to credit ends here; the rest is credited first and then reversed.
_VANISH: Final = """
UPDATE wallet_deposits SET vanished = true, confirmations = 0, attempts = 0, next_at = clock_timestamp(),
    status = CASE WHEN status = 'SEEN' OR (status = 'CONFIRMED' AND credit_asked_at IS NULL) THEN 'ORPHANED' ELSE status END
WHERE deposit_id = $1 AND status IN ('SEEN', 'CONFIRMED', 'CREDITED') AND NOT vanished
"""
_CURSOR: Final = "SELECT cursor FROM wallet_cursors WHERE network = $1"
_LOCKED_CURSOR: Final = "SELECT cursor FROM wallet_cursors WHERE network = $1 FOR UPDATE"
_HOLDER: Final = """
SELECT account, asset FROM wallet_deposit_addresses WHERE network = $1 AND address = $5 AND NOT EXISTS
    (SELECT FROM wallet_unassigned WHERE network = $1 AND transaction_id = $2 AND output = $3 AND appearance = $4)
"""
_UNASSIGNED: Final = """
INSERT INTO wallet_unassigned AS known (network, transaction_id, output, appearance, address, asset, amount, vanished)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (network, transaction_id, output, appearance) DO UPDATE SET vanished = known.vanished OR excluded.vanished
"""


@dataclass(frozen=True, slots=True)
class Deposit:
    """One row. Amounts are whole smallest units of 10^-`decimals`; the columns are explained in the migration."""

    deposit_id: int
    network: str
    transaction_id: str
    output: int
    appearance: int
    account: str
    asset: str
    decimals: int
    amount: int
    address: str
    status: str
    confirmations: int
    required_confirmations: int
    seen_at: datetime
    vanished: bool
    credit_asked_at: datetime | None
    made_good: int
    sequence: int | None
    credited_at: datetime | None
    reversal: str | None
    hold_attempt: int
    hold_amount: int
    recovered: int
    lost: int

    @classmethod
    def of(cls, row: Any) -> Deposit:
        """From a whole row."""
        return cls(**{name: row[name] for name in cls.__slots__})

    @property
    def reference(self) -> str:
        """The network and the number, as request ids name it."""
        return f"{self.network}:{self.deposit_id}"


class DepositIntake:
    """Reads the reports of one network, and changes rows and cursor in one transaction."""

    every_s = READ_EVERY_S

    def __init__(self, database: Database, connector: Connector, networks: Networks) -> None:
        self.name = f"reports of {connector.network}"
        self._database = database
        self._connector = connector
        self._networks = networks
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("deposits")

    async def drive(self) -> bool:
        """One batch of reports; whether there was one. Raises ServiceError, ConnectorAway."""
        network = self._connector.network
        async with self._database.connection() as connection:
            cursor = await _cursor(connection, network)
        events = await self._connector.events(cursor)
        if not events:
            return False
        terms = await self._terms(events)
        async with self._database.transaction() as connection:
            # Another instance may have been here since: what it has read is not read again.
            if await _cursor(connection, network, lock=True) != cursor:
                return True
            for event in events:
                await self._apply(connection, event, terms[event.asset])
            await connection.execute(
                "UPDATE wallet_cursors SET cursor = $2 WHERE network = $1", network, events[-1].number
            )
        return True

    async def _terms(self, events: Sequence[ChainEvent]) -> dict[str, Network | None]:
        """Of each asset in the reports; None for one that this network does not carry here."""
        found: dict[str, Network | None] = {}
        for asset in {event.asset for event in events}:
            try:
                found[asset] = await self._networks.find(asset, self._connector.network)
            except ServiceError as error:
                if error.reason not in {ErrorReason.UNKNOWN_ASSET, ErrorReason.UNKNOWN_NETWORK}:
                    raise
                found[asset] = None
        return found

    async def _apply(self, connection: Connection, event: ChainEvent, terms: Network | None) -> None:
        network = self._connector.network
        key = (network, event.transaction_id, event.output, event.appearance)
        row = await connection.fetchrow(_FIND, *key)
        if row is None and not await self._begin(connection, key, event, terms):
            return
        deposit = Deposit.of(row or await connection.fetchrow(_FIND, *key))
        if (deposit.amount, deposit.asset, deposit.address) != (event.amount, event.asset, event.address):
            self._log.error("a network reports a transaction with another content: the first counts", key=key)
        elif event.kind is EventKind.VANISHED:
            await connection.execute(_VANISH, deposit.deposit_id)
        else:
            await connection.execute(_MORE_CONFIRMATIONS, deposit.deposit_id, event.confirmations)

    async def _begin(self, connection: Connection, key: Key, event: ChainEvent, terms: Network | None) -> bool:
        """A row of its own for what was not heard of before; False where it is nobody's."""
        # What is on record as nobody's stays so, though the address be given to somebody later: people see to it.
        holder = await connection.fetchrow(_HOLDER, *key, event.address)
        if terms is None or holder is None or holder["asset"] != event.asset:
            vanished = event.kind is EventKind.VANISHED
            self._log.warning("money came to nobody's address", network=key[0], transaction=event.transaction_id)
            await connection.execute(_UNASSIGNED, *key, event.address, event.asset, event.amount, vanished)
            return False
        await connection.execute(
            _INSERT,
            *key,
            holder["account"],
            event.asset,
            terms.decimals,
            event.amount,
            event.address,
            terms.required_confirmations,
        )
        return True


async def listed(database: Database, account: str, asset: str, before: int, limit: int) -> list[Deposit]:
    """The newest of an account below a number (0 for all), of one asset or (with "") of all."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT * FROM wallet_deposits WHERE account = $1 AND ($2 = '' OR asset = $2) AND ($3 = 0 OR deposit_id < $3)"
            " ORDER BY deposit_id DESC LIMIT $4",
            account,
            asset,
            before,
            limit,
        )
    return [Deposit.of(row) for row in rows]


async def _cursor(connection: Connection, network: str, *, lock: bool = False) -> int:
    found = await connection.fetchval(_LOCKED_CURSOR if lock else _CURSOR, network)
    if found is None:
        await connection.execute(
            "INSERT INTO wallet_cursors (network, cursor) VALUES ($1, 0) ON CONFLICT DO NOTHING", network
        )
    return int(found or 0)

"""The connector of the simulated network."""

from __future__ import annotations

import hashlib
import re
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.wallet.connector import ChainEvent, ConnectorAway, EventKind, Refused, Sent
from exchange.wallet.simulated.chain import Chain
from exchange.wallet.simulated.faults import Faults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from exchange.runtime.database import Connection, Database

NETWORK: Final = "simulated"
MAX_EVENTS: Final = 500
# An address says of which asset it is; one whose digits begin with `dead` is refused by the network, for good.
_DIGITS: Final = 24
_BURNT: Final = "dead"

_CUSTODY: Final = """
SELECT asset, sum(amount) AS amount FROM (
    SELECT asset, amount FROM sim_incoming WHERE height IS NOT NULL
    UNION ALL SELECT asset, -amount FROM sim_sends WHERE refused IS NULL
) moved GROUP BY asset ORDER BY asset
"""
_OURS: Final = """
INSERT INTO sim_addresses (address, account, asset) VALUES ($1, $2, $3) ON CONFLICT (account, asset) DO NOTHING
"""
_SEND: Final = """
INSERT INTO sim_sends (withdrawal_id, asset, address, amount, transaction_id, refused) VALUES ($1, $2, $3, $4, $5, $6)
"""


class SimulatedNetwork:
    """See `connector.Connector`. `depth`: as many confirmations are reported of what came in."""

    network = NETWORK

    def __init__(self, database: Database, *, seed: int, depth: int) -> None:
        self._database = database
        self._faults = Faults(seed)
        self._depth = depth

    # --- what every connector does ---

    async def new_address(self, account: str, asset: str) -> str:
        """Made from the account and the asset, so that it is the same when asked again."""
        digits = hashlib.sha256(f"{account}/{asset}".encode()).hexdigest()[:_DIGITS]
        address = f"{_prefix(asset)}{digits}"
        async with self._connection() as connection:
            await connection.execute(_OURS, address, account, asset)
        return address

    def check_address(self, asset: str, address: str) -> None:
        """`sim1`, the asset in lower case, 24 hexadecimal digits."""
        if re.fullmatch(rf"{re.escape(_prefix(asset))}[0-9a-f]{{{_DIGITS}}}", address) is None:
            raise ServiceError(
                ErrorReason.INVALID_FIELD,
                f"an address for {asset} is {_prefix(asset)} and {_DIGITS} hexadecimal digits in lower case",
                metadata={"field": "address", "value": address},
            )

    async def events(self, cursor: int) -> list[ChainEvent]:
        """The next reports."""
        async with self._connection() as connection:
            rows = await connection.fetch(
                "SELECT * FROM sim_reports WHERE number > $1 ORDER BY number LIMIT $2", cursor, MAX_EVENTS
            )
        return [ChainEvent(**{**row, "kind": EventKind(row["kind"])}) for row in rows]

    async def send(self, withdrawal_id: str, asset: str, address: str, amount: int) -> Sent | Refused:
        """Once for an id. More than there is waits until there is more: ConnectorAway."""
        async with self._chain() as chain:
            found = await _outcome(chain.connection, withdrawal_id)
            if found is None:
                refused = "nobody can spend from there" if _is_burnt(asset, address) else None
                held = await _custody(chain.connection)
                if refused is None and held.get(asset, 0) < amount:
                    raise ConnectorAway(f"{self.network} holds too little {asset} to send that now")
                transaction_id = _new_id()
                await chain.connection.execute(_SEND, withdrawal_id, asset, address, amount, transaction_id, refused)
                # What goes to an address of ours comes in again.
                ours = "SELECT true FROM sim_addresses WHERE address = $1"
                if refused is None and await chain.connection.fetchval(ours, address):
                    await chain.appear(transaction_id, address, asset, amount)
                found = Refused(refused) if refused is not None else Sent(transaction_id, 0)
        if self._faults.unanswered():
            raise ConnectorAway("the answer was lost")
        return found

    async def outcome(self, withdrawal_id: str) -> Sent | Refused | None:
        """What became of it."""
        async with self._connection() as connection:
            return await _outcome(connection, withdrawal_id)

    async def custody(self) -> Mapping[str, int]:
        """All that stands in blocks, less what was sent."""
        async with self._connection() as connection:
            return await _custody(connection)

    # --- what only a simulation can do ---

    async def deposit(self, address: str, asset: str, amount: int, transaction_id: str = "") -> str:
        """Make a transaction appear; its id. One that vanished comes again. Raises ServiceError DUPLICATE_ID, INVALID_FIELD."""
        self.check_address(asset, address)
        name = transaction_id or _new_id()
        async with self._chain() as chain:
            await chain.appear(name, address, asset, amount)
        return name

    async def vanish(self, transaction_id: str) -> None:
        """Make one disappear. Raises ServiceError RECORD_NOT_FOUND."""
        async with self._chain() as chain:
            found = await chain.vanish(transaction_id)
        if not found:
            raise ServiceError(
                ErrorReason.RECORD_NOT_FOUND,
                "the simulated network has no such incoming transaction",
                metadata={"transaction_id": transaction_id},
            )

    async def grow(self, blocks: int = 1) -> None:
        """So many blocks more."""
        for _ in range(blocks):
            async with self._chain() as chain:
                await chain.grow()

    async def reorganise(self, blocks: int) -> None:
        """The newest blocks are replaced; what stood in them comes again."""
        async with self._chain() as chain:
            await chain.reorganise(blocks)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self._database.connection() as connection:
                yield connection
        except ServiceError as error:
            raise _away(error) from error

    @asynccontextmanager
    async def _chain(self) -> AsyncIterator[Chain]:
        try:
            async with self._database.transaction() as connection:
                chain = await Chain.locked(connection, self._faults, self._depth)
                yield chain
                await chain.store()
        except ServiceError as error:
            raise _away(error) from error


def _away(error: ServiceError) -> Exception:
    return ConnectorAway(str(error)) if error.reason == ErrorReason.NOT_READY else error


def _prefix(asset: str) -> str:
    return f"sim1{asset.lower()}"


def _is_burnt(asset: str, address: str) -> bool:
    return address.removeprefix(_prefix(asset)).startswith(_BURNT)


def _new_id() -> str:
    return f"simtx-{secrets.token_hex(16)}"


async def _outcome(connection: Connection, withdrawal_id: str) -> Sent | Refused | None:
    row = await connection.fetchrow(
        "SELECT s.*, c.height AS top FROM sim_sends s CROSS JOIN sim_chain c WHERE withdrawal_id = $1", withdrawal_id
    )
    if row is None:
        return None
    if row["refused"] is not None:
        return Refused(row["refused"])
    return Sent(row["transaction_id"], 0 if row["height"] is None else row["top"] - row["height"] + 1)


async def _custody(connection: Connection) -> dict[str, int]:
    return {row["asset"]: int(row["amount"]) for row in await connection.fetch(_CUSTODY)}

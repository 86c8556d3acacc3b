"""The simulated chain: blocks, what stands in them, and what is reported about it.

Every change locks the one row of `sim_chain` first, so reports are numbered in the order in which they are committed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exchange.runtime.errors import ErrorReason, reject
from exchange.wallet.connector import EventKind

if TYPE_CHECKING:
    from exchange.runtime.database import Connection
    from exchange.wallet.simulated.faults import Faults

_COLUMNS: Final = "kind, transaction_id, output, appearance, address, asset, amount, confirmations"
_APPEAR: Final = """
INSERT INTO sim_incoming (transaction_id, output, appearance, address, asset, amount) VALUES ($1, 0, 1, $2, $3, $4)
RETURNING *
"""
# It comes into the chain again: another appearance, in no block yet.
_RETURN: Final = """
UPDATE sim_incoming SET appearance = appearance + 1, height = NULL, vanished = false WHERE transaction_id = $1 RETURNING *
"""
_LATE: Final = f"INSERT INTO sim_late_reports (due_height, {_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"  # noqa: S608 - constants
_REPORT: Final = f"INSERT INTO sim_reports (number, {_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"  # noqa: S608 - constants
_DUE: Final = f"""
WITH due AS (DELETE FROM sim_late_reports WHERE due_height <= $1 RETURNING *)
SELECT {_COLUMNS} FROM due ORDER BY late_id
"""  # noqa: S608 - constants


@dataclass(slots=True)
class Chain:
    """The chain while its row is locked; `store` writes it back. `depth`: confirmations beyond that are not reported."""

    connection: Connection
    faults: Faults
    depth: int
    height: int
    reports: int

    @classmethod
    async def locked(cls, connection: Connection, faults: Faults, depth: int) -> Chain:
        """Inside a transaction: nobody else changes the chain until its end."""
        row = await connection.fetchrow("SELECT height, reports FROM sim_chain FOR UPDATE")
        assert row is not None, "the migration made it"
        return cls(connection, faults, depth, row["height"], row["reports"])

    async def store(self) -> None:
        """Write height and number of reports."""
        await self.connection.execute("UPDATE sim_chain SET height = $1, reports = $2", self.height, self.reports)

    async def appear(self, transaction_id: str, address: str, asset: str, amount: int) -> None:
        """A transaction waits for a block. What is there already stays; what vanished comes again.

        Raises ServiceError DUPLICATE_ID where another one has this id.
        """
        known = await self.connection.fetchrow(
            "SELECT * FROM sim_incoming WHERE transaction_id = $1 AND output = 0", transaction_id
        )
        if known is None:
            row = await self.connection.fetchrow(_APPEAR, transaction_id, address, asset, amount)
        elif (known["address"], known["asset"], known["amount"]) != (address, asset, amount):
            reject(ErrorReason.DUPLICATE_ID, transaction_id=transaction_id)
        elif known["vanished"]:
            row = await self.connection.fetchrow(_RETURN, transaction_id)
        else:
            return
        await self._report(EventKind.SEEN, row, 0)

    async def vanish(self, transaction_id: str) -> bool:
        """A transaction is gone. False where there is none of this id."""
        row = await self.connection.fetchrow("SELECT * FROM sim_incoming WHERE transaction_id = $1", transaction_id)
        if row is None:
            return False
        if not row["vanished"]:
            await self.connection.execute(
                "UPDATE sim_incoming SET vanished = true, height = NULL WHERE transaction_id = $1", transaction_id
            )
            await self._report(EventKind.VANISHED, row, 0)
        return True

    async def grow(self) -> None:
        """One block: all that waits stands in it, late reports that are due arrive, and confirmations are told."""
        self.height += 1
        await self.connection.execute(
            "UPDATE sim_incoming SET height = $1 WHERE height IS NULL AND NOT vanished", self.height
        )
        await self.connection.execute(
            "UPDATE sim_sends SET height = $1 WHERE height IS NULL AND refused IS NULL", self.height
        )
        for row in await self.connection.fetch(_DUE, self.height):
            await self._number(tuple(row.values()))
        confirmed = "SELECT * FROM sim_incoming WHERE height > $1 ORDER BY height, transaction_id"
        for row in await self.connection.fetch(confirmed, self.height - self.depth):
            await self._report(EventKind.CONFIRMATIONS, row, self.height - row["height"] + 1)
        blocks = self.faults.reorg_blocks(self.height)
        if blocks:
            await self.reorganise(blocks)

    async def reorganise(self, blocks: int) -> None:
        """The newest blocks are replaced by empty ones: what stood in them waits again."""
        floor = self.height - blocks
        await self.connection.execute("UPDATE sim_sends SET height = NULL WHERE height > $1", floor)
        gone = "SELECT * FROM sim_incoming WHERE height > $1 ORDER BY height, transaction_id"
        for row in await self.connection.fetch(gone, floor):
            await self._report(EventKind.VANISHED, row, 0)
            again = await self.connection.fetchrow(_RETURN, row["transaction_id"])
            await self._report(EventKind.SEEN, again, 0)

    async def _report(self, kind: EventKind, row: Any, confirmations: int) -> None:
        described = (
            kind.value,
            *(row[name] for name in ("transaction_id", "output", "appearance", "address", "asset", "amount")),
            confirmations,
        )
        for late in self.faults.lateness(self.reports + 1):
            if late:
                await self.connection.execute(_LATE, self.height + late, *described)
            else:
                await self._number(described)

    async def _number(self, described: tuple[Any, ...]) -> None:
        self.reports += 1
        await self.connection.execute(_REPORT, self.reports, *described)

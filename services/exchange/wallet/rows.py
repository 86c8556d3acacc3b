"""Rows that are driven on one by one, and what becomes of one whose step failed."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

import grpc
import structlog

from exchange.runtime.errors import ServiceError

if TYPE_CHECKING:
    from asyncpg import Record

    from exchange.runtime.database import Database
    from exchange.wallet.engine import Funds, Ledger
    from exchange.wallet.metrics import WalletMetrics

ROWS_AT_ONCE: Final = 100
DRIVE_EVERY_S: Final = 0.2
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
MAX_PROBLEM: Final = 300

_DUE: Final = {
    "CREDIT": "SELECT deposit_id FROM wallet_deposits WHERE status = 'CONFIRMED' AND next_at <= clock_timestamp()"
    " ORDER BY deposit_id LIMIT $1",
    "REVERSE": "SELECT deposit_id FROM wallet_deposits WHERE (status = 'CREDITED' AND vanished"
    " OR status = 'REVERSED' AND reversal <> 'DONE') AND next_at <= clock_timestamp() ORDER BY deposit_id LIMIT $1",
}
_POSTPONE: Final = """
UPDATE wallet_deposits SET problem = $2, attempts = attempts + 1,
    next_at = clock_timestamp() + make_interval(secs => least($4, $3 * power(2, least(attempts, 20))))
WHERE deposit_id = $1
"""
# The other side is away: the next row would wait as long.
_AWAY: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class NotYet(Exception):
    """The row waits for something that is nobody's failure; the message says for what."""


class DepositDriver:
    """A driver of deposits in one kind of state."""

    every_s = DRIVE_EVERY_S
    kind: str
    name: str

    def __init__(self, database: Database, funds: Funds, ledger: Ledger, metrics: WalletMetrics) -> None:
        self._database = database
        self._funds = funds
        self._ledger = ledger
        self._metrics = metrics
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("deposits")

    @abstractmethod
    async def step(self, deposit_id: int) -> None:
        """Take this one as far as it goes. May raise anything."""

    async def drive(self) -> bool:
        """All that are due; whether there are more. Raises ServiceError where the database is away."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_DUE[self.kind], ROWS_AT_ONCE)
        for row in rows:
            if not await self._try(row["deposit_id"]):
                return False
        return len(rows) == ROWS_AT_ONCE

    async def _try(self, deposit_id: int) -> bool:
        """Whether the next one is worth trying."""
        try:
            await self.step(deposit_id)
        except ServiceError as error:
            self._log.warning("a deposit waits", deposit=deposit_id, step=self.name, error=repr(error))
            await self._postpone(deposit_id, f"{error.reason_name}: {error}")
            return error.code not in _AWAY
        except NotYet as error:
            await self._postpone(deposit_id, str(error))
        except Exception as error:  # noqa: BLE001 - a defect that meets one row must not stop the others
            self._log.exception("a deposit cannot be moved on", deposit=deposit_id, step=self.name)
            await self._postpone(deposit_id, f"{type(error).__name__}: {error}")
        return True

    async def _postpone(self, deposit_id: int, problem: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(_POSTPONE, deposit_id, problem[:MAX_PROBLEM], FIRST_PAUSE_S, LONGEST_PAUSE_S)

    async def _moved(self, statement: str, *values: object) -> Record | None:
        """The row after a statement that moves it on; None where another worker was faster."""
        async with self._database.connection() as connection:
            return await connection.fetchrow(statement, *values)

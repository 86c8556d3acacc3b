"""Corrections: money between an account and `$suspense`, by an engine command that one proposes and another approves.

PROPOSED -> APPROVED -> CARRIED_OUT, or REJECTED. What is APPROVED is driven on until the engine's answer is known, by
whoever approved it and by the writing instance, after any crash: the command's id makes it happen once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from exchange.domain.decimals import format_units
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.fields import fingerprint

if TYPE_CHECKING:
    from datetime import datetime

    from exchange.runtime.database import Database

SUSPENSE: Final = "$suspense"
PROPOSED: Final = "PROPOSED"
APPROVED: Final = "APPROVED"
CARRIED_OUT: Final = "CARRIED_OUT"
REJECTED: Final = "REJECTED"
DRIVE_EVERY_S: Final = 2.0
DRIVE_AT_ONCE: Final = 20
# An earlier call whose outcome is not known may still arrive at the engine for so long; a refusal before is not the last word.
LINGERING_S: Final = 60.0

# With these the engine says that it will not.
_REFUSALS: Final = frozenset(
    {
        ErrorReason.INSUFFICIENT_FUNDS,
        ErrorReason.UNKNOWN_ASSET,
        ErrorReason.BALANCE_LIMIT,
        ErrorReason.TOO_MANY_OBJECTS,
        ErrorReason.NUMBER_TOO_LARGE,
        ErrorReason.DUPLICATE_ID,
        ErrorReason.INVALID_FIELD,
    }
)
_DRIVER_LOCK: Final = 0x50_49_43  # with the correction's number: one driver at a time, of all instances

_SELECT: Final = (
    "SELECT c.*, s.decimals FROM settlement_corrections c JOIN assets s ON s.code = c.asset WHERE correction_id = $1"
)
_PROPOSE: Final = """
INSERT INTO settlement_corrections (request_id, request_hash, account, asset, amount, reason, proposed_by)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (request_id) DO NOTHING
"""
_DECIDE: Final = """
UPDATE settlement_corrections SET status = $2, decided_by = $3, decided_at = clock_timestamp(), decision_reason = $4
WHERE correction_id = $1
"""
_END: Final = """
UPDATE settlement_corrections SET status = $2, sequence = $3, problem = $4, asked_at = NULL
WHERE correction_id = $1 AND status = 'APPROVED'
"""
_ASK: Final = """
UPDATE settlement_corrections c SET asked_at = clock_timestamp() FROM settlement_corrections old
WHERE c.correction_id = $1 AND old.correction_id = $1 AND c.status = 'APPROVED'
RETURNING old.asked_at IS NOT NULL AND old.asked_at > clock_timestamp() - make_interval(secs => $2) AS lingering, old.asked_at
"""


class Funds(Protocol):
    """The engine's FundsService, as far as it is needed here."""

    async def transfer(
        self, account: str, to_account: str, asset: str, amount: str, request_id: str, reason: str
    ) -> int:
        """Move it; the engine's sequence. Raises ServiceError."""
        ...


@dataclass(frozen=True, slots=True)
class Correction:
    """One row; `amount` is in smallest units, negative where it is taken from the account."""

    correction_id: int
    account: str
    asset: str
    amount: int
    decimals: int
    reason: str
    status: str
    proposed_by: str
    proposed_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    sequence: int | None
    problem: str | None

    @classmethod
    def of(cls, row: Any) -> Correction:
        """From a row with the asset's decimals."""
        return cls(**{name: row[name] for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is to be put right."""

    account: str
    asset: str
    amount: int
    request_id: str
    reason: str
    proposed_by: str


class Corrections:
    """All of them, in the database; `funds` carries them out."""

    def __init__(self, database: Database, funds: Funds) -> None:
        self._database = database
        self._funds = funds
        # A driver takes two connections of the pool: one at a time in a process.
        self._driving = asyncio.Lock()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("corrections")

    async def propose(self, proposal: Proposal) -> Correction:
        """Put it on record, once for its request id. Raises ServiceError DUPLICATE_ID for another one of this id."""
        asked = fingerprint(proposal.account, proposal.asset, str(proposal.amount))
        async with self._database.transaction() as connection:
            await connection.execute(
                _PROPOSE,
                proposal.request_id,
                asked,
                proposal.account,
                proposal.asset,
                proposal.amount,
                proposal.reason,
                proposal.proposed_by,
            )
            row = await connection.fetchrow(
                "SELECT c.*, s.decimals FROM settlement_corrections c JOIN assets s ON s.code = c.asset"
                " WHERE request_id = $1",
                proposal.request_id,
            )
        assert row is not None, "inserted above, or there before"
        if row["request_hash"] != asked:
            reject(ErrorReason.DUPLICATE_ID, request_id=proposal.request_id)
        return Correction.of(row)

    async def approve(self, correction_id: int, who: str, reason: str) -> Correction:
        """Have it carried out; what is approved already is driven on.

        Raises ServiceError RECORD_NOT_FOUND, FOUR_EYES for who proposed it, RECORD_STATE for one that was rejected.
        """
        async with self._database.transaction() as connection:
            found = await self._locked(connection, correction_id)
            if found.proposed_by == who:
                reject(ErrorReason.FOUR_EYES, correction_id=correction_id)
            if found.status == REJECTED:
                reject(ErrorReason.RECORD_STATE, correction_id=correction_id, status=found.status)
            if found.status == PROPOSED:
                await connection.execute(_DECIDE, correction_id, APPROVED, who, reason)
        await self.drive(correction_id)
        return await self.get(correction_id)

    async def reject(self, correction_id: int, who: str, reason: str) -> Correction:
        """Refuse it; who proposed it may take it back so. Raises ServiceError RECORD_NOT_FOUND, RECORD_STATE."""
        async with self._database.transaction() as connection:
            found = await self._locked(connection, correction_id)
            if found.status in {APPROVED, CARRIED_OUT}:
                reject(ErrorReason.RECORD_STATE, correction_id=correction_id, status=found.status)
            if found.status == PROPOSED:
                await connection.execute(_DECIDE, correction_id, REJECTED, who, reason)
        return await self.get(correction_id)

    async def get(self, correction_id: int) -> Correction:
        """One. Raises ServiceError RECORD_NOT_FOUND."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SELECT, correction_id)
        if row is None:
            reject(ErrorReason.RECORD_NOT_FOUND, correction_id=correction_id)
        return Correction.of(row)

    async def listed(self, before: int, limit: int) -> list[Correction]:
        """The newest below a number, 0 for all."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT c.*, s.decimals FROM settlement_corrections c JOIN assets s ON s.code = c.asset"
                " WHERE $1 = 0 OR correction_id < $1 ORDER BY correction_id DESC LIMIT $2",
                before,
                limit,
            )
        return [Correction.of(row) for row in rows]

    async def drive_all(self) -> None:
        """Drive on what is approved. Raises ServiceError NOT_READY."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT correction_id FROM settlement_corrections WHERE status = 'APPROVED'"
                " ORDER BY correction_id LIMIT $1",
                DRIVE_AT_ONCE,
            )
        for row in rows:
            await self.drive(row["correction_id"])

    async def drive(self, correction_id: int) -> None:
        """Ask the engine, unless another instance asks now or the answer is known."""
        async with self._driving, self._database.transaction() as lock:
            if not await lock.fetchval("SELECT pg_try_advisory_xact_lock($1, $2)", _DRIVER_LOCK, correction_id):
                return
            async with self._database.connection() as connection:
                asked = await connection.fetchrow(_ASK, correction_id, LINGERING_S)
                if asked is None:
                    return
            await self._ask(await self.get(correction_id), asked)

    async def _ask(self, correction: Correction, asked: Any) -> None:
        number = correction.correction_id
        try:
            sequence = await self._funds.transfer(*_transfer(correction))
        except ServiceError as error:
            if error.reason not in _REFUSALS:
                self._log.warning("a correction waits for the engine", correction=number, error=str(error))
            elif asked["lingering"]:
                await self._execute(
                    "UPDATE settlement_corrections SET problem = $2, asked_at = $3 WHERE correction_id = $1",
                    number,
                    f"refused, but an earlier call may still arrive: {error.reason_name}",
                    asked["asked_at"],
                )
            else:
                giver = _transfer(correction)[0]
                await self._execute(_END, number, REJECTED, None, f"{error.reason_name}: {giver}: {error}")
                self._log.warning("the engine refused a correction", correction=number, error=str(error))
        else:
            await self._execute(_END, number, CARRIED_OUT, sequence, None)
            self._log.info("a correction is carried out", correction=number, sequence=sequence)

    async def _execute(self, statement: str, *values: object) -> None:
        async with self._database.connection() as connection:
            await connection.execute(statement, *values)

    @staticmethod
    async def _locked(connection: Any, correction_id: int) -> Correction:
        row = await connection.fetchrow(f"{_SELECT} FOR NO KEY UPDATE OF c", correction_id)
        if row is None:
            reject(ErrorReason.RECORD_NOT_FOUND, correction_id=correction_id)
        return Correction.of(row)


def _transfer(correction: Correction) -> tuple[str, str, str, str, str, str]:
    """(from, to, asset, amount, request id, reason) of the engine's command."""
    giver, taker = SUSPENSE, correction.account
    if correction.amount < 0:
        giver, taker = taker, giver
    amount = format_units(abs(correction.amount), correction.decimals)
    number = correction.correction_id
    return giver, taker, correction.asset, amount, f"correction:{number}", correction.reason

"""A case as it is stored, and the statements that every part of KYC has in common."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exchange.runtime.errors import ErrorReason, reject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from exchange.kyc.person import Person
    from exchange.runtime.database import Connection, Database

SUBMITTED: Final = "SUBMITTED"
IN_REVIEW: Final = "IN_REVIEW"
MORE_NEEDED: Final = "MORE_NEEDED"
APPROVED: Final = "APPROVED"
REJECTED: Final = "REJECTED"
EXPIRED: Final = "EXPIRED"
STATUSES: Final = (SUBMITTED, IN_REVIEW, MORE_NEEDED, APPROVED, REJECTED, EXPIRED)

# Decisions that are no status.
REPLACED: Final = "REPLACED"
ERASED: Final = "ERASED"

COLUMNS: Final = (
    "case_id, user_id, requested_tier, status, key_id, revision, sealed_data, sealed_message, screening_hits, submitted_at, "
    "decided_by, decided_at, expire_at, erased_at"
)
_LOCK: Final = 0x4B59  # with a hash of the user: one change of a user's cases at a time
_MAX_ID_DIGITS: Final = 18


@dataclass(frozen=True, slots=True)
class Case:
    """One row, still sealed."""

    case_id: int
    user_id: str
    requested_tier: int
    status: str
    key_id: int
    revision: int
    sealed_data: bytes | None
    sealed_message: bytes | None
    screening_hits: tuple[str, ...]
    submitted_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    expire_at: datetime | None
    erased_at: datetime | None

    @classmethod
    def of(cls, row: Any) -> Case:
        """From a row of COLUMNS."""
        return cls(**{**row, "screening_hits": tuple(row["screening_hits"])})


@dataclass(frozen=True, slots=True)
class OpenCase:
    """A case with what was sealed; `person` None once it is erased."""

    case: Case
    person: Person | None
    message: str


def case_number(text: str) -> int:
    """The number of a case id. Raises ServiceError FIELD_REQUIRED, and KYC_CASE_NOT_FOUND for what cannot be one."""
    if not text:
        reject(ErrorReason.FIELD_REQUIRED, field="case_id")
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_ID_DIGITS):
        reject(ErrorReason.KYC_CASE_NOT_FOUND)
    return int(text)


@asynccontextmanager
async def changing(database: Database, user: str) -> AsyncIterator[Connection]:
    """A transaction that alone changes what KYC knows of a user. Raises as `Database.connection`."""
    async with database.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _LOCK, user)
        yield connection


async def find(connection: Connection, case_id: int) -> Case:
    """One case. Raises ServiceError KYC_CASE_NOT_FOUND."""
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM kyc_cases WHERE case_id = $1", case_id)  # noqa: S608 - a constant
    if row is None:
        reject(ErrorReason.KYC_CASE_NOT_FOUND, case_id=case_id)
    return Case.of(row)


async def newest(connection: Connection, user: str) -> Case | None:
    """The newest case of a user."""
    row = await connection.fetchrow(
        f"SELECT {COLUMNS} FROM kyc_cases WHERE user_id = $1 ORDER BY case_id DESC LIMIT 1",  # noqa: S608 - a constant
        user,
    )
    return None if row is None else Case.of(row)


async def decide(connection: Connection, case_id: int, decision: str, who: str) -> None:
    """Put a decision on record, which nothing removes."""
    await connection.execute(
        "INSERT INTO kyc_decisions (case_id, decision, decided_by) VALUES ($1, $2, $3)", case_id, decision, who
    )


async def change_tier(
    connection: Connection, user: str, tier: int, cause: str, case_id: int, expire_at: datetime | None
) -> None:
    """Give a user a tier from now on, and leave word that the auth service must be told."""
    await connection.execute(
        "WITH change AS (INSERT INTO kyc_tier_changes (user_id, tier, cause, case_id) VALUES ($1, $2, $3, $4)"
        " RETURNING change_id)"
        " INSERT INTO kyc_user_tiers (user_id, tier, expire_at, change_id)"
        " SELECT $1, $2, $5::timestamptz, change_id FROM change"
        " ON CONFLICT (user_id) DO UPDATE SET tier = excluded.tier, expire_at = excluded.expire_at,"
        " change_id = excluded.change_id, tell_after = clock_timestamp()",
        user,
        tier,
        cause,
        case_id,
        expire_at,
    )

"""What reviewers do: look at cases, approve, reject, ask for more; and the erasure of a user's data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exchange.kyc import case as cases
from exchange.kyc.case import APPROVED, ERASED, EXPIRED, IN_REVIEW, MORE_NEEDED, REJECTED, REPLACED, Case, OpenCase
from exchange.kyc.submissions import opened
from exchange.runtime.errors import ErrorReason, ServiceError, reject

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from exchange.kyc.tiers import KycTiers, TierLimits
    from exchange.kyc.vault import Vault
    from exchange.runtime.database import Connection, Database

MAX_CHANGES: Final = 100
"""Changes of a tier that are shown."""
_OPEN: Final = frozenset({cases.SUBMITTED, IN_REVIEW, MORE_NEEDED})


@dataclass(frozen=True, slots=True)
class Reviewer:
    """Who decides: the user (or "account:..."), and as records name it."""

    user: str
    name: str


@dataclass(frozen=True, slots=True)
class TierChange:
    """What gave a user its tier."""

    tier: int
    cause: str
    case_id: int
    changed_at: datetime


class Review:
    """Every method raises ServiceError; `decided` is called with a decision's name once it is committed."""

    def __init__(self, database: Database, vault: Vault, tiers: KycTiers, decided: Callable[[str], None]) -> None:
        self._database = database
        self._vault = vault
        self._tiers = tiers
        self._decided = decided

    async def listed(self, status: str, after: int, limit: int) -> list[Case]:
        """Cases of a status, the oldest first, those behind a number; sealed."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {cases.COLUMNS} FROM kyc_cases WHERE status = $1 AND case_id > $2 ORDER BY case_id LIMIT $3",  # noqa: S608 - a constant
                status,
                after,
                limit,
            )
        return [Case.of(row) for row in rows]

    async def look(self, case_id: int) -> OpenCase:
        """One case, with personal data. The caller has put the look on record. Raises KYC_CASE_NOT_FOUND."""
        async with self._database.transaction() as connection:
            return await opened(connection, self._vault, await cases.find(connection, case_id))

    async def approve(self, case_id: int, reviewer: Reviewer, reason: str) -> OpenCase:
        """Give the tier; one that is approved already stays as it is.

        Raises ServiceError KYC_CASE_NOT_FOUND, FOUR_EYES, KYC_CASE_STATE, and FIELD_REQUIRED where the screening found something
        and no reason is given.
        """
        return await self._decide(case_id, reviewer, reason, APPROVED)

    async def reject(self, case_id: int, reviewer: Reviewer, reason: str) -> OpenCase:
        """Refuse it; one that is rejected already stays as it is. Raises as `approve`."""
        return await self._decide(case_id, reviewer, reason, REJECTED)

    async def ask(self, case_id: int, reviewer: Reviewer, reason: str) -> OpenCase:
        """Send it back to the user; one that was sent back already gets the new question. Raises as `approve`."""
        return await self._decide(case_id, reviewer, reason, MORE_NEEDED)

    async def erase(self, user: str, who: str) -> None:
        """Make all personal data of a user unreadable: its key is destroyed, what was sealed with it is removed.

        An open case is rejected by it, an approved one ends, and with it the tier. Raises KYC_CASE_NOT_FOUND for a user that
        never submitted anything; for one that is erased already nothing changes.
        """
        async with cases.changing(self._database, user) as connection:
            rows = await connection.fetch(
                f"SELECT {cases.COLUMNS} FROM kyc_cases WHERE user_id = $1 ORDER BY case_id",  # noqa: S608 - a constant
                user,
            )
            if not rows:
                reject(ErrorReason.KYC_CASE_NOT_FOUND)
            await self._vault.destroy(connection, user)
            for case in map(Case.of, rows):
                if case.erased_at is None:
                    await _erase_case(connection, case, who)
            await connection.execute("UPDATE kyc_submissions SET request_hash = NULL WHERE user_id = $1", user)
        self._decided(ERASED)

    async def tier_of(self, user: str) -> tuple[TierLimits, list[TierChange]]:
        """What a user has now, and what changed it, the newest first."""
        async with self._database.reading() as connection:
            limits = await self._tiers.read(connection, user)
            rows = await connection.fetch(
                "SELECT tier, cause, case_id, changed_at FROM kyc_tier_changes WHERE user_id = $1"
                " ORDER BY change_id DESC LIMIT $2",
                user,
                MAX_CHANGES,
            )
        return limits, [TierChange(**row) for row in rows]

    async def _decide(self, case_id: int, reviewer: Reviewer, reason: str, decision: str) -> OpenCase:
        async with self._database.connection() as connection:
            user = (await cases.find(connection, case_id)).user_id
        async with cases.changing(self._database, user) as connection:
            case = await cases.find(connection, case_id)
            if user == reviewer.user:
                raise ServiceError(
                    ErrorReason.FOUR_EYES, "nobody decides a case of their own user", metadata={"case_id": case_id}
                )
            # A repeat of the call is answered as it was; a new question may take the place of the last one.
            again = case.status == decision
            if not again and case.status != IN_REVIEW:
                reject(ErrorReason.KYC_CASE_STATE, case_id=case_id, status=case.status)
            if again and decision != MORE_NEEDED:
                return await opened(connection, self._vault, case)
            if decision == APPROVED:
                if case.screening_hits and not reason:
                    raise ServiceError(
                        ErrorReason.FIELD_REQUIRED,
                        "the screening found something: say why it is approved",
                        metadata={"field": "reason"},
                    )
                await self._give(connection, case, reviewer)
            await self._close(connection, case, reviewer, reason, decision)
            found = await opened(connection, self._vault, await cases.find(connection, case_id))
        self._decided(decision)
        return found

    async def _give(self, connection: Connection, case: Case, reviewer: Reviewer) -> None:
        """The tier, in the place of what an earlier case gave."""
        replaced = await connection.fetch(
            "UPDATE kyc_cases SET status = 'EXPIRED' WHERE user_id = $1 AND status = 'APPROVED' RETURNING case_id",
            case.user_id,
        )
        for row in replaced:
            await cases.decide(connection, row["case_id"], REPLACED, reviewer.name)
        expire_at = await connection.fetchval(
            "UPDATE kyc_cases SET expire_at = clock_timestamp() + make_interval(days => $2) WHERE case_id = $1 RETURNING expire_at",
            case.case_id,
            self._tiers.table[case.requested_tier].valid_days,
        )
        await cases.change_tier(connection, case.user_id, case.requested_tier, "approved", case.case_id, expire_at)

    async def _close(self, connection: Connection, case: Case, reviewer: Reviewer, reason: str, decision: str) -> None:
        box = await self._vault.box_of(connection, case.key_id)
        assert box is not None, "an erased case is closed"
        sealed: Any = box.seal(reason.encode(), f"message:{case.case_id}") if reason else None
        await connection.execute(
            "UPDATE kyc_cases SET status = $2, sealed_message = $3, decided_by = $4, decided_at = clock_timestamp()"
            " WHERE case_id = $1",
            case.case_id,
            decision,
            sealed,
            reviewer.name,
        )
        await cases.decide(connection, case.case_id, decision, reviewer.name)


async def _erase_case(connection: Connection, case: Case, who: str) -> None:
    status = case.status
    if status == APPROVED:
        status = EXPIRED
        await cases.change_tier(connection, case.user_id, 0, "erased", case.case_id, None)
    elif status in _OPEN:
        status = REJECTED
    await connection.execute(
        "UPDATE kyc_cases SET status = $2, sealed_data = NULL, sealed_message = NULL, erased_at = clock_timestamp(),"
        " decided_by = coalesce(decided_by, $3), decided_at = coalesce(decided_at, clock_timestamp()) WHERE case_id = $1",
        case.case_id,
        status,
        who,
    )
    await cases.decide(connection, case.case_id, ERASED, who)

"""What users do: submit who they are, answer when more is asked, and see where they stand."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from exchange.kyc import case as cases
from exchange.kyc.case import IN_REVIEW, MORE_NEEDED, REJECTED, SUBMITTED, Case, OpenCase
from exchange.kyc.person import Person, checked
from exchange.kyc.tiers import HIGHEST
from exchange.runtime.errors import ErrorReason, ServiceError, reject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exchange.kyc.tiers import KycTiers, TierLimits
    from exchange.kyc.vault import Vault
    from exchange.runtime.clock import Clock
    from exchange.runtime.database import Connection, Database

_TOLD: Final = frozenset({MORE_NEEDED, REJECTED})
"""Where the user is told what the reviewer wrote; the reasons of an approval are not meant for it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds for a user, and its newest case."""

    limits: TierLimits
    case: Case | None
    message: str


class Submissions:
    """Every method raises ServiceError; `submitted` is called once something waits to be screened."""

    def __init__(
        self, database: Database, vault: Vault, tiers: KycTiers, clock: Clock, submitted: Callable[[], None]
    ) -> None:
        self._database = database
        self._vault = vault
        self._tiers = tiers
        self._clock = clock
        self._submitted = submitted

    async def standing(self, user: str) -> Standing:
        """Where a user stands."""
        async with self._database.transaction() as connection:
            return await self._standing(connection, user)

    async def submit(self, user: str, request_id: str, tier: int, data: Mapping[str, str]) -> Standing:
        """Open a case, or give anew what was asked for; a repeat changes nothing.

        Raises ServiceError for wrong data, see `person.checked`; INVALID_FIELD for a tier that is none; DUPLICATE_ID for an id
        that was used with other data, or whose data was erased; KYC_CASE_STATE while a case is under review or where a
        higher tier holds.
        """
        if not 1 <= tier <= HIGHEST:
            raise ServiceError(
                ErrorReason.INVALID_FIELD, f"tier must be 1 to {HIGHEST}", metadata={"field": "tier", "value": tier}
            )
        person = checked(data, tier, datetime.fromtimestamp(self._clock.time_ns() / 1e9, UTC).date())
        asked = self._vault.request_hash(user, tier, person)
        async with cases.changing(self._database, user) as connection:
            if not await self._is_repeat(connection, user, request_id, asked):
                case_id = await self._take(connection, user, tier, person)
                await connection.execute(
                    "INSERT INTO kyc_submissions (user_id, request_id, request_hash, case_id) VALUES ($1, $2, $3, $4)",
                    user,
                    request_id,
                    asked,
                    case_id,
                )
            found = await self._standing(connection, user)
        self._submitted()
        return found

    async def _is_repeat(self, connection: Connection, user: str, request_id: str, asked: bytes) -> bool:
        row = await connection.fetchrow(
            "SELECT request_hash FROM kyc_submissions WHERE user_id = $1 AND request_id = $2", user, request_id
        )
        if row is None:
            return False
        if row["request_hash"] is None or not hmac.compare_digest(row["request_hash"], asked):
            reject(ErrorReason.DUPLICATE_ID, request_id=request_id)
        return True

    async def _take(self, connection: Connection, user: str, tier: int, person: Person) -> int:
        """The number of the case that the data is in now."""
        limits = await self._tiers.read(connection, user)
        if limits.tier > tier:
            raise ServiceError(
                ErrorReason.KYC_CASE_STATE,
                f"tier {limits.tier} holds: a lower one is nothing to ask for",
                metadata={"tier": limits.tier},
            )
        case = await cases.newest(connection, user)
        if case is not None and case.status in {SUBMITTED, IN_REVIEW}:
            reject(ErrorReason.KYC_CASE_STATE, case_id=case.case_id, status=case.status)
        box = await self._vault.box(connection, user)
        if case is not None and case.status == MORE_NEEDED:
            case_id = case.case_id
        else:
            case_id = await connection.fetchval(
                "INSERT INTO kyc_cases (user_id, requested_tier, key_id, revision) VALUES ($1, $2, $3, 0) RETURNING case_id",
                user,
                tier,
                box.key_id,
            )
        await connection.execute(
            "UPDATE kyc_cases SET requested_tier = $2, status = 'SUBMITTED', sealed_data = $3, screening_hits = '{}',"
            " revision = revision + 1, submitted_at = clock_timestamp() WHERE case_id = $1",
            case_id,
            tier,
            box.seal(person.to_bytes(), f"data:{case_id}"),
        )
        return int(case_id)

    async def _standing(self, connection: Connection, user: str) -> Standing:
        limits = await self._tiers.read(connection, user)
        case = await cases.newest(connection, user)
        message = ""
        if case is not None and case.status in _TOLD:
            message = (await opened(connection, self._vault, case)).message
        return Standing(limits, case, message)


async def opened(connection: Connection, vault: Vault, case: Case) -> OpenCase:
    """The case with what is sealed in it. Raises ServiceError INTERNAL where it does not open."""
    box = None
    if case.sealed_data is not None or case.sealed_message is not None:
        box = await vault.box_of(connection, case.key_id)
    if box is None:
        return OpenCase(case, None, "")
    person = None
    if case.sealed_data is not None:
        person = Person.from_bytes(box.open(case.sealed_data, f"data:{case.case_id}"))
    message = "" if case.sealed_message is None else box.open(case.sealed_message, f"message:{case.case_id}").decode()
    return OpenCase(case, person, message)

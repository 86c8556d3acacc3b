"""What goes on without anybody calling: cases are screened, tiers end, and the auth service is told of them.

Each step is a row that says what is still to be done, so a process that is killed leaves nothing half done: the next one
finds the row. Of several instances one works at a time.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from exchange.kyc import case as cases
from exchange.kyc.case import EXPIRED, Case
from exchange.kyc.screening import ScreeningAway
from exchange.kyc.submissions import opened
from exchange.kyc.tiers import PROFESSIONAL, STANDARD
from exchange.runtime.audit.contract import AuditEntry
from exchange.runtime.errors import ErrorReason, ServiceError

if TYPE_CHECKING:
    from exchange.kyc.metrics import KycMetrics
    from exchange.kyc.screening import ScreeningProvider
    from exchange.kyc.tiers import KycTiers
    from exchange.kyc.vault import Vault
    from exchange.runtime.audit.contract import AuditTrail
    from exchange.runtime.database import Database

EVERY_S: Final = 2.0
AT_ONCE: Final = 20
"""Rows of one kind in one round."""
SCREENING_S: Final = 10.0
TELL_AGAIN_S: Final = 30.0
"""So long one that the auth service refused is left alone."""
ACTOR: Final = "kyc"
"""Who ends tiers, in records."""
_LOCK: Final = 0x4B594331

# KYC moves users between these two; what an operator gave by hand (institution, market_maker) stays.
_OURS: Final = frozenset({STANDARD, PROFESSIONAL})
_AWAY: Final = frozenset(
    {
        *(ErrorReason.UPSTREAM_UNAVAILABLE, ErrorReason.UPSTREAM_TIMEOUT, ErrorReason.AUTH_UNAVAILABLE),
        *(ErrorReason.NOT_READY, ErrorReason.DRAINING),
    }
)


class TradingTiers(Protocol):
    """The auth service, as far as it is needed here."""

    async def present(self, user: str) -> str | None:
        """The trading tier of a user; None where there is no such user. Raises ServiceError."""
        ...

    async def give(self, user: str, trading_tier: str, reason: str) -> None:
        """Give another one; again is no harm. Raises ServiceError."""
        ...


class Worker:
    """The rounds of one instance."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        tiers: KycTiers,
        screening: ScreeningProvider,
        auth: TradingTiers,
        trail: AuditTrail,
        metrics: KycMetrics,
    ) -> None:
        self._database = database
        self._vault = vault
        self._tiers = tiers
        self._screening = screening
        self._auth = auth
        self._trail = trail
        self._metrics = metrics
        self._screened = 0
        self._woken = asyncio.Event()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("kyc")

    def wake(self) -> None:
        """There is something to do now."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled; what fails is tried again for ever."""
        while True:
            self._woken.clear()
            try:
                await self.round()
            except ServiceError as error:
                self._log.warning("KYC waits", error=str(error))
            except Exception as error:  # noqa: BLE001 - a defect in one round must not end the others
                # The kind alone: texts of errors may repeat what they stumbled over.
                self._log.error("a round of KYC failed", error=type(error).__name__)
            try:
                await asyncio.wait_for(self._woken.wait(), EVERY_S)
            except TimeoutError:
                continue

    async def round(self) -> bool:
        """Do what is to be done now; False where another instance does. Raises ServiceError NOT_READY."""
        async with self._database.transaction() as lock:
            if not await lock.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                return False
            await self._screen()
            await self._expire()
            await self._tell()
            await self._count()
            return True

    # --- SUBMITTED -> IN_REVIEW ---

    async def _screen(self) -> None:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {cases.COLUMNS} FROM kyc_cases WHERE status = 'SUBMITTED' AND case_id > $1"  # noqa: S608 - a constant
                " ORDER BY case_id LIMIT $2",
                self._screened,
                AT_ONCE,
            )
        # From where the last round ended: cases that cannot be screened now do not keep the others waiting.
        self._screened = rows[-1]["case_id"] if len(rows) == AT_ONCE else 0
        for row in rows:
            await self._screen_one(Case.of(row))

    async def _screen_one(self, case: Case) -> None:
        async with self._database.transaction() as connection:
            person = (await opened(connection, self._vault, case)).person
        if person is None:
            return
        try:
            async with asyncio.timeout(SCREENING_S):
                hits = await self._screening.screen(person)
        except (ScreeningAway, TimeoutError) as error:
            self._metrics.failed_screenings.inc()
            self._log.warning(
                "a case waits for its screening", case=case.case_id, error=str(error) or "no answer in time"
            )
            return
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE kyc_cases SET status = 'IN_REVIEW', screening_hits = $3"
                " WHERE case_id = $1 AND revision = $2 AND status = 'SUBMITTED'",
                case.case_id,
                case.revision,
                list(hits),
            )
        self._log.info("a case waits for a reviewer", case=case.case_id, hits=len(hits))

    # --- APPROVED -> EXPIRED ---

    async def _expire(self) -> None:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT user_id FROM kyc_user_tiers WHERE tier > 0 AND expire_at <= clock_timestamp()"
                " ORDER BY expire_at LIMIT $1",
                AT_ONCE,
            )
        for row in rows:
            await self._expire_one(row["user_id"])

    async def _expire_one(self, user: str) -> None:
        async with cases.changing(self._database, user) as connection:
            # Looked at again: meanwhile a new approval may have taken its place.
            case_id = await connection.fetchval(
                "UPDATE kyc_cases SET status = 'EXPIRED' WHERE user_id = $1 AND status = 'APPROVED'"
                " AND expire_at <= clock_timestamp() RETURNING case_id",
                user,
            )
            if case_id is None:
                return
            await cases.decide(connection, case_id, EXPIRED, ACTOR)
            await cases.change_tier(connection, user, 0, "expired", case_id, None)
        self._metrics.decisions.labels(EXPIRED).inc()
        self._log.info("a tier has expired", user=user, case=case_id)
        details = json.dumps({"user_id": user, "case_id": str(case_id)})
        await self._trail.happened(AuditEntry("kyc.expired", ACTOR, "", "", details, "", ""))

    # --- the auth service is told ---

    async def _tell(self) -> None:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT t.user_id, t.tier, t.change_id, c.cause FROM kyc_user_tiers t JOIN kyc_tier_changes c USING (change_id)"
                " WHERE t.told < t.change_id AND t.tell_after <= clock_timestamp() ORDER BY t.tell_after LIMIT $1",
                AT_ONCE,
            )
        for row in rows:
            try:
                await self._tell_one(row["user_id"], row["tier"], row["cause"])
            except ServiceError as error:
                self._log.warning("the auth service is not told yet", user=row["user_id"], error=error.reason_name)
                if error.reason in _AWAY:
                    return
                await self._execute(
                    "UPDATE kyc_user_tiers SET tell_after = clock_timestamp() + make_interval(secs => $2) WHERE user_id = $1",
                    row["user_id"],
                    TELL_AGAIN_S,
                )
                continue
            await self._execute(
                "UPDATE kyc_user_tiers SET told = greatest(told, $2) WHERE user_id = $1",
                row["user_id"],
                row["change_id"],
            )

    async def _tell_one(self, user: str, tier: int, cause: str) -> None:
        wanted = self._tiers.table[tier].trading_tier
        present = await self._auth.present(user)
        if present in _OURS and present != wanted:
            await self._auth.give(user, wanted, f"KYC tier {tier}: {cause}")
            self._log.info("a user trades under another tier", user=user, tier=wanted, cause=cause)

    async def _count(self) -> None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT (SELECT count(*) FROM kyc_cases WHERE status = 'IN_REVIEW') AS waiting,"
                " (SELECT count(*) FROM kyc_user_tiers WHERE told < change_id) AS untold"
            )
        assert row is not None, "counts are a row"
        self._metrics.waiting.set(row["waiting"])
        self._metrics.untold.set(row["untold"])

    async def _execute(self, statement: str, *values: object) -> None:
        async with self._database.connection() as connection:
            await connection.execute(statement, *values)

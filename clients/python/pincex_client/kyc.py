"""`ExchangeClient.kyc` and `ExchangeClient.admin.kyc`: who users are, and what their tiers let them do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import grpc.aio

from pincex.kyc.v1 import kyc_service_pb2 as wire
from pincex.kyc.v1 import kyc_service_pb2_grpc
from pincex_client.convert import from_wire
from pincex_client.paging import all_pages
from pincex_client.requests import named_value
from pincex_client.transport import Caller, new_id

MAX_PAGE = 500


@dataclass(frozen=True, slots=True, repr=False)
class PersonalData:
    """Who somebody is. `birth_date` is ISO 8601 ("1990-01-31"), `country` two letters of ISO 3166; `document_number` is for tier 2."""

    full_name: str = ""
    birth_date: str = ""
    country: str = ""
    street_address: str = ""
    city: str = ""
    postal_code: str = ""
    document_number: str = ""

    def __repr__(self) -> str:
        return "PersonalData(***)"


@dataclass(frozen=True, slots=True)
class KycStatus:
    """Where a user stands. `status` is empty without a case; `expire_time` is when the tier ends."""

    tier: int
    case_id: str
    status: str
    requested_tier: int
    message: str
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class KycTier:
    """What a tier allows: withdrawals within 24 hours by asset, limits of trading, days that an approval lasts."""

    tier: int
    daily_withdrawals: Mapping[str, Decimal]
    trading_tier: str
    valid_days: int


@dataclass(frozen=True, slots=True)
class KycCase:
    """A case. `data` is there where it was looked at and is not erased."""

    case_id: str
    user_id: str
    requested_tier: int
    status: str
    screening_hits: tuple[str, ...]
    message: str
    decided_by: str
    submitted_time: datetime | None
    decided_time: datetime | None
    expire_time: datetime | None
    erased: bool


@dataclass(frozen=True, slots=True)
class OpenCase:
    """A case with its personal data, None once it is erased."""

    case: KycCase
    data: PersonalData | None = field(default=None)


@dataclass(frozen=True, slots=True)
class TierChange:
    """`cause` is approved, expired or erased."""

    tier: int
    cause: str
    case_id: str
    change_time: datetime | None


@dataclass(frozen=True, slots=True)
class UserTier:
    """What a user has, and what changed it, the newest first."""

    user_id: str
    tier: int
    expire_time: datetime | None
    changes: tuple[TierChange, ...]


class KycClient:
    """The calling user's own side."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._caller = caller
        self._kyc = kyc_service_pb2_grpc.KycServiceStub(channel)

    async def _call(self, method: Any, request: Any) -> Any:
        return await self._caller.call(method, request, repeatable=True)

    async def tiers(self) -> list[KycTier]:
        """What each tier lets a user do."""
        answer = await self._call(self._kyc.ListKycTiers, wire.ListKycTiersRequest())
        return [
            KycTier(
                tier=one.tier,
                daily_withdrawals={asset: Decimal(amount) for asset, amount in sorted(one.daily_withdrawals.items())},
                trading_tier=one.trading_tier,
                valid_days=one.valid_days,
            )
            for one in answer.tiers
        ]

    async def status(self) -> KycStatus:
        """The tier that holds, and where the newest case stands."""
        return from_wire(KycStatus, await self._call(self._kyc.GetKycStatus, wire.GetKycStatusRequest()))

    async def submit(self, tier: int, data: PersonalData, *, request_id: str = "") -> KycStatus:
        """Ask for a tier, or answer what was asked. The same `request_id` submits once."""
        request = wire.SubmitKycRequest(
            tier=tier,
            data=wire.PersonalData(**{name: getattr(data, name) for name in PersonalData.__dataclass_fields__}),
            request_id=request_id or new_id(),
        )
        return from_wire(KycStatus, await self._call(self._kyc.SubmitKyc, request))


class KycAdmin:
    """For reviewers. Each look at personal data is on record; what a reviewer writes of a person is personal data too."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._caller = caller
        self._kyc = kyc_service_pb2_grpc.KycAdminServiceStub(channel)

    async def _call(self, method: Any, request: Any) -> Any:
        return await self._caller.call(method, request, repeatable=True)

    async def cases(self, *, status: str = "IN_REVIEW", limit: int = 100) -> list[KycCase]:
        """Cases of a status, the oldest first, without personal data."""
        request = wire.ListCasesRequest(status=named_value(wire.CaseStatus, "status", status))
        found: list[KycCase] = []
        async for page in all_pages(self._call, self._kyc.ListCases, request, page_size=min(limit, MAX_PAGE)):
            found += [from_wire(KycCase, one) for one in page.cases]
            if len(found) >= limit:
                break
        return found[:limit]

    async def case(self, case_id: str) -> OpenCase:
        """One, with personal data."""
        answer = await self._call(self._kyc.GetCase, wire.GetCaseRequest(case_id=case_id))
        return OpenCase(
            from_wire(KycCase, answer), from_wire(PersonalData, answer.data) if answer.HasField("data") else None
        )

    async def approve(self, case_id: str, *, reason: str = "") -> KycCase:
        """Give the tier; a reason is required where the screening found something."""
        return from_wire(
            KycCase, await self._call(self._kyc.ApproveCase, wire.ApproveCaseRequest(case_id=case_id, reason=reason))
        )

    async def reject(self, case_id: str, *, reason: str) -> KycCase:
        """Refuse it; the user is told the reason."""
        return from_wire(
            KycCase, await self._call(self._kyc.RejectCase, wire.RejectCaseRequest(case_id=case_id, reason=reason))
        )

    async def ask(self, case_id: str, *, reason: str) -> KycCase:
        """Send it back to the user with a question."""
        return from_wire(
            KycCase, await self._call(self._kyc.AskForMore, wire.AskForMoreRequest(case_id=case_id, reason=reason))
        )

    async def erase(self, user_id: str, *, reason: str) -> None:
        """Make a user's personal data unreadable for good; the reason stays on record."""
        await self._call(self._kyc.ErasePersonalData, wire.ErasePersonalDataRequest(user_id=user_id, reason=reason))

    async def user_tier(self, user_id: str) -> UserTier:
        """The tier of a user, and how it came to be."""
        return from_wire(UserTier, await self._call(self._kyc.GetUserTier, wire.GetUserTierRequest(user_id=user_id)))

"""Cases and tiers as the contract shows them, and its requests' values checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exchange.kyc.review import Reviewer
from exchange.kyc.tiers import ACCOUNT_PREFIX
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.fields import caller, timestamp
from exchange.runtime.request import request_context
from pincex.kyc.v1 import kyc_service_pb2 as pb

if TYPE_CHECKING:
    from exchange.kyc.case import Case, OpenCase
    from exchange.kyc.person import Person
    from exchange.kyc.review import TierChange
    from exchange.kyc.submissions import Standing
    from exchange.kyc.tiers import Tier, TierLimits

MAX_USER: Final = 80
PERSON_FIELDS: Final = (
    *("full_name", "birth_date", "country", "street_address", "city", "postal_code", "document_number"),
)


def caller_user() -> str:
    """Whose cases the caller's are: its user; in the development profile, where there are none, its account."""
    principal = request_context().principal
    return principal.user or f"{ACCOUNT_PREFIX}{principal.account}"


def reviewer() -> Reviewer:
    """Who decides, and how it goes on record."""
    return Reviewer(caller_user(), caller())


def user_id(text: str) -> str:
    """The id of a user. Raises ServiceError FIELD_REQUIRED, INVALID_FIELD for what cannot be one."""
    if not text:
        reject(ErrorReason.FIELD_REQUIRED, field="user_id")
    if len(text) > MAX_USER or not text.isascii() or not text.isprintable():
        raise ServiceError(ErrorReason.INVALID_FIELD, "user_id is not one of a user", metadata={"field": "user_id"})
    return text


def status_name(number: int) -> str:
    """A status to look for; IN_REVIEW where none is given. Raises ServiceError UNKNOWN_ENUM_VALUE."""
    if number == pb.CASE_STATUS_UNSPECIFIED:
        return "IN_REVIEW"
    if number not in pb.CaseStatus.values():
        reject(ErrorReason.UNKNOWN_ENUM_VALUE, field="status")
    return pb.CaseStatus.Name(pb.CaseStatus.ValueType(number))


def person_fields(data: pb.PersonalData) -> dict[str, str]:
    """What was given, by field."""
    return {name: getattr(data, name) for name in PERSON_FIELDS}


def standing_message(found: Standing) -> pb.KycStatus:
    """Where a user stands."""
    message = pb.KycStatus(tier=found.limits.tier, message=found.message)
    if found.case is not None:
        message.case_id = str(found.case.case_id)
        message.status = pb.CaseStatus.Value(found.case.status)
        message.requested_tier = found.case.requested_tier
    if found.limits.expire_at is not None:
        message.expire_time.CopyFrom(timestamp(found.limits.expire_at))
    return message


def case_message(case: Case) -> pb.KycCase:
    """A case without what is sealed."""
    message = pb.KycCase(
        case_id=str(case.case_id),
        user_id=case.user_id,
        requested_tier=case.requested_tier,
        status=pb.CaseStatus.Value(case.status),
        screening_hits=case.screening_hits,
        decided_by=case.decided_by or "",
        submitted_time=timestamp(case.submitted_at),
        erased=case.erased_at is not None,
    )
    if case.decided_at is not None:
        message.decided_time.CopyFrom(timestamp(case.decided_at))
    if case.expire_at is not None:
        message.expire_time.CopyFrom(timestamp(case.expire_at))
    return message


def decided_message(found: OpenCase) -> pb.KycCase:
    """A case after a decision: who decides has looked at the data already."""
    message = case_message(found.case)
    message.message = found.message
    return message


def open_case_message(found: OpenCase) -> pb.KycCase:
    """A case with all of it."""
    message = decided_message(found)
    if found.person is not None:
        message.data.CopyFrom(_person_message(found.person))
    return message


def user_tier_message(user: str, limits: TierLimits, changes: list[TierChange]) -> pb.UserTier:
    """What a user has, and how it came to be."""
    message = pb.UserTier(user_id=user, tier=limits.tier)
    if limits.expire_at is not None:
        message.expire_time.CopyFrom(timestamp(limits.expire_at))
    for one in changes:
        message.changes.add(
            tier=one.tier, cause=one.cause, case_id=str(one.case_id), change_time=timestamp(one.changed_at)
        )
    return message


def tier_message(tier: Tier) -> pb.KycTier:
    """What a tier allows."""
    return pb.KycTier(
        tier=tier.tier,
        daily_withdrawals={asset: f"{amount:f}" for asset, amount in tier.daily.items()},
        trading_tier=tier.trading_tier,
        valid_days=tier.valid_days,
    )


def _person_message(person: Person) -> pb.PersonalData:
    return pb.PersonalData(**{name: getattr(person, name) for name in PERSON_FIELDS})

"""A case from its submission to its end, and what is refused on the way: with a reason, and nothing changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from pincex.kyc.v1 import kyc_service_pb2 as pb
from tests.integration.auth.auth_app import Refusal, refused
from tests.integration.kyc.rig import NAME, PLANTED, Rig, new_user, person

if TYPE_CHECKING:
    from collections.abc import Callable


TABLES = ("kyc_keys", "kyc_cases", "kyc_submissions", "kyc_decisions", "kyc_tier_changes", "kyc_user_tiers")


def state(rig: Rig) -> list[tuple[Any, ...]]:
    """All that KYC has on record, but for the secret's proof."""
    return rig.rows(" UNION ALL ".join(f"SELECT t::text FROM {table} t" for table in TABLES) + " ORDER BY 1")


async def test_a_case_goes_from_its_submission_to_an_approved_tier(rig: Rig) -> None:
    user = new_user()
    assert (await rig.status(user)).tier == 0
    submitted = await rig.submit(user)
    assert (submitted.tier, submitted.status, submitted.requested_tier) == (0, pb.SUBMITTED, 2)
    await rig.kyc.worker.round()
    assert (await rig.status(user)).status == pb.IN_REVIEW
    shown = await rig.look(submitted.case_id)
    assert shown.data == person()
    approved = await rig.decide("ApproveCase", submitted.case_id, "passport seen")
    assert (approved.status, approved.decided_by, approved.HasField("data")) == (pb.APPROVED, "90001", False)
    found = await rig.status(user)
    assert (found.tier, found.status, found.message) == (2, pb.APPROVED, ""), "an approval's reason is not the user's"
    assert 364 < (found.expire_time.seconds - approved.decided_time.seconds) / 86_400 < 366
    limits = await rig.kyc.tiers.of(user)
    assert limits.tier == 2
    assert limits.daily["BTC"] > 0
    tier = await rig.admin.GetUserTier(pb.GetUserTierRequest(user_id=user))
    assert [(one.tier, one.cause, one.case_id) for one in tier.changes] == [(2, "approved", submitted.case_id)]


async def test_more_is_asked_and_the_answer_is_screened_and_reviewed_anew(rig: Rig) -> None:
    user = new_user()
    case_id = await rig.waiting(user, full_name="Ivan Wanted")
    assert list((await rig.look(case_id)).screening_hits) == ["name: line 2 of the local list"]
    await rig.decide("AskForMore", case_id, "a second document, please")
    await rig.decide("AskForMore", case_id, "your full name, please")
    found = await rig.status(user)
    assert (found.status, found.message) == (pb.MORE_NEEDED, "your full name, please")
    assert await rig.waiting(user, request_id="r2") == case_id
    shown = await rig.look(case_id)
    assert (shown.status, shown.data.full_name, list(shown.screening_hits)) == (pb.IN_REVIEW, NAME, [])
    rejected = await rig.decide("RejectCase", case_id, "not readable")
    assert (rejected.status, (await rig.status(user)).message) == (pb.REJECTED, "not readable")
    assert await rig.waiting(user, request_id="r3") != case_id, "who was rejected may try again"
    decisions = rig.rows("SELECT decision FROM kyc_decisions WHERE case_id = %s ORDER BY decision_id", int(case_id))
    assert [one for (one,) in decisions] == ["MORE_NEEDED", "MORE_NEEDED", "REJECTED"]


async def test_a_higher_tier_takes_the_place_of_a_lower_one(rig: Rig) -> None:
    user = new_user()
    first = await rig.approved(user, 1)
    second = await rig.waiting(user, 2, request_id="r2")
    assert (await rig.status(user)).tier == 1, "it holds while the next one is under review"
    await rig.decide("ApproveCase", second)
    assert (await rig.status(user)).tier == 2
    assert (await rig.look(first)).status == pb.EXPIRED
    changes = (await rig.admin.GetUserTier(pb.GetUserTierRequest(user_id=user))).changes
    assert [one.tier for one in changes] == [2, 1]


async def test_repeats_are_answered_and_change_nothing(rig: Rig) -> None:
    user = new_user()
    case_id = await rig.waiting(user)
    before = state(rig)
    assert (await rig.submit(user)).case_id == case_id
    assert state(rig) == before
    await rig.decide("ApproveCase", case_id)
    before = state(rig)
    assert (await rig.decide("ApproveCase", case_id, who="90003")).decided_by == "90001"
    assert (await rig.submit(user)).status == pb.APPROVED
    assert state(rig) == before


async def test_of_two_submissions_at_once_one_opens_a_case(rig: Rig) -> None:
    user = new_user()
    outcomes = await asyncio.gather(
        *(rig.submit(user, request_id=f"r{number}") for number in range(4)), return_exceptions=True
    )
    refusals = [one for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
    assert len(outcomes) - len(refusals) == 1
    assert all("KYC_CASE_STATE" in str(one.trailing_metadata()) for one in refusals)


async def test_the_queue_comes_in_pages_the_oldest_first_without_personal_data(rig: Rig) -> None:
    mine = [await rig.waiting(new_user()) for _ in range(3)]
    found: list[pb.KycCase] = []
    request = pb.ListCasesRequest(page_size=2)
    while True:
        page = await rig.admin.ListCases(request)
        found += page.cases
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [one.case_id for one in found if one.case_id in mine] == mine
    assert [one.case_id for one in found] == sorted((one.case_id for one in found), key=int)
    assert not any(one.HasField("data") or one.message for one in found)
    request.status = pb.APPROVED
    assert (await refused(rig.admin.ListCases(request))).reason == "INVALID_PAGE_TOKEN"


async def test_callers_without_a_user_have_the_highest_tier_and_may_try_it(rig: Rig) -> None:
    found = await rig.public.GetKycStatus(pb.GetKycStatusRequest())
    assert (found.tier, found.case_id) == (2, "")
    submitted = await rig.public.SubmitKyc(pb.SubmitKycRequest(tier=2, request_id="r1", data=person()))
    await rig.kyc.worker.round()
    refusal = await refused(rig.admin.ApproveCase(pb.ApproveCaseRequest(case_id=submitted.case_id)))
    assert refusal.reason == "FOUR_EYES"
    assert (await rig.decide("ApproveCase", submitted.case_id)).user_id == "account:demo"
    await rig.kyc.worker.round()
    assert rig.rows("SELECT told = change_id FROM kyc_user_tiers WHERE user_id = 'account:demo'") == [(True,)]


async def test_the_table_of_tiers_is_public(rig: Rig) -> None:
    tiers = (await rig.public.ListKycTiers(pb.ListKycTiersRequest())).tiers
    assert [(one.tier, one.trading_tier, one.valid_days) for one in tiers] == [
        (0, "standard", 0),
        (1, "standard", 730),
        (2, "professional", 365),
    ]
    assert not tiers[0].daily_withdrawals
    assert tiers[2].daily_withdrawals["BTC"] == "10"


def submission(**changes: Any) -> Callable[[], pb.SubmitKycRequest]:
    """A request with something wrong in it."""

    def make() -> pb.SubmitKycRequest:
        request = pb.SubmitKycRequest(tier=2, request_id="r1", data=person())
        for name, value in changes.items():
            setattr(request if name in {"tier", "request_id"} else request.data, name, value)
        return request

    return make


WRONG = {
    "tier 0": (submission(tier=0), "INVALID_FIELD", "tier"),
    "tier 3": (submission(tier=3), "INVALID_FIELD", "tier"),
    "no request id": (submission(request_id=""), "FIELD_REQUIRED", "request_id"),
    "a request id with blanks": (submission(request_id="a b"), "INVALID_FIELD", "request_id"),
    "no data": (lambda: pb.SubmitKycRequest(tier=1, request_id="r1"), "FIELD_REQUIRED", "data.full_name"),
    "no name": (submission(full_name="  "), "FIELD_REQUIRED", "data.full_name"),
    "no birth date": (submission(birth_date=""), "FIELD_REQUIRED", "data.birth_date"),
    "no country": (submission(country=""), "FIELD_REQUIRED", "data.country"),
    "no street": (submission(street_address=""), "FIELD_REQUIRED", "data.street_address"),
    "no city": (submission(city=""), "FIELD_REQUIRED", "data.city"),
    "no document for tier 2": (submission(document_number=""), "FIELD_REQUIRED", "data.document_number"),
    "a document for tier 1": (submission(tier=1), "FIELD_NOT_ALLOWED", "data.document_number"),
    "a minor": (submission(birth_date="2020-01-31"), "INVALID_FIELD", "data.birth_date"),
    "an unknown country": (submission(country="XX"), "INVALID_FIELD", "data.country"),
    "NUL in a name": (submission(full_name="Ann\0 Other"), "INVALID_FIELD", "data.full_name"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_data_is_refused_and_not_repeated(rig: Rig, name: str) -> None:
    make, reason, field = WRONG[name]
    before, request = state(rig), make()
    refusal = await refused(rig.public.SubmitKyc(request, metadata=(("x-user", new_user()),)))
    assert (refusal.reason, refusal.metadata["field"]) == (reason, field)
    said = f"{refusal.message}{refusal.metadata}"
    assert not [planted for planted in (*PLANTED, "2020-01-31", "Other") if planted in said]
    assert state(rig) == before


async def test_what_the_state_forbids_is_refused_with_its_reason(rig: Rig) -> None:
    user, minor = new_user(), new_user()

    async def why(call: Any) -> Refusal:
        before = state(rig)
        refusal = await refused(call)
        assert state(rig) == before
        return refusal

    case_id = (await rig.submit(user)).case_id
    assert (await why(rig.submit(user, request_id="r2"))).metadata == {"case_id": case_id, "status": "SUBMITTED"}
    assert (await why(rig.submit(user, full_name="Another One"))).reason == "DUPLICATE_ID"
    assert (await why(rig.submit(user, 1))).reason == "DUPLICATE_ID"
    for method in ("ApproveCase", "RejectCase", "AskForMore"):
        assert (await why(rig.decide(method, case_id, "too early"))).reason == "KYC_CASE_STATE"
    await rig.kyc.worker.round()
    assert (await why(rig.submit(user, request_id="r2"))).metadata["status"] == "IN_REVIEW"
    for method in ("ApproveCase", "RejectCase", "AskForMore"):
        assert (await why(rig.decide(method, case_id, "my own", who=user))).reason == "FOUR_EYES"
        assert (await why(rig.decide(method, "999999999", "none"))).reason == "KYC_CASE_NOT_FOUND"
        assert (await why(rig.decide(method, "one", "none"))).reason == "KYC_CASE_NOT_FOUND"
        assert (await why(rig.decide(method, "", "none"))).metadata == {"field": "case_id"}
        assert (await why(rig.decide(method, case_id, "x" * 257))).metadata == {"field": "reason"}
    for method in ("RejectCase", "AskForMore"):
        assert (await why(rig.decide(method, case_id, " "))).metadata == {"field": "reason"}
    await rig.decide("ApproveCase", case_id)
    for method in ("RejectCase", "AskForMore"):
        assert (await why(rig.decide(method, case_id, "too late"))).reason == "KYC_CASE_STATE"
    assert (await why(rig.submit(user, 1, request_id="r9"))).metadata == {"tier": "2"}
    assert (await why(rig.look("4242424242"))).reason == "KYC_CASE_NOT_FOUND"
    assert (await why(rig.erase(minor))).reason == "KYC_CASE_NOT_FOUND"
    assert (await why(rig.admin.ListCases(pb.ListCasesRequest(status=9)))).reason == "UNKNOWN_ENUM_VALUE"  # type: ignore[arg-type]
    for wrong, reason in (("", "FIELD_REQUIRED"), ("x" * 81, "INVALID_FIELD"), ("a\0b", "INVALID_FIELD")):
        assert (await why(rig.admin.GetUserTier(pb.GetUserTierRequest(user_id=wrong)))).reason == reason


async def test_a_hit_is_approved_with_a_reason_only(rig: Rig) -> None:
    case_id = await rig.waiting(new_user(), full_name="WANTED, Iván")
    refusal = await refused(rig.decide("ApproveCase", case_id))
    assert (refusal.reason, refusal.metadata) == ("FIELD_REQUIRED", {"field": "reason"})
    assert (await rig.decide("ApproveCase", case_id, "born elsewhere")).message == "born elsewhere"


async def test_support_may_look_and_ask_but_not_decide(rig: Rig) -> None:
    case_id = await rig.waiting(new_user())
    support = (("x-user", "90004"), ("x-role", "support"))
    assert (await rig.admin.GetCase(pb.GetCaseRequest(case_id=case_id), metadata=support)).data.city
    asked = await rig.admin.AskForMore(pb.AskForMoreRequest(case_id=case_id, reason="more"), metadata=support)
    assert asked.status == pb.MORE_NEEDED
    for method in ("ApproveCase", "RejectCase"):
        request = getattr(pb, f"{method}Request")(case_id=case_id, reason="so")
        refusal = await refused(getattr(rig.admin, method)(request, metadata=support))
        assert refusal.reason == "PERMISSION_DENIED"
    refusal = await refused(rig.admin.GetCase(pb.GetCaseRequest(case_id=case_id), metadata=(("x-role", "auditor"),)))
    assert refusal.reason == "PERMISSION_DENIED"
    request = pb.ErasePersonalDataRequest(user_id="1", reason="x")
    assert (await refused(rig.admin.ErasePersonalData(request, metadata=support))).reason == "PERMISSION_DENIED"

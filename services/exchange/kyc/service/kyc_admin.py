"""KycAdminService: the review of cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exchange.kyc.case import case_number
from exchange.kyc.service.messages import (
    case_message,
    decided_message,
    open_case_message,
    reviewer,
    status_name,
    user_id,
    user_tier_message,
)
from exchange.runtime import paging
from exchange.runtime.fields import reason_text
from pincex.kyc.v1 import kyc_service_pb2 as pb
from pincex.kyc.v1 import kyc_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.kyc.review import Review


class KycAdminService(kyc_service_pb2_grpc.KycAdminServiceServicer):
    """See `proto/pincex/kyc/v1/kyc_service.proto`. The guard has checked roles and writes the audit record."""

    def __init__(self, review: Review) -> None:
        self._review = review

    async def ListCases(self, request: pb.ListCasesRequest, context: Any) -> pb.ListCasesResponse:
        """The oldest first."""
        size = paging.page_size(request.page_size)
        status = status_name(request.status)
        after = paging.number_position(request.page_token, "cases", status)
        found = await self._review.listed(status, after, size + 1)
        response = pb.ListCasesResponse(cases=map(case_message, found[:size]))
        if len(found) > size:
            response.next_page_token = paging.make_token(str(found[size - 1].case_id), "cases", status)
        return response

    async def GetCase(self, request: pb.GetCaseRequest, context: Any) -> pb.KycCase:
        """One, with personal data: the audit record of the call is the record of the look."""
        return open_case_message(await self._review.look(case_number(request.case_id)))

    async def ApproveCase(self, request: pb.ApproveCaseRequest, context: Any) -> pb.KycCase:
        """Give the tier."""
        number, reason = case_number(request.case_id), reason_text(request.reason)
        return decided_message(await self._review.approve(number, reviewer(), reason))

    async def RejectCase(self, request: pb.RejectCaseRequest, context: Any) -> pb.KycCase:
        """Refuse it."""
        number, reason = case_number(request.case_id), reason_text(request.reason, required=True)
        return decided_message(await self._review.reject(number, reviewer(), reason))

    async def AskForMore(self, request: pb.AskForMoreRequest, context: Any) -> pb.KycCase:
        """Send it back."""
        number, reason = case_number(request.case_id), reason_text(request.reason, required=True)
        return decided_message(await self._review.ask(number, reviewer(), reason))

    async def ErasePersonalData(
        self, request: pb.ErasePersonalDataRequest, context: Any
    ) -> pb.ErasePersonalDataResponse:
        """Make it unreadable."""
        user = user_id(request.user_id)
        reason_text(request.reason, required=True)
        await self._review.erase(user, reviewer().name)
        return pb.ErasePersonalDataResponse()

    async def GetUserTier(self, request: pb.GetUserTierRequest, context: Any) -> pb.UserTier:
        """One user's."""
        user = user_id(request.user_id)
        return user_tier_message(user, *await self._review.tier_of(user))

"""KycService: a user's own side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exchange.kyc.service.messages import caller_user, person_fields, standing_message, tier_message
from exchange.runtime.fields import request_id
from pincex.kyc.v1 import kyc_service_pb2 as pb
from pincex.kyc.v1 import kyc_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.kyc.submissions import Submissions
    from exchange.kyc.tiers import KycTiers


class KycService(kyc_service_pb2_grpc.KycServiceServicer):
    """See `proto/pincex/kyc/v1/kyc_service.proto`."""

    def __init__(self, submissions: Submissions, tiers: KycTiers) -> None:
        self._submissions = submissions
        self._tiers = tiers

    async def ListKycTiers(self, request: pb.ListKycTiersRequest, context: Any) -> pb.ListKycTiersResponse:
        """The table."""
        return pb.ListKycTiersResponse(tiers=map(tier_message, self._tiers.table))

    async def GetKycStatus(self, request: pb.GetKycStatusRequest, context: Any) -> pb.KycStatus:
        """The caller's."""
        return standing_message(await self._submissions.standing(caller_user()))

    async def SubmitKyc(self, request: pb.SubmitKycRequest, context: Any) -> pb.KycStatus:
        """Open a case, or give what was asked for."""
        number = request_id(request.request_id)
        given = person_fields(request.data)
        return standing_message(await self._submissions.submit(caller_user(), number, request.tier, given))

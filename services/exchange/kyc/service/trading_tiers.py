"""The auth service's side: which limits of trading a user has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exchange.runtime.errors import ErrorReason, ServiceError
from pincex.auth.v1 import auth_admin_service_pb2 as pb
from pincex.auth.v1 import auth_admin_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.runtime.internal_client import InternalClient


class AuthLink:
    """See `worker.TradingTiers`."""

    def __init__(self, client: InternalClient) -> None:
        self._client = client

    async def present(self, user: str) -> str | None:
        """See `worker.TradingTiers`."""
        try:
            found = await self._client.call(
                self._stub.GetUserByAdmin, pb.GetUserByAdminRequest(user_id=user), repeatable=True
            )
        except ServiceError as error:
            if error.reason == ErrorReason.USER_NOT_FOUND:
                return None
            raise
        return str(found.tier)

    async def give(self, user: str, trading_tier: str, reason: str) -> None:
        """See `worker.TradingTiers`."""
        request = pb.SetUserTierRequest(user_id=user, tier=trading_tier, reason=reason)
        await self._client.call(self._stub.SetUserTier, request, repeatable=True)

    @property
    def _stub(self) -> Any:
        return auth_admin_service_pb2_grpc.AuthAdminServiceStub(self._client.channel)

"""Settlement's gate over gRPC, by the internal client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pincex.settlement.v1 import settlement_service_pb2 as pb
from pincex.settlement.v1 import settlement_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.runtime.internal_client import InternalClient

# A withdrawal that is being asked for waits for it.
DEADLINE_S: Final = 3.0


class SettlementGate:
    """See `wallet.gate.Settlement`."""

    def __init__(self, client: InternalClient) -> None:
        self._client = client

    async def why_closed(self) -> str:
        """Asked again while an instance that stands by answers."""
        stub: Any = settlement_service_pb2_grpc.SettlementServiceStub(self._client.channel)
        gate = await self._client.call(
            stub.GetWithdrawalGate, pb.GetWithdrawalGateRequest(), repeatable=True, deadline_s=DEADLINE_S
        )
        return "" if gate.open else f"settlement keeps the gate closed: {gate.problem}"

"""SettlementService: how far the ledger is, and whether it agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pincex.settlement.v1 import settlement_service_pb2 as pb
from pincex.settlement.v1 import settlement_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.settlement.settler import Settler


class SettlementService(settlement_service_pb2_grpc.SettlementServiceServicer):
    """See `proto/pincex/settlement/v1/settlement_service.proto`."""

    def __init__(self, settler: Settler, instance: str) -> None:
        self._settler = settler
        self._instance = instance

    async def GetSettlementStatus(self, request: pb.GetSettlementStatusRequest, context: Any) -> pb.SettlementStatus:
        """How far, how fast."""
        settler = self._settler
        return pb.SettlementStatus(
            settled_sequence=settler.offset.sequence,
            head_sequence=settler.head_sequence,
            lag_seconds=settler.lag_s,
            settled_trades=settler.offset.trade_count,
            state=settler.state,
            problem=settler.problem,
            instance=self._instance,
        )

"""Which service is served where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pincex.settlement.v1 import settlement_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.runtime.grpc_server import GrpcServer
    from exchange.settlement.service.settlement import SettlementService


def add_operator_services(server: GrpcServer, settlement: SettlementService) -> None:
    """What operators and other services use."""
    server.add(settlement_service_pb2_grpc.add_SettlementServiceServicer_to_server, settlement)

"""Which service is served where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pincex.settlement.v1 import settlement_service_pb2_grpc, statement_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.runtime.grpc_server import GrpcServer
    from exchange.settlement.service.settlement import SettlementService
    from exchange.settlement.service.statements import StatementService


def add_client_services(server: GrpcServer, statements: StatementService) -> None:
    """What accounts use, on both servers. Who may call each method is what its contract says."""
    server.add(statement_service_pb2_grpc.add_StatementServiceServicer_to_server, statements)


def add_operator_services(server: GrpcServer, settlement: SettlementService) -> None:
    """What operators and other services use."""
    server.add(settlement_service_pb2_grpc.add_SettlementServiceServicer_to_server, settlement)

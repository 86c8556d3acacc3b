"""Which service is served where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pincex.marketmaker.v1 import market_maker_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.market_maker.service.market_maker import MarketMakerService
    from exchange.runtime.grpc_server import GrpcServer


def add_operator_services(server: GrpcServer, service: MarketMakerService) -> None:
    """What operators use; customers have nothing to ask of a market maker."""
    server.add(market_maker_service_pb2_grpc.add_MarketMakerServiceServicer_to_server, service)

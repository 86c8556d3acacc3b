"""Which service is served where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pincex.marketdata.v1 import market_data_service_pb2_grpc
from pincex.trading.v1 import market_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.market_data.service.market import MarketService
    from exchange.market_data.service.market_data import MarketDataAdminService, MarketDataService
    from exchange.runtime.grpc_server import GrpcServer


def add_client_services(server: GrpcServer, market: MarketService, market_data: MarketDataService) -> None:
    """For everyone, on both servers. Who may call each method is what its contract says."""
    server.add(market_service_pb2_grpc.add_MarketServiceServicer_to_server, market)
    server.add(market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server, market_data)


def add_operator_services(server: GrpcServer, status: MarketDataAdminService) -> None:
    """For operators."""
    server.add(market_data_service_pb2_grpc.add_MarketDataAdminServiceServicer_to_server, status)

"""Which service is served where: clients' services on both servers, operators' and internal ones on the ops server."""

from __future__ import annotations

from exchange.runtime.grpc_server import GrpcServer
from exchange.trading.service.account import AccountService
from exchange.trading.service.admin import TradingAdminService
from exchange.trading.service.events import EventService
from exchange.trading.service.funds import FundsService
from exchange.trading.service.health import HealthService
from exchange.trading.service.market import MarketService
from exchange.trading.service.orders import OrderService
from exchange.trading.service.replica_link import ReplicaService
from pincex.journal.v1 import event_service_pb2_grpc, replica_service_pb2_grpc
from pincex.trading.v1 import (
    account_service_pb2_grpc,
    admin_service_pb2_grpc,
    funds_service_pb2_grpc,
    health_service_pb2_grpc,
    market_service_pb2_grpc,
    order_service_pb2_grpc,
)


def add_client_services(
    server: GrpcServer, orders: OrderService, market: MarketService, account: AccountService, health: HealthService
) -> None:
    """What institutional clients and the edge use. Who may call each method is what its contract says."""
    server.add(order_service_pb2_grpc.add_OrderServiceServicer_to_server, orders)
    server.add(market_service_pb2_grpc.add_MarketServiceServicer_to_server, market)
    server.add(account_service_pb2_grpc.add_AccountServiceServicer_to_server, account)
    server.add(health_service_pb2_grpc.add_HealthServiceServicer_to_server, health)


def add_operator_services(
    server: GrpcServer, admin: TradingAdminService, funds: FundsService, events: EventService, replicas: ReplicaService
) -> None:
    """What operators, internal consumers and the other instances use. Links check a key of their own, and are taken by an
    instance that drains too: its last frames and results go over them.
    """
    server.add(admin_service_pb2_grpc.add_TradingAdminServiceServicer_to_server, admin)
    server.add(funds_service_pb2_grpc.add_FundsServiceServicer_to_server, funds)
    server.add(event_service_pb2_grpc.add_EventServiceServicer_to_server, events)
    server.add(replica_service_pb2_grpc.add_ReplicaServiceServicer_to_server, replicas)

"""Which service is served where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pincex.wallet.v1 import wallet_admin_service_pb2_grpc, wallet_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.runtime.grpc_server import GrpcServer
    from exchange.wallet.service.wallet_admin_service import WalletAdminService
    from exchange.wallet.service.wallet_service import WalletService


def add_wallet_services(public: GrpcServer, ops: GrpcServer, wallet: WalletService, admin: WalletAdminService) -> None:
    """What accounts use, on both servers; what operators use, on the ops server. Who may call each method is what its contract says."""
    for server in (public, ops):
        server.add(wallet_service_pb2_grpc.add_WalletServiceServicer_to_server, wallet)
    ops.add(wallet_admin_service_pb2_grpc.add_WalletAdminServiceServicer_to_server, admin)

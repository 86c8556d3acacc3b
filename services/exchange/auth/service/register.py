"""Which service is served where: users' services on both servers, the operators' one on the ops server."""

from __future__ import annotations

from exchange.auth.service.auth import AuthService
from exchange.auth.service.auth_admin import AuthAdminService
from exchange.auth.service.user import UserService
from exchange.runtime.grpc_server import GrpcServer
from pincex.auth.v1 import auth_admin_service_pb2_grpc, auth_service_pb2_grpc, user_service_pb2_grpc


def add_user_services(server: GrpcServer, auth: AuthService, user: UserService) -> None:
    """What everybody calls."""
    server.add(auth_service_pb2_grpc.add_AuthServiceServicer_to_server, auth)
    server.add(user_service_pb2_grpc.add_UserServiceServicer_to_server, user)


def add_operator_services(server: GrpcServer, admin: AuthAdminService) -> None:
    """What operators and support call."""
    server.add(auth_admin_service_pb2_grpc.add_AuthAdminServiceServicer_to_server, admin)

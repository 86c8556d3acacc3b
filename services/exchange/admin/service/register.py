"""Which services the ops server has."""

from __future__ import annotations

from exchange.admin.service.audit import AuditService
from exchange.runtime.grpc_server import GrpcServer
from pincex.admin.v1 import audit_service_pb2_grpc


def add_operator_services(server: GrpcServer, audit: AuditService) -> None:
    """What auditors and operators call."""
    server.add(audit_service_pb2_grpc.add_AuditServiceServicer_to_server, audit)

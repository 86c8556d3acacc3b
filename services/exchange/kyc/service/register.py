"""Which service is served where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.kyc.service.kyc import KycService
from exchange.kyc.service.kyc_admin import KycAdminService
from pincex.kyc.v1 import kyc_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.kyc.kyc import Kyc
    from exchange.runtime.grpc_server import GrpcServer


def add_kyc_services(public: GrpcServer, ops: GrpcServer, kyc: Kyc) -> None:
    """Users' calls on both servers, reviewers' on the ops server. `kyc.run()` runs beside them."""
    users = KycService(kyc.submissions, kyc.tiers)
    for server in (public, ops):
        server.add(kyc_service_pb2_grpc.add_KycServiceServicer_to_server, users)
    ops.add(kyc_service_pb2_grpc.add_KycAdminServiceServicer_to_server, KycAdminService(kyc.review))

"""ConnectionService: what all instances have connected."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from exchange.runtime.errors import ErrorReason, ServiceError
from pincex.websocket.v1 import connection_service_pb2 as pb
from pincex.websocket.v1 import connection_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.runtime.grpc_server import GrpcServer
    from exchange.websocket.fleet import Fleet

DEFAULT_IDLE_S: Final = 300
LEAST_IDLE_S: Final = 10
ADDRESSES_SHOWN: Final = 20


class ConnectionService(connection_service_pb2_grpc.ConnectionServiceServicer):
    """See `proto/pincex/websocket/v1/connection_service.proto`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def GetConnectionCount(self, request: pb.GetConnectionCountRequest, context: Any) -> pb.ConnectionCount:
        """How many there are."""
        shares = await self._fleet.shares()
        return pb.ConnectionCount(
            connections=sum(share.connections for share in shares),
            authenticated=sum(share.authenticated for share in shares),
            subscriptions=sum(share.subscriptions for share in shares),
            instances=len(shares),
        )

    async def GetConnectionDistribution(
        self, request: pb.GetConnectionDistributionRequest, context: Any
    ) -> pb.ConnectionDistribution:
        """By instance, channel and address."""
        shares = await self._fleet.shares()
        channels: Counter[str] = Counter()
        addresses: Counter[str] = Counter()
        for share in shares:
            channels.update(share.channels)
            addresses.update(share.addresses)
        return pb.ConnectionDistribution(
            instances=_shares(sorted((share.instance, share.connections) for share in shares)),
            channels=_shares(sorted(channels.items())),
            addresses=_shares(addresses.most_common(ADDRESSES_SHOWN)),
        )

    async def CleanUpConnections(
        self, request: pb.CleanUpConnectionsRequest, context: Any
    ) -> pb.CleanUpConnectionsResponse:
        """Closes what is idle."""
        idle_s = request.idle_seconds or DEFAULT_IDLE_S
        if idle_s < LEAST_IDLE_S:
            raise ServiceError(
                ErrorReason.INVALID_FIELD,
                f"idle_seconds must be at least {LEAST_IDLE_S}",
                metadata={"field": "idle_seconds", "value": idle_s},
            )
        cleaned = await self._fleet.clean_up(float(idle_s))
        return pb.CleanUpConnectionsResponse(closed=cleaned.closed, instances=cleaned.instances)


def add_operator_services(server: GrpcServer, fleet: Fleet) -> None:
    """What operators use. Who may call each method is what its contract says."""
    server.add(connection_service_pb2_grpc.add_ConnectionServiceServicer_to_server, ConnectionService(fleet))


def _shares(found: list[tuple[str, int]]) -> list[pb.ConnectionShare]:
    return [pb.ConnectionShare(name=name, connections=count) for name, count in found]

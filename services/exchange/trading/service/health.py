"""HealthService: whether this instance serves, and what it offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.api import httpbody_pb2

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.feeds.notices import set_time
from exchange.trading.service.desk import Desk
from pincex.trading.v1 import health_service_pb2 as pb
from pincex.trading.v1 import health_service_pb2_grpc


class HealthService(health_service_pb2_grpc.HealthServiceServicer):
    """See `proto/pincex/trading/v1/health_service.proto`."""

    def __init__(self, desk: Desk, version: str, openapi: Path) -> None:
        self._desk = desk
        self._version = version
        self._openapi = openapi

    async def GetHealth(self, request: pb.GetHealthRequest, context: Any) -> pb.Health:
        """Answers while this instance serves."""
        seat = self._desk.seat
        message = pb.Health(
            status="SERVING",
            instance=self._desk.instance,
            role=self._desk.role,
            sequence=seat.committed_sequence,
            version=self._version,
        )
        set_time(message.server_time, self._desk.clock.time_ns())
        return message

    async def GetOpenApi(self, request: pb.GetOpenApiRequest, context: Any) -> httpbody_pb2.HttpBody:
        """The REST contract."""
        try:
            data = self._openapi.read_bytes()
        except OSError:
            raise ServiceError(ErrorReason.INTERNAL, "the OpenAPI document is not installed here") from None
        return httpbody_pb2.HttpBody(content_type="application/json", data=data)

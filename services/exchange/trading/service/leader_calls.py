"""Operators' calls that only the leader can answer, put through to it by the instance that got them.

The ops listener picks any instance. Such a call goes on as it came, once: to the address that the leader has told its
followers, with what says who asks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from exchange.runtime.errors import STATUS_DETAILS_KEY, ErrorReason, ServiceError
from exchange.runtime.identity.service_token import SERVICE_KEY
from exchange.runtime.request import request_context
from exchange.runtime.service_tls import ServiceTls, open_channel
from exchange.trading.config import SERVICE
from exchange.trading.replication.messages import LEADER, ReplicaInfo
from pincex.trading.v1 import admin_service_pb2_grpc

PUT_THROUGH_KEY: Final = "x-pincex-put-through"
WAIT_S: Final = 8.0
"""For the leader's answer; the edge gives up after 10 s."""

# Who asks, and from where, as the edge has told this instance.
_PASSED_ON: Final = frozenset(
    {"authorization", SERVICE_KEY, "x-pincex-account", "x-forwarded-for", "x-envoy-external-address"}
)
_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))


async def put_through(
    method: str, request: Any, context: Any, replicas: Callable[[], list[ReplicaInfo]], tls: ServiceTls | None
) -> Any:
    """The leader's answer to a call of TradingAdminService.

    Raises ServiceError: the leader's own refusal; NOT_READY where no leader is known here, where it does not answer (the
    outcome is unknown then), or where whoever put the call through took this instance for the leader.
    """
    metadata = tuple(context.invocation_metadata())
    leader = next((one for one in replicas() if one.role == LEADER), None)
    if leader is None or any(key == PUT_THROUGH_KEY for key, _ in metadata):
        raise ServiceError(ErrorReason.NOT_READY, "this instance does not lead, and knows of none that does: ask again")
    passed = (
        *((key, value) for key, value in metadata if key in _PASSED_ON),
        ("x-request-id", request_context().request_id),
        (PUT_THROUGH_KEY, "1"),
    )
    async with open_channel(leader.ops_address, SERVICE, tls, _OPTIONS) as channel:
        stub = admin_service_pb2_grpc.TradingAdminServiceStub(channel)
        try:
            return await getattr(stub, method)(request, metadata=passed, timeout=WAIT_S)
        except grpc.aio.AioRpcError as error:
            raise _refusal(error, leader.instance) from None


def _refusal(error: grpc.aio.AioRpcError, leader: str) -> ServiceError:
    """What the leader said, if it was the leader who said it."""
    trailing: Any = error.trailing_metadata()
    details = dict(trailing or ()).get(STATUS_DETAILS_KEY)
    info = error_details_pb2.ErrorInfo()
    if details and status_pb2.Status.FromString(details).details[0].Unpack(info):
        # A leader of a newer build may know reasons that this one does not.
        with contextlib.suppress(ValueError):
            return ServiceError(ErrorReason.Value(info.reason), error.details(), metadata=dict(info.metadata))
    return ServiceError(ErrorReason.NOT_READY, f"{leader}, which leads, does not answer: {error.code().name}")

"""ReplicaService and its client: the link between replicas in its form on the wire.

Who knows the key of the link is an instance of this engine: it is made from a secret that only they share, for one epoch
of one history.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
import grpc.aio

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.service_tls import ServiceTls, open_channel
from exchange.trading.config import SERVICE
from exchange.trading.replication import messages as m
from exchange.trading.replication.downlinks import Downlink, Downlinks
from exchange.trading.service.replica_messages import (
    follower_batch,
    follower_message,
    leader_batch,
    leader_message,
)
from pincex.journal.v1 import replica_service_pb2 as pb
from pincex.journal.v1 import replica_service_pb2_grpc

KEY_METADATA: Final = "x-pincex-replica-key"
CONNECT_TIMEOUT_S: Final = 1.0
# The type stubs of grpcio leave it out.
_END_OF_STREAM: Final[Any] = grpc.aio.EOF  # type: ignore[attr-defined]
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


def link_key(secret: str, incarnation: str, epoch: int) -> str:
    """The key of links to the leader of an epoch, hexadecimal; "" for an empty secret, which opens nothing."""
    if not secret:
        return ""
    text = f"pincex replica link|{incarnation}|{epoch}"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


class ReplicaService(replica_service_pb2_grpc.ReplicaServiceServicer):
    """See `proto/pincex/journal/v1/replica_service.proto`. `leader` gives the links while this instance leads."""

    def __init__(self, secret: str, incarnation: str, leader: Callable[[], Downlinks | None]) -> None:
        self._secret = secret
        self._incarnation = incarnation
        self._leader = leader

    async def Link(
        self, request_iterator: AsyncIterator[pb.FollowerMessage], context: Any
    ) -> AsyncIterator[pb.LeaderMessage]:
        """A follower's stream."""
        links = self._leader()
        if links is None:
            raise ServiceError(ErrorReason.NOT_READY, "this instance does not lead")
        self._check_key(context, links.sequencer.epoch)
        incoming = aiter(request_iterator)
        first = follower_batch(await anext(incoming))
        if first.hello is None:
            raise ServiceError(ErrorReason.PROTOCOL_VIOLATION, "the first message must be a hello")
        try:
            link = links.open(first.hello)
        except m.LinkLost as refusal:
            raise ServiceError(ErrorReason.NOT_READY, str(refusal)) from None
        reader = asyncio.create_task(self._read(incoming, link))
        try:
            while True:
                yield leader_message(await link.next())
        except m.LinkLost as end:
            raise ServiceError(ErrorReason.NOT_READY, str(end)) from None
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            links.gone(link)

    def _check_key(self, context: Any, epoch: int) -> None:
        given = dict(context.invocation_metadata()).get(KEY_METADATA, "")
        expected = link_key(self._secret, self._incarnation, epoch)
        if not expected or not hmac.compare_digest(str(given), expected):
            raise ServiceError(ErrorReason.PERMISSION_DENIED, "the key of the link is wrong")

    @staticmethod
    async def _read(incoming: AsyncIterator[pb.FollowerMessage], link: Downlink) -> None:
        try:
            async for message in incoming:
                link.take(follower_batch(message))
        finally:
            link.close()


class GrpcTransport:
    """`Transport` over gRPC; with `tls` both ends show that they are trading engines."""

    def __init__(self, secret: str, incarnation: str, tls: ServiceTls | None = None) -> None:
        self._secret = secret
        self._incarnation = incarnation
        self._tls = tls

    async def connect(self, address: str, epoch: int) -> m.Connection:
        """Open a link; see `Transport.connect`."""
        host, _, port = address.rpartition(":")
        try:
            # Told apart here, where the kernel says so at once: a channel only tries again.
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionRefusedError as error:
            raise m.Refused(f"nobody listens at {address}") from error
        except (OSError, TimeoutError, ValueError) as error:
            raise m.LinkLost(f"no connection to {address}: {error!r}") from error
        writer.close()
        key = link_key(self._secret, self._incarnation, epoch)
        try:
            channel = open_channel(address, SERVICE, self._tls, _OPTIONS)
        except OSError as error:
            raise m.LinkLost(f"no certificate for a connection to {address}: {error}") from error
        return _GrpcConnection(channel, key)


class _GrpcConnection:
    """A follower's end of a link."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._channel = channel
        stub = replica_service_pb2_grpc.ReplicaServiceStub(channel)
        self._call: Any = stub.Link(metadata=((KEY_METADATA, key),))  # type: ignore[call-arg]
        self._closing: asyncio.Task[None] | None = None
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begun = False

    async def send(self, batch: m.FollowerBatch) -> None:
        """Send a message. Raises LinkLost."""
        if not self._begun:
            await self._begin()
        await self._do(self._call.write(follower_message(batch)))

    async def _begin(self) -> None:
        """Wait until the call is on its way. Where a process is stopped its kernel takes the connection, and no call goes out:
        gRPC does not wake who waits for that when the call is cancelled.
        """
        begun = asyncio.ensure_future(self._call.wait_for_connection())
        try:
            await asyncio.wait({begun, self._closed}, return_when=asyncio.FIRST_COMPLETED)
            if not begun.done():
                raise m.LinkLost("the link is closed")
            await self._do(begun)
            self._begun = True
        finally:
            begun.cancel()

    async def receive(self) -> m.LeaderBatch:
        """The next message. Raises LinkLost."""
        message = await self._do(self._call.read())
        if message is _END_OF_STREAM:
            raise m.LinkLost("the leader has ended the link")
        return leader_batch(message)

    async def _do(self, operation: Any) -> Any:
        try:
            return await operation
        except grpc.aio.AioRpcError as error:
            raise m.LinkLost(f"{error.code().name}: {error.details()}") from error
        except asyncio.InvalidStateError as error:
            raise m.LinkLost("the link is closed") from error
        except asyncio.CancelledError:
            # A call that is closed here cancels who waits for it; who is cancelled himself must hear that.
            if self._closing is None:
                raise
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise m.LinkLost("the link is closed") from None

    def close(self) -> None:
        """Let go of it."""
        if self._closing is None:
            self._closed.set_result(None)
            self._call.cancel()
            self._closing = asyncio.create_task(self._channel.close(grace=None))

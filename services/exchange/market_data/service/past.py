"""What lies further back than this service remembers: asked of the engine's event stream, by whose tokens it is judged."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import grpc.aio

from exchange.market_data.events import TradeExecuted
from exchange.market_data.service.intake import Decoder
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.internal_client import refusal_of
from pincex.journal.v1 import event_service_pb2 as pb
from pincex.journal.v1 import event_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from exchange.runtime.feeds.tokens import Position
    from exchange.runtime.internal_client import InternalClient

# Readers of the past at a time: each has the engine read its journal.
MAX_READERS: Final = 8
# Without a frame or a heartbeat for so long the engine does not answer.
SILENCE_S: Final = 8.0


class Past:
    """See the module."""

    def __init__(self, client: InternalClient) -> None:
        self._client = client
        self._places = asyncio.Semaphore(MAX_READERS)

    async def check(self, position: Position) -> None:
        """Whether the engine's history has this place. Raises ServiceError: SEQUENCE_NOT_RETAINED, HISTORY_CHANGED, or that
        the engine cannot be asked.
        """
        async with aclosing(self._batches(position)) as batches:
            async for _ in batches:
                return

    async def trades(
        self, symbol: str, after: Position, until: int
    ) -> AsyncGenerator[tuple[list[TradeExecuted], bytes], None]:
        """The trades of a market after a place and up to a sequence, by frame, with the frame's hash. Raises as `check`."""
        decoder = Decoder()
        async with aclosing(self._batches(after)) as batches:
            async for message in batches:
                if message.first_sequence != message.prev_sequence:
                    batch = decoder.batch(message)
                    found = [
                        event
                        for event in batch.events
                        if isinstance(event, TradeExecuted) and event.symbol == symbol and event.sequence <= until
                    ]
                    if found:
                        yield found, batch.frame_hash
                if message.last_sequence >= until:
                    return

    async def _batches(self, after: Position) -> AsyncGenerator[pb.EventBatch, None]:
        request = pb.StreamEventsRequest(resume_token=replace(after, stream="", index=-1).token())
        async with self._places:
            stub: Any = event_service_pb2_grpc.EventServiceStub(self._client.channel)
            call = stub.StreamEvents(request, metadata=self._client.metadata())
            try:
                while True:
                    async with asyncio.timeout(SILENCE_S):
                        message = await call.read()
                    if message is grpc.aio.EOF or message.end_reason:  # type: ignore[attr-defined]  # the stubs leave it out
                        raise ServiceError(ErrorReason.UPSTREAM_UNAVAILABLE)
                    yield message
            except grpc.aio.AioRpcError as error:
                raise refusal_of(error) from None
            except TimeoutError:
                raise ServiceError(ErrorReason.UPSTREAM_TIMEOUT) from None
            finally:
                call.cancel()

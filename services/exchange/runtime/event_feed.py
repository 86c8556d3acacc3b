"""The engine's events as a service that keeps its own record reads them: in order, without a gap, as many at once as have arrived."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
import structlog

from exchange.runtime.feeds.tokens import BadToken, parse, short_hash
from exchange.runtime.internal_client import InternalClient, reason_of
from pincex.journal.v1 import event_service_pb2 as pb
from pincex.journal.v1 import event_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# Frames that were read and not written yet: while a transaction commits the next is gathered, and no more than that.
MAX_WAITING_FRAMES: Final = 1_024
# A batch is closed at the frame with which it has as many events.
MAX_BATCH_EVENTS: Final = 20_000
# The engine sends a heartbeat every 5 s where there is nothing else.
SILENCE_S: Final = 15.0


class FeedError(Exception):
    """The stream ended or broke: connect again."""


class FeedLost(Exception):
    """The stream cannot be continued from where its reader is; the message says why. Nothing may be skipped."""


# With these the engine says that another stream would not help.
_FINAL: Final = frozenset({"HISTORY_CHANGED", "INVALID_RESUME_TOKEN", "SEQUENCE_NOT_RETAINED"})


class EventFeed:
    """One connection to `EventService`; `head_sequence` is the newest durable sequence that it has heard of.

    With `through_restores` it goes on too where the exchange was restored, and its journal has the very frame that the reader
    stands behind: the hash of a frame is of all before it, so nothing that was read is lost.
    """

    def __init__(self, client: InternalClient, *, through_restores: bool = False) -> None:
        self._client = client
        self._through_restores = through_restores
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("event-feed")
        self.head_sequence = 0

    async def batches(self, sequence: int, resume_token: str) -> AsyncGenerator[list[pb.EventBatch], None]:
        """Frames after `sequence`, in lists; an empty list is a heartbeat. Raises FeedError and FeedLost."""
        async with self._client.open() as channel:
            stub: Any = event_service_pb2_grpc.EventServiceStub(channel)
            queue: asyncio.Queue[pb.EventBatch | Exception] = asyncio.Queue(MAX_WAITING_FRAMES)
            reading = asyncio.create_task(self._read(stub, queue, sequence, resume_token))
            try:
                while True:
                    yield await self._gather(queue)
            finally:
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reading

    async def _read(
        self, stub: Any, queue: asyncio.Queue[pb.EventBatch | Exception], sequence: int, resume_token: str
    ) -> None:
        """Put frames into the queue, and as the last thing what ended the stream."""
        try:
            try:
                await self._pass_on(stub, queue, sequence, resume_token)
            except grpc.aio.AioRpcError as error:
                if reason_of(error) != "HISTORY_CHANGED" or not await self._is_same_past(stub, sequence, resume_token):
                    raise
                self._log.warning("the exchange was restored; all that was read is of its past", sequence=sequence)
                # What it was in the other history.
                self.head_sequence = sequence
                await self._pass_on(stub, queue, sequence, "")
        except TimeoutError:
            await queue.put(FeedError("the engine went silent"))
        except (FeedError, FeedLost) as error:
            await queue.put(error)
        except grpc.aio.AioRpcError as error:
            await queue.put(_ended(reason_of(error), error.details() or error.code().name))

    async def _pass_on(
        self, stub: Any, queue: asyncio.Queue[pb.EventBatch | Exception], sequence: int, resume_token: str
    ) -> None:
        """Frames after `sequence`; ends with an error."""
        async with aclosing(self._stream(stub, 0 if resume_token else sequence + 1, resume_token)) as batches:
            async for batch in batches:
                self.head_sequence = max(self.head_sequence, batch.head_sequence)
                if batch.end_reason:
                    raise _ended(batch.end_reason, batch.end_message)
                if batch.prev_sequence != sequence:
                    raise FeedLost(f"a gap: a frame follows {batch.prev_sequence}, the last one was {sequence}")
                sequence = batch.last_sequence
                await queue.put(batch)
        raise FeedError("the engine ended the stream")

    async def _is_same_past(self, stub: Any, sequence: int, resume_token: str) -> bool:
        """Whether the engine's journal has the frame that a token of another history names, as its frame of that sequence."""
        if not self._through_restores:
            return False
        try:
            wanted = parse(resume_token).frame_hash
            async with aclosing(self._stream(stub, sequence, "")) as batches:
                # A heartbeat, where the sequence is not there yet, stands before it.
                first = await anext(batches, None)
        except (BadToken, grpc.aio.AioRpcError):
            return False
        return first is not None and first.last_sequence == sequence and short_hash(first.frame_hash) == wanted

    async def _stream(self, stub: Any, from_sequence: int, resume_token: str) -> AsyncGenerator[pb.EventBatch, None]:
        """What the engine says. Raises TimeoutError where that is nothing."""
        request = pb.StreamEventsRequest(from_sequence=from_sequence, resume_token=resume_token)
        call: Any = stub.StreamEvents(request, metadata=self._client.metadata())
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    batch = await call.read()
                if batch is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs leave it out
                    return
                yield batch
        finally:
            call.cancel()

    @staticmethod
    async def _gather(queue: asyncio.Queue[pb.EventBatch | Exception]) -> list[pb.EventBatch]:
        """What waits, at least one frame; raises what ended the stream once all before it was taken."""
        gathered: list[pb.EventBatch] = []
        events = 0
        while events < MAX_BATCH_EVENTS and len(gathered) < MAX_WAITING_FRAMES and not (gathered and queue.empty()):
            item = await queue.get()
            if isinstance(item, Exception):
                if not gathered:
                    raise item
                # It stays the last: nothing is put behind it.
                queue.put_nowait(item)
                break
            events += len(item.events)
            gathered.append(item)
        # A heartbeat stands where the frame before it ended.
        return [batch for batch in gathered if batch.first_sequence != batch.prev_sequence]


def _ended(reason: str, message: str) -> Exception:
    kind = FeedLost if reason in _FINAL else FeedError
    return kind(f"{reason}: {message}")

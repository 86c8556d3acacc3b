"""The engine's events and snapshots as `Follower` takes them, by the internal client."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from exchange.market_data.events import Batch, Snapshot
from exchange.market_data.follower import SourceError, SourceLost
from exchange.market_data.service.intake import Decoder, SnapshotReader
from exchange.runtime.feeds.tokens import BadToken
from exchange.runtime.internal_client import InternalClient, reason_of
from pincex.journal.v1 import event_service_pb2 as pb
from pincex.journal.v1 import event_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# Frames that were read and not taken yet.
MAX_WAITING_FRAMES: Final = 1_024
# Frames that are given on at once: between two lists the loop serves others.
MAX_LIST_FRAMES: Final = 256
# The engine sends a heartbeat every 5 s where there is nothing else.
SILENCE_S: Final = 15.0
SNAPSHOT_S: Final = 60.0

# With these the engine says that another stream would not help.
_FINAL: Final = frozenset({"HISTORY_CHANGED", "INVALID_RESUME_TOKEN", "SEQUENCE_NOT_RETAINED"})


class EventSource:
    """See `follower.Source`."""

    def __init__(self, client: InternalClient) -> None:
        self._client = client
        self._decoder = Decoder()
        self.head_sequence = 0

    async def snapshot(self) -> Snapshot:
        """See `follower.Source`."""
        reader = SnapshotReader()
        async with self._client.open() as channel:
            stub: Any = event_service_pb2_grpc.EventServiceStub(channel)
            try:
                async with asyncio.timeout(SNAPSHOT_S):
                    async for item in stub.StreamSnapshot(pb.StreamSnapshotRequest(), metadata=self._client.metadata()):
                        reader.add(item)
                snapshot = reader.finish()
            except grpc.aio.AioRpcError as error:
                raise SourceError(f"{reason_of(error)}: {error.details() or error.code().name}") from None
            except (TimeoutError, BadToken) as error:
                raise SourceError(f"no whole snapshot came: {error!r}") from None
        self._decoder.rules_version = reader.rules_version
        return snapshot

    async def batches(self, sequence: int, token: str) -> AsyncGenerator[list[Batch], None]:
        """See `follower.Source`."""
        decoder = self._decoder
        request = pb.StreamEventsRequest(from_sequence=0 if token else sequence + 1, resume_token=token)
        async with self._client.open() as channel:
            stub: Any = event_service_pb2_grpc.EventServiceStub(channel)
            call = stub.StreamEvents(request, metadata=self._client.metadata())
            queue: asyncio.Queue[pb.EventBatch | Exception] = asyncio.Queue(MAX_WAITING_FRAMES)
            reading = asyncio.create_task(self._read(call, queue, sequence))
            try:
                while True:
                    yield [decoder.batch(batch) for batch in await _gather(queue)]
            finally:
                call.cancel()
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reading

    async def _read(self, call: Any, queue: asyncio.Queue[pb.EventBatch | Exception], sequence: int) -> None:
        """Put frames into the queue, and as the last thing what ended the stream."""
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    batch = await call.read()
                if batch is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs leave it out
                    raise SourceError("the engine ended the stream")
                self.head_sequence = max(self.head_sequence, batch.head_sequence)
                if batch.end_reason:
                    raise _ended(batch.end_reason, batch.end_message)
                if batch.prev_sequence != sequence:
                    raise SourceLost(f"a gap: a frame follows {batch.prev_sequence}, the last one was {sequence}")
                sequence = batch.last_sequence
                await queue.put(batch)
        except TimeoutError:
            await queue.put(SourceError("the engine went silent"))
        except (SourceError, SourceLost) as error:
            await queue.put(error)
        except grpc.aio.AioRpcError as error:
            await queue.put(_ended(reason_of(error), error.details() or error.code().name))


async def _gather(queue: asyncio.Queue[pb.EventBatch | Exception]) -> list[pb.EventBatch]:
    """What waits, at least one frame or heartbeat; raises what ended the stream once all before it was taken."""
    gathered: list[pb.EventBatch] = []
    while len(gathered) < MAX_LIST_FRAMES and not (gathered and queue.empty()):
        item = await queue.get()
        if isinstance(item, Exception):
            if not gathered:
                raise item
            # It stays the last: nothing is put behind it.
            queue.put_nowait(item)
            break
        gathered.append(item)
    # A heartbeat stands where the frame before it ended.
    return [batch for batch in gathered if batch.first_sequence != batch.prev_sequence]


def _ended(reason: str, message: str) -> Exception:
    kind = SourceLost if reason in _FINAL else SourceError
    return kind(f"{reason}: {message}")

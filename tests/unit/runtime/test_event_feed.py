"""The feed gives frames in order, and ends loudly at a gap, at an end that another stream would not mend, and in silence."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from exchange.runtime import event_feed as feeds
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.event_feed import EventFeed, FeedError, FeedLost
from exchange.runtime.feeds.tokens import Position
from exchange.runtime.internal_client import InternalClient
from pincex.journal.v1 import event_service_pb2 as pb
from pincex.journal.v1 import event_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Engine(event_service_pb2_grpc.EventServiceServicer):
    """Streams what a test gives it, then waits, ends, or fails. Tokens are all of another history."""

    def __init__(self, frames: list[pb.EventBatch], then: str = "wait") -> None:
        self._frames = frames
        self._then = then

    def StreamSnapshot(self, request: Any, context: Any) -> AsyncIterator[pb.SnapshotItem]:  # noqa: N802
        """Not asked for here."""
        raise NotImplementedError

    async def StreamEvents(  # noqa: N802 - the contract's name
        self, request: pb.StreamEventsRequest, context: Any
    ) -> AsyncIterator[pb.EventBatch]:
        if request.resume_token:
            error = ServiceError(ErrorReason.HISTORY_CHANGED)
            await context.abort(error.code, error.message, error.trailing_metadata())
        for frame in self._frames:
            if frame.last_sequence >= request.from_sequence or not frame.events:
                yield frame
        if self._then == "wait":
            await asyncio.Event().wait()
        if self._then == "refuse":
            error = ServiceError(ErrorReason.HISTORY_CHANGED)
            await context.abort(error.code, error.message, error.trailing_metadata())


def frame(after: int, last: int, **more: Any) -> pb.EventBatch:
    """The commands after one up to another, an event for each."""
    events = [pb.Event(sequence=number) for number in range(after + 1, last + 1)]
    first = after + 1 if events else after
    return pb.EventBatch(
        first_sequence=first, last_sequence=last, prev_sequence=after, head_sequence=last, events=events, **more
    )


@asynccontextmanager
async def following(engine: Engine, **options: bool) -> AsyncIterator[EventFeed]:
    """A feed from a real server."""
    server = grpc.aio.server()
    add: Any = event_service_pb2_grpc.add_EventServiceServicer_to_server
    add(engine, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = InternalClient(f"127.0.0.1:{port}", "settlement", None)
    try:
        yield EventFeed(client, **options)
    finally:
        await client.close()
        await server.stop(None)


async def everything(feed: EventFeed, sequence: int = 0, token: str = "") -> tuple[list[int], Exception]:
    """The last sequences of all frames, and how it ended."""
    found: list[int] = []
    try:
        async for batch in feed.batches(sequence, token):
            found += [one.last_sequence for one in batch]
    except (FeedError, FeedLost) as error:
        return found, error
    raise AssertionError("a feed has no end of its own")


async def test_frames_come_in_order_and_a_heartbeat_is_an_empty_list() -> None:
    async with following(Engine([frame(0, 2), frame(2, 3), frame(3, 3)])) as feed:
        batches = feed.batches(0, "")
        found: list[int] = []
        while len(found) < 2:
            found += [one.last_sequence for one in await anext(batches)]
        assert (found, feed.head_sequence) == ([2, 3], 3)
        await batches.aclose()
    async with following(Engine([frame(3, 3)])) as feed:
        batches = feed.batches(3, "")
        assert await anext(batches) == []
        await batches.aclose()


async def test_a_gap_is_the_end_after_all_before_it() -> None:
    async with following(Engine([frame(0, 2), frame(3, 4)])) as feed:
        found, error = await everything(feed)
    assert (found, type(error)) == ([2], FeedLost)
    assert "a gap: a frame follows 3, the last one was 2" in str(error)


@pytest.mark.parametrize(
    ("engine", "kind", "words"),
    [
        (Engine([frame(0, 1)], "end"), FeedError, "ended the stream"),
        (Engine([frame(0, 1)], "refuse"), FeedLost, "HISTORY_CHANGED"),
        (Engine([frame(0, 1), frame(1, 1, end_reason="DRAINING")]), FeedError, "DRAINING"),
        (Engine([frame(0, 1), frame(1, 1, end_reason="SEQUENCE_NOT_RETAINED")]), FeedLost, "SEQUENCE_NOT_RETAINED"),
    ],
)
async def test_how_it_ends_says_whether_to_ask_again(engine: Engine, kind: type[Exception], words: str) -> None:
    async with following(engine) as feed:
        found, error = await everything(feed)
    assert (found, type(error)) == ([1], kind)
    assert words in str(error)


TOKEN = Position("before", 0, 2, -1, "aa" * 8).token()


@pytest.mark.parametrize(
    ("frames", "goes_on"),
    [
        ([frame(0, 1), frame(1, 2, frame_hash=b"\xaa" * 32), frame(2, 4)], True),
        ([frame(0, 1), frame(1, 2, frame_hash=b"\xbb" * 32), frame(2, 4)], False),
        ([frame(0, 1), frame(1, 3, frame_hash=b"\xaa" * 32), frame(3, 4)], False),
        # The restored journal ends before it: a heartbeat.
        ([frame(0, 1), frame(1, 1)], False),
        ([], False),
    ],
)
async def test_after_a_restore_it_goes_on_only_from_the_very_frame_it_stood_behind(
    frames: list[pb.EventBatch], goes_on: object
) -> None:
    async with following(Engine(frames, "end"), through_restores=True) as feed:
        found, error = await everything(feed, 2, TOKEN)
        assert (found, feed.head_sequence) == (([4], 4) if goes_on else ([], 0))
        assert type(error) is (FeedError if goes_on else FeedLost)
    async with following(Engine(frames, "end")) as feed:
        assert type((await everything(feed, 2, TOKEN))[1]) is FeedLost, "unless it was told to"


async def test_silence_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "SILENCE_S", 0.05)
    async with following(Engine([])) as feed:
        _, error = await everything(feed)
    assert (type(error), str(error)) == (FeedError, "the engine went silent")


async def test_a_batch_is_no_larger_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MAX_BATCH_EVENTS", 4)
    async with following(Engine([frame(number, number + 3) for number in range(0, 30, 3)])) as feed:
        batches = feed.batches(0, "")
        sizes, found = [], 0
        while found < 30:
            batch = await anext(batches)
            sizes.append(sum(len(one.events) for one in batch))
            found += sizes[-1]
        await batches.aclose()
    assert found == 30
    assert max(sizes) <= 6

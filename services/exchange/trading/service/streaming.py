"""What every stream of the engine shares: heartbeats, drain notices, ends, and following a channel."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from exchange.runtime.errors import ErrorReason, ServiceError, message_of
from exchange.trading.feeds.channel import Channel
from exchange.trading.feeds.hub import Hub
from exchange.trading.feeds.resume import BadToken, Position, parse, same_history, short_hash
from exchange.trading.journal.contract import BelowFloor, JournalUnavailable
from exchange.trading.sequencer import Committed
from pincex.trading.v1 import types_pb2

HEARTBEAT_S: Final = 5.0
"""A stream that has nothing to say says so this often."""

MAX_STREAMS_PER_ACCOUNT: Final = 64
"""Streams of one kind that an account may have open."""

ARRIVAL_WAIT_S: Final = 1.0
"""How long a reader who is ahead of this instance waits for it: it may come from one that is further on."""

SHARD: Final = 0


def end_message(reason: int, resume_token: str = "") -> types_pb2.StreamEnd:
    """Why a stream ends."""
    name = ErrorReason.Name(reason)  # type: ignore[arg-type]
    return types_pb2.StreamEnd(reason=name, message=message_of(reason), resume_token=resume_token)


class Places:
    """Makes and reads resume tokens of one stream in this instance's history; the nameless one is the event bus."""

    def __init__(self, incarnation: str, hub: Hub, stream: str = "") -> None:
        self._incarnation = incarnation
        self._hub = hub
        self._stream = stream

    def of(self, stream: str) -> Places:
        """The places of another stream of the same history."""
        return Places(self._incarnation, self._hub, stream)

    def token(self, sequence: int, frame_hash: bytes, index: int = -1) -> str:
        """The token of a place; `index` counts messages of `sequence` already seen, -1 for all."""
        return Position(self._incarnation, SHARD, sequence, index, short_hash(frame_hash), self._stream).token()

    async def read(self, token: str) -> Position:
        """The place of a token. Raises ServiceError INVALID_RESUME_TOKEN, SEQUENCE_IN_FUTURE or HISTORY_CHANGED."""
        try:
            position = parse(token)
        except BadToken:
            raise ServiceError(ErrorReason.INVALID_RESUME_TOKEN, metadata={"field": "resume_token"}) from None
        if position.stream != self._stream:
            raise ServiceError(
                ErrorReason.INVALID_RESUME_TOKEN,
                "the resume token belongs to another stream",
                metadata={"field": "resume_token"},
            )
        # Another history first: a restore to an earlier time makes tokens lie beyond its head.
        if position.incarnation == self._incarnation and not await self._hub.reaches(position.sequence, ARRIVAL_WAIT_S):
            raise ServiceError(ErrorReason.SEQUENCE_IN_FUTURE, metadata={"head_sequence": self._hub.head_sequence})
        with readable():
            if not await same_history(position, self._incarnation, SHARD, self._hub):
                raise ServiceError(ErrorReason.HISTORY_CHANGED)
        return position


@contextmanager
def readable() -> Iterator[None]:
    """Say over the contract why the journal cannot be read: SEQUENCE_NOT_RETAINED or JOURNAL_UNAVAILABLE."""
    try:
        yield
    except BelowFloor as error:
        raise ServiceError(ErrorReason.SEQUENCE_NOT_RETAINED, metadata={"floor_sequence": error.floor}) from None
    except JournalUnavailable:
        raise ServiceError(ErrorReason.JOURNAL_UNAVAILABLE) from None


async def durable(hub: Hub, from_sequence: int) -> AsyncIterator[Committed]:
    """As `Hub.read`. Raises ServiceError SEQUENCE_NOT_RETAINED or JOURNAL_UNAVAILABLE."""
    with readable():
        async for committed in hub.read(from_sequence):
            yield committed


async def follow(channel: Channel, position: int, slow_end: Callable[[], bytes]) -> AsyncIterator[bytes]:
    """Messages of a channel from a position until it closes; one that falls out of the ring gets `slow_end` last."""
    channel.subscribers += 1
    try:
        while True:
            if position < channel.start:
                yield slow_end()
                return
            if position < channel.end:
                message = channel.item(position)
                position += 1
                yield message
            elif channel.closed:
                return
            else:
                await channel.wait(position)
    finally:
        channel.subscribers -= 1


class AccountStreams:
    """Counts the streams of one kind that each account has open."""

    def __init__(self, limit: int = MAX_STREAMS_PER_ACCOUNT) -> None:
        self._limit = limit
        self._open: dict[str, int] = {}

    @contextlib.contextmanager
    def one(self, account: str) -> Iterator[None]:
        """Hold one of the account's places. Raises ServiceError TOO_MANY_STREAMS when all are taken."""
        count = self._open.get(account, 0)
        if count >= self._limit:
            raise ServiceError(
                ErrorReason.TOO_MANY_STREAMS, metadata={"limit": f"{self._limit} streams of this kind for an account"}
            )
        self._open[account] = count + 1
        try:
            yield
        finally:
            self._open[account] -= 1
            if not self._open[account]:
                del self._open[account]

"""What every stream of the engine shares: tokens, the past, and how many an account may have open."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.feeds.tokens import Position, Tokens
from exchange.trading.feeds.hub import Hub
from exchange.trading.feeds.resume import same_history
from exchange.trading.journal.contract import BelowFloor, JournalUnavailable
from exchange.trading.sequencer import Committed

MAX_STREAMS_PER_ACCOUNT: Final = 64
"""Streams of one kind that an account may have open."""

ARRIVAL_WAIT_S: Final = 1.0
"""How long a reader who is ahead of this instance waits for it: it may come from one that is further on."""

SHARD: Final = 0


class Places(Tokens):
    """Tokens of one stream in this instance's history, and whether a token is of it."""

    def __init__(self, incarnation: str, hub: Hub, stream: str = "") -> None:
        super().__init__(incarnation, SHARD, stream)
        self._hub = hub

    def of(self, stream: str) -> Places:
        """The places of another stream of the same history."""
        return Places(self.incarnation, self._hub, stream)

    async def read(self, token: str) -> Position:
        """The place of a token. Raises ServiceError INVALID_RESUME_TOKEN, SEQUENCE_IN_FUTURE or HISTORY_CHANGED."""
        position = self.position(token)
        # Another history first: a restore to an earlier time makes tokens lie beyond its head.
        if position.incarnation == self.incarnation and not await self._hub.reaches(position.sequence, ARRIVAL_WAIT_S):
            raise ServiceError(ErrorReason.SEQUENCE_IN_FUTURE, metadata={"head_sequence": self._hub.head_sequence})
        with readable():
            if not await same_history(position, self.incarnation, SHARD, self._hub):
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

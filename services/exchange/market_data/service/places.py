"""Resume tokens of market data's streams: made as the engines make them, and compared with the frames that passed here."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.feeds.tokens import Position, Tokens, short_hash

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from exchange.market_data.events import Batch, Snapshot
    from exchange.market_data.follower import Follower

# Frames that a token is compared with here; older ones the engine is asked about.
KEPT_FRAMES: Final = 50_000
_TRIM: Final = 5_000
# How long a reader who is ahead of this instance waits for it: it may come from one that is further on.
ARRIVAL_WAIT_S: Final = 1.0


class Places:
    """A consumer of the follower, before all that make tokens. `ask` has the engine judge a place that is older."""

    def __init__(self, follower: Follower, ask: Callable[[Position], Awaitable[None]]) -> None:
        self._follower = follower
        self._ask = ask
        self._tokens = Tokens("", 0)
        # Last sequences of frames, and first sequence and hash of each.
        self._lasts: list[int] = []
        self._frames: list[tuple[int, bytes]] = []

    def begin(self, snapshot: Snapshot) -> None:
        """See `follower.Consumer`."""
        if (snapshot.incarnation, snapshot.shard) != (self._tokens.incarnation, self._tokens.shard):
            self._tokens = Tokens(snapshot.incarnation, snapshot.shard)
            self._lasts.clear()
            self._frames.clear()
        if not self._lasts or self._lasts[-1] < snapshot.sequence:
            self._note(snapshot.sequence, snapshot.sequence, snapshot.frame_hash)

    def take(self, batch: Batch) -> None:
        """See `follower.Consumer`."""
        self._note(batch.first_sequence, batch.last_sequence, batch.frame_hash)

    def _note(self, first: int, last: int, frame_hash: bytes) -> None:
        self._lasts.append(last)
        self._frames.append((first, frame_hash[:8]))
        if len(self._lasts) > KEPT_FRAMES + _TRIM:
            del self._lasts[:_TRIM]
            del self._frames[:_TRIM]

    def of(self, stream: str) -> Tokens:
        """What makes the tokens of a stream."""
        return self._tokens.of(stream)

    def hash_at(self, sequence: int) -> bytes | None:
        """The hash of the frame with this sequence, None where it is not known here."""
        index = bisect_left(self._lasts, sequence)
        if index == len(self._lasts) or self._frames[index][0] > sequence:
            return None
        return self._frames[index][1]

    async def read(self, tokens: Tokens, token: str) -> Position:
        """The place of a token of this stream. Raises ServiceError: INVALID_RESUME_TOKEN, SEQUENCE_IN_FUTURE, HISTORY_CHANGED,
        and what the engine says of places that are older than what is known here.
        """
        position = tokens.position(token)
        if (position.incarnation, position.shard) != (tokens.incarnation, tokens.shard):
            raise ServiceError(ErrorReason.HISTORY_CHANGED)
        follower = self._follower
        if not await follower.reached(position.sequence, ARRIVAL_WAIT_S):
            raise ServiceError(ErrorReason.SEQUENCE_IN_FUTURE, metadata={"head_sequence": follower.sequence})
        known = self.hash_at(position.sequence)
        if known is None:
            await self._ask(position)
        elif short_hash(known) != position.frame_hash:
            raise ServiceError(ErrorReason.HISTORY_CHANGED)
        return position

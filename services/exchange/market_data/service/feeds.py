"""What the streams of market data share: one channel, its place, who follows it, and what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from exchange.runtime.errors import ErrorReason
from exchange.runtime.feeds.channel import Channel, follow
from exchange.runtime.feeds.notices import drain_notice, end_message, heartbeat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from exchange.runtime.feeds.tokens import Position, Tokens

# A feed that nobody has followed for this many heartbeats is dropped.
IDLE_HEARTBEATS: Final = 6


class Counts:
    """Of all streams: messages that were made, and streams closed because their client read too slowly."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        self.slow_closed: Counter[str] = Counter()


class StreamKind(Protocol):
    """All streams of one kind; see `FeedSet`."""

    kind: str

    def subscribers(self) -> int:
        """How many are open."""
        ...

    def heartbeat(self, head_sequence: int, time_ns: int) -> None:
        """Say on each that all is well."""
        ...

    def end(self, reason: int, drain_time_ns: int = 0) -> None:
        """End each, with a drain notice first where a time is given."""
        ...


class Feed:
    """One channel of messages that all have `sequence`, `prev_sequence`, `resume_token`, `heartbeat`, `drain` and `end`.
    `make` answers an empty one, `stamp` may add what each message has beside that.
    """

    def __init__(
        self, tokens: Tokens, sequence: int, frame_hash: bytes, make: Callable[..., Any], counts: Callable[[], None]
    ) -> None:
        self.tokens = tokens
        self.channel = Channel(sequence)
        self.frame_hash = frame_hash
        self.idle = 0
        self._make = make
        self._counts = counts

    @property
    def subscribers(self) -> int:
        """How many follow it."""
        return self.channel.subscribers

    def publish(self, message: Any, sequence: int, frame_hash: bytes, *, snapshot: bool = False) -> None:
        """Send a message of a frame to all; a snapshot replaces what they have."""
        self.frame_hash = frame_hash
        self._send(message, sequence, 0 if snapshot else self.channel.last_sequence)

    def _send(self, message: Any, sequence: int, prev_sequence: int) -> None:
        self._counts()
        self.channel.publish(sequence, self.encode(message, sequence, prev_sequence, self.frame_hash))

    def encode(self, message: Any, sequence: int, prev_sequence: int, frame_hash: bytes) -> bytes:
        """A message at a place."""
        message.sequence = sequence
        message.prev_sequence = prev_sequence
        message.resume_token = self.tokens.token(sequence, frame_hash)
        encoded: bytes = message.SerializeToString()
        return encoded

    def first(self, message: Any) -> bytes:
        """A snapshot as of the last message, for one who begins."""
        return self.encode(message, self.channel.last_sequence, 0, self.frame_hash)

    def heartbeat(self, head_sequence: int, time_ns: int) -> None:
        """Say that all is well, at the place of the last message."""
        last = self.channel.last_sequence
        token = self.tokens.token(last, self.frame_hash)
        self._send(self._make(heartbeat=heartbeat(head_sequence, time_ns, token)), last, last)

    def end(self, reason: int, drain_time_ns: int = 0) -> None:
        """End it, with a drain notice first where a time is given."""
        last = self.channel.last_sequence
        token = self.tokens.token(last, self.frame_hash)
        if drain_time_ns:
            self._send(self._make(drain=drain_notice(drain_time_ns, token)), last, last)
        self._send(self._make(end=end_message(reason, token)), last, last)
        self.channel.close()

    def position_of(self, place: Position | None) -> int | None:
        """Where to read on after a place, None where the channel does not know it."""
        return self.channel.position_after(place.sequence) if place is not None else None

    async def follow(self, position: int, on_slow: Callable[[], None]) -> AsyncIterator[bytes]:
        """Messages from a position on."""

        def slow() -> bytes:
            # No token: what this subscriber has missed lies between its own last one and here.
            on_slow()
            last = self.channel.last_sequence
            message = self._make(end=end_message(ErrorReason.SLOW_CONSUMER), sequence=last, prev_sequence=last)
            encoded: bytes = message.SerializeToString()
            return encoded

        async for message in follow(self.channel, position, slow):
            yield message


class Kept(Protocol):
    """A feed, or several that are one market's."""

    idle: int

    @property
    def subscribers(self) -> int:
        """How many follow it."""
        ...

    def heartbeat(self, head_sequence: int, time_ns: int) -> None:
        """See `StreamKind`."""
        ...

    def end(self, reason: int, drain_time_ns: int = 0) -> None:
        """See `StreamKind`."""
        ...


Key = TypeVar("Key", bound=Hashable)
AnyFeed = TypeVar("AnyFeed", bound=Kept)


class FeedSet(Generic[Key, AnyFeed]):
    """The feeds of one kind that somebody follows, or did lately. A `StreamKind`."""

    def __init__(self, kind: str, counts: Counts) -> None:
        self.kind = kind
        self._counts = counts
        self._feeds: dict[Key, AnyFeed] = {}

    def subscribers(self) -> int:
        """See `StreamKind`."""
        return sum(feed.subscribers for feed in self._feeds.values())

    def heartbeat(self, head_sequence: int, time_ns: int) -> None:
        """See `StreamKind`. A feed that nobody has followed for IDLE_HEARTBEATS is dropped."""
        for key, feed in list(self._feeds.items()):
            feed.idle = 0 if feed.subscribers else feed.idle + 1
            if feed.idle > IDLE_HEARTBEATS:
                del self._feeds[key]
            else:
                feed.heartbeat(head_sequence, time_ns)

    def end(self, reason: int, drain_time_ns: int = 0) -> None:
        """See `StreamKind`."""
        for feed in self._feeds.values():
            feed.end(reason, drain_time_ns)
        self._feeds.clear()

    def _count(self) -> None:
        self._counts.messages[self.kind] += 1

    def _slow(self) -> None:
        self._counts.slow_closed[self.kind] += 1

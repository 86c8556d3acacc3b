"""What goes out on one connection: at once while the client reads, else through a bounded queue."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from exchange.runtime.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from exchange.websocket.counts import Counts
    from exchange.websocket.limits import Limits
    from exchange.websocket.payload import Payload


class Wire(Protocol):
    """The connection itself. It calls `Outbox.flush` once it takes more."""

    window_bits: int

    @property
    def is_open(self) -> bool:
        """Whether messages may still be written."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether its buffer holds as much as it should."""
        ...

    def write_frame(self, frame: bytes) -> None:
        """Write without waiting."""
        ...


class Lane:
    """The messages of one conflated channel: one waits at most, and what came after it is replaced by a snapshot."""

    __slots__ = ("_snapshot", "stale", "waiting")

    def __init__(self, snapshot: Callable[[], Payload]) -> None:
        """`snapshot` gives all that the channel shows now, or raises ServiceError where there is no such thing just now."""
        self._snapshot = snapshot
        self.waiting: Payload | None = None
        self.stale = False

    def take(self) -> Payload | None:
        """What to send in the end."""
        payload, stale = self.waiting, self.stale
        self.waiting, self.stale = None, False
        if payload is None or not stale:
            return payload
        try:
            return self._snapshot()
        except ServiceError:
            # It is being fetched, and will come as any message.
            return None

    def drop(self) -> None:
        """Nothing of it is wanted any more."""
        self.waiting, self.stale = None, False


class Outbox:
    """See the module. `overflow` is called once, when the client has fallen too far behind."""

    def __init__(self, wire: Wire, limits: Limits, counts: Counts, overflow: Callable[[], None]) -> None:
        self._wire = wire
        self._limits = limits
        self._counts = counts
        self._overflow = overflow
        self._queue: deque[Payload | Lane] = deque()
        self._bytes = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def waits(self) -> bool:
        """Whether what is put now does not go out now."""
        return bool(self._queue) or self._wire.is_full

    def put(self, payload: Payload) -> None:
        """Send a message that must not be left out."""
        if self._closed:
            return
        if not self.waits:
            self._write(payload)
            return
        self._bytes += payload.size
        self._push(payload)
        if len(self._queue) > self._limits.queue_messages or self._bytes > self._limits.queue_bytes:
            self.close()
            self._overflow()

    def put_latest(self, payload: Payload, lane: Lane) -> None:
        """Send the newest message of a conflated channel, or, where it has to wait, what the channel shows by then."""
        if self._closed:
            return
        if lane.waiting is not None:
            lane.stale = True
            self._counts.conflated += 1
        elif self.waits:
            lane.waiting = payload
            self._push(lane)
        else:
            self._write(payload)

    def flush(self) -> None:
        """The connection takes more."""
        while self._queue and not self._wire.is_full and not self._closed:
            item = self._queue.popleft()
            if isinstance(item, Lane):
                latest = item.take()
                if latest is not None:
                    self._write(latest)
            else:
                self._bytes -= item.size
                self._write(item)

    def close(self) -> None:
        """Send nothing more, and forget what waits."""
        self._closed = True
        self._queue.clear()
        self._bytes = 0

    def _push(self, item: Payload | Lane) -> None:
        self._queue.append(item)
        self._counts.queue_high_water = max(self._counts.queue_high_water, len(self._queue))

    def _write(self, payload: Payload) -> None:
        wire = self._wire
        if wire.is_open:
            frame = payload.frame(wire.window_bits)
            wire.write_frame(frame)
            self._counts.messages_out += 1
            self._counts.bytes_out += len(frame)

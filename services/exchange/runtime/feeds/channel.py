"""A channel: one publisher, any number of subscribers, no queue for any of them.

What is published is kept in a ring; a subscriber is but a position in it. A slow one falls behind and is told so when
the ring has gone past it; it delays nobody and holds no memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

DEFAULT_KEPT: Final = 4_096


class Channel:
    """Items are (sequence, encoded message). All methods belong to one event loop."""

    def __init__(self, last_sequence: int, *, kept: int = DEFAULT_KEPT) -> None:
        self._ring: list[tuple[int, bytes]] = [(0, b"")] * kept
        self._kept = kept
        self._first_after = last_sequence  # the oldest kept item follows this sequence
        self.start = 0
        self.end = 0
        self.last_sequence = last_sequence
        self.subscribers = 0
        self.closed = False
        self._waiting: list[asyncio.Future[None]] = []

    def publish(self, sequence: int, message: bytes) -> None:
        """Append an item and wake who waits."""
        place = self.end % self._kept
        if self.end - self.start == self._kept:
            self._first_after = self._ring[place][0]
            self.start += 1
        self._ring[place] = (sequence, message)
        self.end += 1
        self.last_sequence = sequence
        self._wake()

    def close(self) -> None:
        """No more will come: subscribers end when they have read what there is."""
        self.closed = True
        self._wake()

    def item(self, position: int) -> bytes:
        """The message at a position between `start` and `end`."""
        return self._ring[position % self._kept][1]

    def position_after(self, sequence: int) -> int | None:
        """Where to read on after an item of this `sequence`; None where the ring holds no such end of an item."""
        position = self.end
        while position > self.start and self._ring[(position - 1) % self._kept][0] > sequence:
            position -= 1
        before = self._ring[(position - 1) % self._kept][0] if position > self.start else self._first_after
        return position if before == sequence else None

    async def wait(self, position: int) -> None:
        """Return when there is an item at `position`, or the channel is closed."""
        if position < self.end or self.closed:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


async def follow(
    channel: Channel,
    position: int,
    slow_end: Callable[[], bytes],
    merge: Callable[[int], tuple[bytes, int]] | None = None,
) -> AsyncIterator[bytes]:
    """Messages of a channel from a position until it closes; one that falls out of the ring gets `slow_end` last.

    Who is behind by more than one message gets what `merge` makes of those from his position on, which says where to read
    on. What was there before he came is sent as it was.
    """
    came_at = channel.end
    channel.subscribers += 1
    try:
        while True:
            if position < channel.start:
                yield slow_end()
                return
            if position < channel.end:
                if merge is not None and came_at <= position < channel.end - 1:
                    message, position = merge(position)
                else:
                    message = channel.item(position)
                    position += 1
                yield message
            elif channel.closed:
                return
            else:
                await channel.wait(position)
    finally:
        channel.subscribers -= 1

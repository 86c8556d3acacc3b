"""What an instance's services work with: the core that leads, or one that follows and forwards."""

from __future__ import annotations

import asyncio
import heapq
from typing import Any, Protocol

from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import Result


class Overloaded(Exception):
    """More commands wait than may."""


class Stalled(Exception):
    """The journal does not answer, or nobody leads: refused, or of unknown outcome."""


class Stopped(Exception):
    """This seat is no longer in use, or is stopping; the outcome of what waited is unknown."""


class Seat(Protocol):
    """A core in use. All methods belong to one event loop.

    `committed_sequence` is the newest durable sequence that the core has applied, `committed_hash` the hash of the frame
    that ends there, `epoch` that of the leader as far as it is known here.
    """

    engine: Engine
    committed_sequence: int
    committed_hash: bytes

    @property
    def epoch(self) -> int:
        """The leader's fencing epoch, 0 while none is known."""
        ...

    @property
    def queue_depth(self) -> int:
        """Commands that have arrived at the leader, or here, and are not durable yet."""
        ...

    @property
    def max_queued_commands(self) -> int:
        """Beyond this many commands are refused."""
        ...

    def submit(self, commands: list[Command]) -> asyncio.Future[list[Result]]:
        """Queue commands to be applied in order; the future has one result for each, once all are durable and applied
        here.

        Raises Overloaded, Stalled or Stopped at once: nothing was done then. The future may fail with them too: the
        outcome is then unknown, and only a repeat with the same ids tells.
        """
        ...

    def apply_now(self) -> None:
        """Apply what has been submitted, if it is applied here, without waiting for the loop's next turn."""
        ...

    def barrier(self) -> asyncio.Future[list[Result]] | None:
        """What to await so that everything the core has applied is durable; None when it is."""
        ...

    async def reached(self, sequence: int) -> None:
        """Wait until `sequence` is durable and applied here; the caller bounds the time. Raises Stopped."""
        ...

    async def fresh(self) -> bool:
        """Wait until the core has applied all that was durable anywhere before the call; False if that cannot be told
        now, since nobody leads or the leader does not answer.
        """
        ...

    def give_up(self, error: Exception) -> None:
        """This core must not serve any more: the instance makes another from the journal."""
        ...


class SequenceWaiters:
    """Who waits for a sequence to become durable here."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._gone = 0
        self._tie = 0

    def __len__(self) -> int:
        return len(self._heap)

    async def wait(self, sequence: int) -> None:
        """Return once `release` was called with this sequence or a later one. Raises what `fail` was called with."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tie += 1
        heapq.heappush(self._heap, (sequence, self._tie, future))
        try:
            await future
        finally:
            if future.cancelled():
                self._forget()

    def release(self, sequence: int) -> None:
        """All up to this sequence is durable here."""
        heap = self._heap
        while heap and heap[0][0] <= sequence:
            future = heapq.heappop(heap)[2]
            if future.done():
                self._gone -= 1
            else:
                future.set_result(None)

    def fail(self, error: Exception) -> None:
        """End all waits with an error."""
        for _, _, future in self._heap:
            fail(future, error)
        self._heap.clear()
        self._gone = 0

    def _forget(self) -> None:
        """Readers who gave up must not gather here: who asks for the far future would fill the memory."""
        self._gone += 1
        if 2 * self._gone > len(self._heap):
            self._heap = [waiter for waiter in self._heap if not waiter[2].done()]
            heapq.heapify(self._heap)
            self._gone = 0


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """End a wait with an error. A caller who has gone must not make the loop report it as never retrieved."""
    if not future.done():
        future.set_exception(error)
        future.exception()

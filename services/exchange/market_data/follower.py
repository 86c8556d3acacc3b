"""Follows the engines' events, at any replica, and gives them to all parts of this service in order, each exactly once.

It begins with a snapshot of all markets and books, and goes on from there wherever it is connected next. Where the events
cannot be continued (another history, a past that is no longer kept, a gap), or a consumer has found that its copy is not the
engine's, everything begins again with a snapshot.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from exchange.market_data.events import Batch, Event, Snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from exchange.runtime.clock import Clock

__all__ = ["Batch", "Consumer", "Event", "Follower", "Inconsistent", "Snapshot", "Source", "SourceError", "SourceLost"]

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0


class SourceError(Exception):
    """The engine does not answer, or the stream broke: connect again."""


class SourceLost(Exception):
    """The events cannot be continued from where this service is: begin with a snapshot."""


class Inconsistent(Exception):
    """A consumer's copy is not what the engine says, or an event makes no sense in it: begin with a snapshot."""


class Source(Protocol):
    """The engines' events."""

    @property
    def head_sequence(self) -> int:
        """The newest durable sequence that it has heard of, in the history that is followed."""
        ...

    async def snapshot(self) -> Snapshot:
        """All markets and books at one durable sequence. Raises SourceError."""
        ...

    def batches(self, sequence: int, token: str) -> AsyncGenerator[list[Batch], None]:
        """Frames after a place, as many at once as have arrived, without a gap; an empty list is a sign of life. Without a
        token, those after `sequence` of whichever history. Raises SourceError and SourceLost.
        """
        ...


class Consumer(Protocol):
    """Something that events are of interest to. Neither method waits; one that raises Inconsistent makes all begin anew."""

    def begin(self, snapshot: Snapshot) -> None:
        """Everything is as in the snapshot: what was built before is void."""
        ...

    def take(self, batch: Batch) -> None:
        """Go on by one frame."""
        ...


class Follower:
    """See the module. `sequence` is the last one that all consumers have; 0 before the first snapshot."""

    def __init__(self, source: Source, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._consumers: list[Consumer] = []
        self._snapshot: Snapshot | None = None
        self._last_incarnation = ""
        # A snapshot below it, of the same history, may be what was found to be wrong, or miss what was told already.
        self._floor = 0
        self._token = ""
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._caught_up_at = clock.monotonic()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("follower")
        self.sequence = 0
        self.frame_hash = b""
        self.time_ns = 0
        """The engine's time of the last frame with events."""
        self.restarts = 0
        """How often everything began with a snapshot, the first time included."""

    def subscribe(self, consumer: Consumer) -> None:
        """Give a consumer everything from the next snapshot on: subscribe before `run`. They are told in this order."""
        self._consumers.append(consumer)

    @property
    def history(self) -> tuple[str, int]:
        """(incarnation, shard) of what is followed. Only once `ready`."""
        assert self._snapshot is not None
        return self._snapshot.incarnation, self._snapshot.shard

    @property
    def ready(self) -> bool:
        """Whether the consumers have books."""
        return self.sequence > 0

    @property
    def head_sequence(self) -> int:
        """The newest durable sequence of the engine, as far as known here."""
        return max(self._source.head_sequence, self.sequence)

    @property
    def lag_s(self) -> float:
        """For how long something durable has been missing here, or nothing was heard."""
        return self._clock.monotonic() - self._caught_up_at

    async def run(self) -> None:
        """Follow until cancelled."""
        pause = FIRST_PAUSE_S
        while True:
            before = self.sequence
            try:
                if self._snapshot is None:
                    await self._begin()
                await self._follow()
            except SourceError as error:
                self._log.info("the engine's events broke off", error=str(error), sequence=self.sequence)
            except (SourceLost, Inconsistent) as error:
                self._floor = self.sequence + isinstance(error, Inconsistent)
                self._log.warning("market data begins anew", error=str(error), sequence=self.sequence)
                self._snapshot = None
            pause = FIRST_PAUSE_S if self.sequence != before else min(2 * pause, LONGEST_PAUSE_S)
            await asyncio.sleep(pause)

    async def _begin(self) -> None:
        snapshot = await self._source.snapshot()
        if snapshot.sequence < self._floor and snapshot.incarnation == self._last_incarnation:
            raise SourceError(f"an instance answered that is behind: {snapshot.sequence} of {self._floor}")
        self._last_incarnation = snapshot.incarnation
        self.restarts += 1
        for consumer in self._consumers:
            consumer.begin(snapshot)
        self._snapshot = snapshot
        self._at(snapshot.sequence, snapshot.frame_hash, snapshot.token)
        self._log.info("books begun", sequence=snapshot.sequence, markets=len(snapshot.markets))

    async def _follow(self) -> None:
        async with aclosing(self._source.batches(self.sequence, self._token)) as lists:
            async for batches in lists:
                self._take(batches)

    def _take(self, batches: list[Batch]) -> None:
        for batch in batches:
            if batch.first_sequence != self.sequence + 1:
                raise SourceLost(f"a gap: {batch.first_sequence} follows {self.sequence}")
            for consumer in self._consumers:
                consumer.take(batch)
            if batch.time_ns:
                self.time_ns = batch.time_ns
            self._at(batch.last_sequence, batch.frame_hash, batch.token)
        if self.sequence >= self._source.head_sequence:
            self._caught_up_at = self._clock.monotonic()

    def _at(self, sequence: int, frame_hash: bytes, token: str) -> None:
        self.sequence = sequence
        self._token = token
        self.frame_hash = frame_hash
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for wanted, waiter in waiting:
                if wanted > sequence:
                    self._waiting.append((wanted, waiter))
                elif not waiter.done():
                    waiter.set_result(None)

    async def reached(self, sequence: int, timeout_s: float) -> bool:
        """Return True once all consumers have this sequence, False when they have not in time."""
        if self.sequence >= sequence:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (sequence, waiter)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
        return True

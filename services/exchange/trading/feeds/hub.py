"""The hub: every durable frame goes to each sink once, and stays in memory for a while for those who read on."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator
from typing import Final, Protocol

from exchange.trading import codec
from exchange.trading.core.events import (
    B_ACCOUNT,
    B_TO,
    BALANCE_ADJUSTED,
    E_KIND,
    O_ACCOUNT,
    ORDER_ACCEPTED,
    ORDER_CANCELLED,
    ORDER_REDUCED,
    ORDER_REPLACED,
    ORDER_TRIGGERED,
    T_MAKER_ACCOUNT,
    T_TAKER_ACCOUNT,
    TRADE,
    Event,
)
from exchange.trading.journal.contract import Frame, Journal
from exchange.trading.sequencer import Committed

RECENT_COMMANDS: Final = 50_000
"""Commands whose events stay in memory for those who read on; older ones come from the journal."""

TRIM_COMMANDS: Final = 4_000
"""How many more may gather before the oldest are dropped."""

_OF_ONE_ORDER: Final = frozenset({ORDER_ACCEPTED, ORDER_TRIGGERED, ORDER_REDUCED, ORDER_REPLACED, ORDER_CANCELLED})


class Sink(Protocol):
    """Something that durable frames are of interest to."""

    def frame(self, committed: Committed) -> None:
        """Take a frame; must not wait and must not fail."""
        ...

    def reset(self) -> None:
        """Another core serves from now on: frames may have passed unseen, what was copied from the last one is void."""
        ...


def committed_of(frame: Frame) -> Committed:
    """A frame of the journal as readers see it."""
    return Committed(
        frame.first_sequence, frame.last_sequence, frame.time_ns, frame.hash, codec.decode_events(frame.events)
    )


def accounts_of(event: Event) -> tuple[str, ...]:
    """Accounts whose orders or money an event touches."""
    kind = event[E_KIND]
    if kind == TRADE:
        return (event[T_MAKER_ACCOUNT], event[T_TAKER_ACCOUNT])
    if kind in _OF_ONE_ORDER:
        return (event[O_ACCOUNT],)
    if kind == BALANCE_ADJUSTED:
        return (event[B_ACCOUNT], event[B_TO]) if event[B_TO] else (event[B_ACCOUNT],)
    return ()


def offsets_by_account(committed: Committed) -> dict[str, list[int]]:
    """Which commands of a frame concern which accounts, as offsets from its first sequence."""
    found: dict[str, list[int]] = {}
    for offset, events in enumerate(committed.events):
        for event in events:
            for account in accounts_of(event):
                offsets = found.setdefault(account, [])
                if not offsets or offsets[-1] != offset:
                    offsets.append(offset)
    return found


class Hub:
    """Recent frames, and who gets them. All methods belong to one event loop."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._recent: list[Committed] = []
        self._starts: list[int] = []
        self._recent_commands = 0
        self._sinks: list[Sink] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._waiting_accounts: dict[str, list[asyncio.Future[None]]] = {}
        self.head_sequence = 0
        self.head_hash = b""
        self.cores = 0
        """Counts the cores that have served. Who reads frames of one must not read on in those of another: the history
        may have changed, which only a token tells.
        """
        self.closed = False
        self.end_reason = 0

    def add(self, sink: Sink) -> None:
        """Give every frame from now on to a sink."""
        self._sinks.append(sink)

    def reset(self, head_sequence: int, head_hash: bytes) -> None:
        """A new core serves, as of this sequence: who reads frames ends, and comes again with its token."""
        self.cores += 1
        self._recent.clear()
        self._starts.clear()
        self._recent_commands = 0
        self.head_sequence = head_sequence
        self.head_hash = head_hash
        for sink in self._sinks:
            sink.reset()
        self._wake_all()

    def publish(self, committed: Committed) -> None:
        """A frame has become durable."""
        self._recent.append(committed)
        self._starts.append(committed.first_sequence)
        self._recent_commands += len(committed.events)
        if self._recent_commands > RECENT_COMMANDS + TRIM_COMMANDS:
            self._trim()
        self.head_sequence = committed.last_sequence
        self.head_hash = committed.frame_hash
        for sink in self._sinks:
            sink.frame(committed)
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            _wake(waiting)
        if self._waiting_accounts:
            for account in offsets_by_account(committed):
                concerned = self._waiting_accounts.pop(account, None)
                if concerned is not None:
                    _wake(concerned)

    def _trim(self) -> None:
        """Drop some at once, so that dropping costs little for each frame, and not so many that it is felt."""
        drop = 0
        while self._recent_commands > RECENT_COMMANDS and drop < len(self._recent) - 1:
            self._recent_commands -= len(self._recent[drop].events)
            drop += 1
        del self._recent[:drop]
        del self._starts[:drop]

    def close(self, reason: int) -> None:
        """The instance stops or no longer leads: readers end, with this reason."""
        self.closed = True
        self.end_reason = reason
        self._wake_all()

    def _wake_all(self) -> None:
        _wake(self._waiting)
        for waiting in self._waiting_accounts.values():
            _wake(waiting)
        self._waiting = []
        self._waiting_accounts = {}

    async def wait_beyond(self, sequence: int, timeout_s: float) -> bool:
        """Return True when something after `sequence` is durable or the hub closes, False when time is up."""
        if self.head_sequence > sequence or self.closed:
            return True
        return await self._wait(self._waiting, timeout_s)

    async def reaches(self, sequence: int, timeout_s: float) -> bool:
        """Return True when this sequence is durable here, False when it is not in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self.head_sequence < sequence and not self.closed:
            remaining = deadline - loop.time()
            if remaining <= 0 or not await self.wait_beyond(self.head_sequence, remaining):
                return False
        return self.head_sequence >= sequence

    async def wait_account(self, account: str, timeout_s: float) -> bool:
        """Return True when the next frame that concerns the account is durable or the hub closes, False when time is
        up. What came before the call is not waited for: read up to the head first, without awaiting in between.
        """
        if self.closed:
            return True
        return await self._wait(self._waiting_accounts.setdefault(account, []), timeout_s)

    @staticmethod
    async def _wait(waiting: list[asyncio.Future[None]], timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        waiting.append(waiter)
        timer = loop.call_later(timeout_s, waiter.cancel)
        try:
            await waiter
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return False
        finally:
            timer.cancel()
            if waiter in waiting:
                waiting.remove(waiter)
        return True

    async def read(self, from_sequence: int) -> AsyncIterator[Committed]:
        """Durable frames from the one that holds `from_sequence` up to the head: from memory, or from the journal. Ends
        where another core begins to serve.
        """
        position, cores = from_sequence, self.cores
        while position <= self.head_sequence and cores == self.cores:
            if self._starts and self._starts[0] <= position:
                committed = self._recent[bisect_right(self._starts, position) - 1]
                position = committed.last_sequence + 1
                yield committed
                continue
            stop = self._starts[0] - 1 if self._starts else self.head_sequence
            async for stored in self._journal.read(position, to_sequence=stop):
                if cores != self.cores:
                    return
                position = stored.last_sequence + 1
                yield committed_of(stored)


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for waiter in waiting:
        if not waiter.done():
            waiter.set_result(None)

"""An instance while it leads: from the lease it has just taken to the day it loses it or gives it away."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import structlog

from exchange.trading.core.commands import Command
from exchange.trading.core.events import Result
from exchange.trading.journal.contract import Frame, JournalError, JournalUnavailable
from exchange.trading.recovery import Recovered
from exchange.trading.replication.compare import Comparer
from exchange.trading.replication.downlinks import Downlinks
from exchange.trading.replication.follower import Follower
from exchange.trading.replication.messages import Comparison
from exchange.trading.replication.parts import Parts
from exchange.trading.seat import Overloaded, Stalled, Stopped, fail
from exchange.trading.sequencer import Committed, Sequencer


@dataclass(frozen=True, slots=True)
class Ended:
    """What a leadership leaves: a core at a durable sequence, None where it went beyond. After a hand-over `paused` is the
    sequencer, which still takes commands and keeps them for whoever follows with its core.
    """

    core: Recovered | None = None
    paused: Sequencer | None = None


class Leadership:
    """One stretch of leading, under one epoch."""

    def __init__(self, parts: Parts, follower: Follower, epoch: int) -> None:
        self._parts = parts
        self._follower = follower
        self._epoch = epoch
        self._hand_over_asked = asyncio.Event()
        self._comparer: Comparer | None = None
        self._asking: asyncio.Task[bool] | None = None
        self.downlinks: Downlinks | None = None
        self.ended = asyncio.Event()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("leadership")

    def ask_hand_over(self) -> None:
        """Have leadership given to a follower."""
        self._hand_over_asked.set()

    async def compare(self, symbol: str) -> Comparison | None:
        """The state of all instances; None before this instance truly leads. Raises LinkLost."""
        return await self._comparer.compare(symbol) if self._comparer is not None else None

    async def run(self, stopping: asyncio.Event) -> Ended:
        """Lead until stopped, deposed, or asked to hand over.

        Raises Diverged where the core is none of the journal's history, JournalUnavailable where the journal's tail is
        not to be had, JournalCorrupt and broken invariants.
        """
        renewer = asyncio.create_task(self._renew())
        try:
            # Under the new epoch nobody else appends: what is there now is all there will be.
            await self._follower.catch_up()
            await self._follower.check_head()
            return await self._lead(self._take_seat(), renewer, stopping)
        finally:
            ending: list[asyncio.Task[Any]] = [renewer, *([self._asking] if self._asking is not None else [])]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            self.ended.set()

    def _take_seat(self) -> Sequencer:
        """From the core that followed to one that leads, with nothing in between; what waited for a leader goes in."""
        parts, follower = self._parts, self._follower
        sequencer = Sequencer(
            follower.engine,
            parts.journal,
            shard=parts.shard,
            epoch=self._epoch,
            head_hash=follower.committed_hash,
            digest=follower.digest,
            clock=parts.clock,
            on_commit=self._committed,
            limits=parts.sequencer_limits,
            on_append=parts.on_append,
            still_leading=self._still_leading,
        )
        self.downlinks = Downlinks(
            parts.me,
            sequencer,
            on_attendance=parts.watcher.attendance,
            on_link_lost=parts.watcher.link_lost,
            surely_leads=self._surely_leads,
            limits=parts.downlink_limits,
        )
        self._comparer = Comparer(parts.me, sequencer, self.downlinks)
        waiting = follower.uplink.take_pending()
        parts.watcher.seated(sequencer)
        follower.stop()
        follower.uplink.stop()
        for commands, future in waiting:
            submit_for(sequencer, commands, future)
        return sequencer

    def _committed(self, committed: Committed, frame: Frame) -> None:
        if self.downlinks is not None:
            # First to the followers: they are busy with it while this instance tells its own readers.
            self.downlinks.frame(frame)
        self._parts.watcher.frame(committed)

    async def _lead(self, sequencer: Sequencer, renewer: asyncio.Task[None], stopping: asyncio.Event) -> Ended:
        watcher = self._parts.watcher
        self._log.info("leading", epoch=self._epoch, sequence=sequencer.committed_sequence)
        background = asyncio.create_task(watcher.while_leading(sequencer))
        stopper = asyncio.create_task(stopping.wait())
        asked = asyncio.create_task(self._hand_over_asked.wait())
        ended: Ended | None = None
        try:
            if await watcher.leads(sequencer):
                await watcher.serving(True)
                ends: set[asyncio.Future[Any]] = {stopper, asked, sequencer.failure, renewer}
                while ended is None:
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                    if not asked.done():
                        break
                    ended = await self._hand_over(sequencer)
                    self._hand_over_asked.clear()
                    ends.discard(asked)
                    asked = asyncio.create_task(self._hand_over_asked.wait())
                    ends.add(asked)
            if ended is None and stopping.is_set():
                # A journal that does not answer is not waited for: what waits has been told that it is unknown.
                with contextlib.suppress(Stalled, Stopped):
                    await sequencer.drain()
        finally:
            for task in (background, stopper, asked):
                task.cancel()
            self._close()
            if ended is None:
                sequencer.stop()
            await asyncio.gather(background, stopper, asked, return_exceptions=True)
        return ended if ended is not None else self._what_is_left(sequencer)

    def _close(self) -> None:
        """Followers link elsewhere from now on."""
        if self._comparer is not None:
            self._comparer.stop()
        if self.downlinks is not None:
            self.downlinks.close()
        self.downlinks, self._comparer = None, None

    def _what_is_left(self, sequencer: Sequencer) -> Ended:
        """The core, unless it has applied what is not durable. Raises what broke it."""
        error = None if sequencer.failure.cancelled() else sequencer.failure.exception()
        if error is not None and not isinstance(error, JournalError):
            raise error
        if error is None and sequencer.engine.state.sequence == sequencer.committed_sequence:
            self._log.info("no longer leading", epoch=self._epoch)
            return Ended(core_of(sequencer))
        self._log.warning("no longer leading; what was not durable is discarded", epoch=self._epoch, error=str(error))
        return Ended()

    async def _hand_over(self, sequencer: Sequencer) -> Ended | None:
        """Give leadership away; None where it had to be kept: nobody to take it, or a journal that does not answer."""
        links = self.downlinks
        assert links is not None
        if not links.links:
            return None
        # All that has come is still led from here. What comes now is kept back, and forwarded to the next leader.
        sequencer.apply_now()
        links.takes_commands = False
        sequencer.pause()
        with contextlib.suppress(Stalled, Stopped):
            await sequencer.drain()
        if sequencer.failure.done() or sequencer.engine.state.sequence > sequencer.committed_sequence:
            # Its core is ahead of the journal: no follower may go on with it.
            links.begin_again()
            sequencer.resume()
            return None
        with contextlib.suppress(JournalUnavailable):
            await self._parts.lease.release()
        successor = links.hand_over()
        self._log.info("leadership is handed over", epoch=self._epoch, to=successor)
        return Ended(core_of(sequencer), paused=sequencer)

    async def _renew(self) -> None:
        """Keep the lease; returns when it is lost. The epoch would fence this leader anyway."""
        while True:
            await asyncio.sleep(self._parts.times.lease_renew_s)
            try:
                if not await self._parts.lease.renew():
                    self._log.warning("the lease is lost", epoch=self._epoch)
                    return
            except JournalUnavailable:
                # Nobody else can have taken it through the same store: the append says what is true.
                continue

    def _surely_leads(self) -> bool:
        """Whether nobody else can have taken the lease; a process that slept does not know."""
        return self._parts.lease.held_until > self._parts.clock.monotonic()

    async def _still_leading(self) -> bool:
        """Whether the lease is ours, asking its store if that is not sure."""
        if self._surely_leads():
            return True
        # One question for all who wait, and a store that does not answer holds no read up.
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_store())
        asking = self._asking
        await asyncio.wait([asking], timeout=self._parts.uplink_limits.head_wait_s)
        return asking.done() and not asking.cancelled() and asking.result()

    async def _ask_store(self) -> bool:
        try:
            return await self._parts.lease.renew()
        except JournalUnavailable:
            return False


def core_of(sequencer: Sequencer) -> Recovered:
    """The core of a sequencer that has nothing under way."""
    return Recovered(sequencer.engine, sequencer.committed_hash, sequencer.digest, 0, 0)


def submit_for(sequencer: Sequencer, commands: list[Command], future: asyncio.Future[list[Result]]) -> None:
    """Submit on behalf of somebody who already waits."""

    def settle(done: asyncio.Future[list[Result]]) -> None:
        error = done.exception()
        if error is not None:
            fail(future, error if isinstance(error, Exception) else Stopped())
        elif not future.done():
            future.set_result(done.result())

    try:
        sequencer.submit(commands).add_done_callback(settle)
    except (Overloaded, Stalled, Stopped) as refused:
        fail(future, refused)

"""An instance while it follows: it reads the journal, keeps a link to the leader, and stands for leadership."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import structlog

from exchange.trading.journal.contract import JournalUnavailable, LeaseView
from exchange.trading.replication.follower import Follower
from exchange.trading.replication.messages import FOLLOWER, Connection, FollowerHello, LeaderBatch, LinkLost, Refused
from exchange.trading.replication.parts import Parts

READY_RETRY_S = 0.02


class Following:
    """One stretch of following. `run` answers the epoch under which this instance is to lead."""

    def __init__(self, parts: Parts, follower: Follower, *, stand_from: float = 0.0) -> None:
        """`stand_from`: monotonic time before which this instance leaves the lease to others."""
        self._parts = parts
        self._times = parts.times
        self._follower = follower
        self._stand_from = stand_from
        self._look_now = asyncio.Event()
        self._refusals = 0
        self._dead_epoch = 0
        self._connection: Connection | None = None
        self._connected_epoch = 0
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("following")

    async def run(self, stopping: asyncio.Event) -> int | None:
        """Follow until this instance is to lead; answers its epoch, None when it was asked to stop.

        Raises Diverged, JournalCorrupt, and what else a core raises that must not be served.
        """
        candidate = asyncio.create_task(self._stand())
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._follow_journal()),
            asyncio.create_task(self._keep_linked()),
            asyncio.create_task(self._keep_ready()),
        ]
        stopper = asyncio.create_task(stopping.wait())
        try:
            running: set[asyncio.Future[Any]] = {candidate, stopper, self._follower.failure, *tasks}
            while not (candidate.done() or stopper.done()):
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                # What is wrong with the core or the journal ends following; in this order, for a set has none.
                for task in (candidate, *tasks):
                    if task in done:
                        task.result()
            return candidate.result() if candidate.done() else None
        finally:
            for task in (candidate, stopper, *tasks):
                task.cancel()
            await asyncio.gather(candidate, stopper, *tasks, return_exceptions=True)

    async def _follow_journal(self) -> None:
        """Read what is not pushed: gaps at once, and else from time to time."""
        follower, times = self._follower, self._times
        while True:
            follower.gap.clear()
            try:
                await follower.catch_up()
            except JournalUnavailable as error:
                self._log.warning("the journal does not answer: reads go on from here", error=str(error))
                await asyncio.sleep(times.retry_s)
                continue
            poll_s = times.journal_poll_linked_s if follower.uplink.linked else times.journal_poll_alone_s
            # Not `wait_for`: where what it waits for has just come, Python 3.11 swallows the cancellation of who waits.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(poll_s):
                    await follower.gap.wait()

    async def _keep_ready(self) -> None:
        """Clients are served once this core is as new as the leader's; and not while others have a leader that this instance
        cannot reach: elsewhere they are better off.
        """
        while True:
            while not await self._follower.fresh():  # noqa: ASYNC110 - nothing here knows when the leader answers
                await asyncio.sleep(READY_RETRY_S)
            await self._parts.watcher.serving(True)
            await self._cut_off()
            self._log.warning("no link to the leader for too long: clients are sent elsewhere")
            await self._parts.watcher.serving(False)

    async def _cut_off(self) -> None:
        """Return once another has led for a while, and this instance was not linked to it. Commands are held for so long."""
        hold_s = self._follower.uplink.limits.hold_s
        clock = self._parts.clock
        linked_at = clock.monotonic()
        epoch = 0
        while clock.monotonic() - linked_at <= hold_s:
            await asyncio.sleep(hold_s / 4)
            view = await self._look()
            led = view is not None and view.valid and view.holder != self._parts.me.instance
            if view is None or not led or view.epoch != epoch or self._follower.uplink.linked:
                linked_at = clock.monotonic()
                epoch = view.epoch if view is not None else epoch

    # --- the link ---

    async def _keep_linked(self) -> None:
        """Keep a link to whoever leads."""
        while True:
            view = await self._look()
            if view is not None and view.valid and view.holder not in (None, self._parts.me.instance):
                was_linked = await self._link(view)
                if was_linked:
                    # It may have died: find out at once.
                    self._look_now.set()
                    continue
            await asyncio.sleep(self._times.link_retry_s)

    async def _link(self, view: LeaseView) -> bool:
        """Use a link to the leader for as long as it lasts; answers whether it came to be."""
        follower = self._follower
        was_linked = False
        try:
            # What a link builds on must stand in the journal: a commit may have been lost with its server.
            await follower.check_place()
            connection = await self._parts.transport.connect(view.address, view.epoch)
            self._connection, self._connected_epoch = connection, view.epoch
            self._refusals = 0
            hello = FollowerHello(
                self._parts.me.at(FOLLOWER, follower.committed_sequence),
                view.epoch,
                follower.committed_sequence + 1,
                follower.committed_hash,
                (),
            )

            def take(batch: LeaderBatch) -> None:
                nonlocal was_linked
                was_linked = True
                self._take(batch)

            await follower.uplink.run(connection, hello, take)
        except Refused:
            self._refusals += 1
            if self._refusals >= self._times.refusals_of_the_dead:
                self._dead_epoch = view.epoch
                self._look_now.set()
        except LinkLost as lost:
            self._log.info("no link to the leader", leader=view.holder, why=str(lost))
        except JournalUnavailable as error:
            self._log.warning("the journal does not answer: no link is made", error=str(error))
        finally:
            self._connection = None
            follower.gap.set()
        return was_linked

    def _take(self, batch: LeaderBatch) -> None:
        for request in batch.state_requests:
            self._follower.take_state_request(request)
        if batch.frames:
            self._follower.take(batch.frames)
        if batch.hand_over:
            # Named by the leader itself, it stands whatever it has given away a moment ago.
            self._stand_from = 0.0
            self._look_now.set()

    # --- standing for leadership ---

    async def _stand(self) -> int:
        """Take the lease as soon as it can be had; answers the epoch."""
        parts = self._parts
        await self._caught_up()
        while True:
            view = await self._look()
            deposing = self._dead_epoch if view is not None and view.epoch == self._dead_epoch else 0
            if view is not None and (deposing or self._may_take(view)):
                with contextlib.suppress(JournalUnavailable):
                    epoch = await parts.lease.acquire(parts.me.instance, parts.address, deposing=deposing)
                    if epoch is not None:
                        return epoch
            spread = 0.75 + 0.5 * parts.rng.random()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._times.lease_look_s * spread):
                    await self._look_now.wait()
            self._look_now.clear()

    def _may_take(self, view: LeaseView) -> bool:
        """Whether the lease is free, has run out, or is one of this instance's former life."""
        free = view.holder in (None, self._parts.me.instance) or not view.valid
        return free and self._parts.clock.monotonic() >= self._stand_from

    async def _caught_up(self) -> None:
        """Nobody stands with a core that is not near the journal's head, or is none of its history."""
        while True:
            try:
                await self._follower.catch_up()
                await self._follower.check_place()
            except JournalUnavailable:
                await asyncio.sleep(self._times.retry_s)
            else:
                return

    async def _look(self) -> LeaseView | None:
        try:
            view = await self._parts.lease.look()
        except JournalUnavailable as error:
            self._log.warning("the lease's store does not answer", error=str(error))
            return None
        if self._connection is not None and view.epoch > self._connected_epoch:
            # Another leads now; who led may be stopped, and say nothing of it.
            self._connection.close()
        return view

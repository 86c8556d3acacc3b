"""The life of one instance: it recovers, follows, leads while it holds the lease, and follows again.

Which instance leads is decided by a lease in the journal's store; that only one can write, by the epoch that each taking of
the lease raises. So taking it too early costs a moment of service and never a frame.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from exchange.trading import recovery
from exchange.trading.journal.contract import Diverged, JournalError, JournalUnavailable
from exchange.trading.replication.downlinks import Downlinks
from exchange.trading.replication.follower import Follower
from exchange.trading.replication.following import Following
from exchange.trading.replication.leadership import Ended, Leadership
from exchange.trading.replication.messages import FOLLOWER, Comparison, LinkLost, ReplicaInfo
from exchange.trading.replication.parts import Parts
from exchange.trading.replication.uplink import Uplink


class Replica:
    """See the module. `run` returns when `stop` was asked for; it raises for a journal or core that must not be served."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._stopping = asyncio.Event()
        self._follower: Follower | None = None
        self._leadership: Leadership | None = None
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("replica")

    # --- what is asked of it ---

    def stop(self) -> None:
        """Ask `run` to end: what has arrived is still made durable."""
        self._stopping.set()

    @property
    def downlinks(self) -> Downlinks | None:
        """Where followers link, while this instance leads."""
        return self._leadership.downlinks if self._leadership is not None else None

    async def hand_over(self) -> bool:
        """Give leadership to a follower, and return when that is done; False where it could not be, or is not here."""
        leadership = self._leadership
        if leadership is None or leadership.downlinks is None or not leadership.downlinks.links:
            return False
        leadership.ask_hand_over()
        # It may be refused by a journal that does not answer; then this instance leads on.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._parts.uplink_limits.hold_s):
                await leadership.ended.wait()
        return leadership.ended.is_set()

    async def compare(self, symbol: str) -> Comparison:
        """The state of all instances at one sequence. Raises LinkLost where nobody can compare now."""
        found = None
        if self._leadership is not None:
            found = await self._leadership.compare(symbol)
        elif self._follower is not None:
            found = await self._follower.uplink.compare(symbol)
        if found is None:
            raise LinkLost("no leader answers")
        return found

    def replicas(self) -> list[ReplicaInfo]:
        """All instances as they are known here, this one always among them."""
        if self.downlinks is not None:
            return self.downlinks.replicas()
        me = self._parts.me
        if self._follower is None:
            return [me]
        known = [one for one in self._follower.uplink.replicas if one.instance != me.instance]
        return [*known, me.at(FOLLOWER, self._follower.committed_sequence)]

    # --- its life ---

    async def run(self) -> None:
        """Follow and lead until stopped. Raises JournalCorrupt, UnsupportedVersion and broken invariants."""
        ended = Ended()
        try:
            while not self._stopping.is_set():
                try:
                    ended = await self._follow_and_lead(ended)
                except Diverged as difference:
                    self._log.error("beginning again from the journal", error=str(difference))
                    ended = Ended()
                except JournalUnavailable as error:
                    self._log.warning("the journal went away: waiting for it", error=str(error))
                    ended = Ended()
                if ended.core is None and not self._stopping.is_set():
                    # Whatever it was, recovering again and again without a pause would help nobody.
                    await self._unseat()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._parts.times.retry_s):
                            await self._stopping.wait()
        finally:
            await self._unseat()
            with contextlib.suppress(JournalError):
                await self._parts.lease.release()

    async def _follow_and_lead(self, before: Ended) -> Ended:
        """From following, with the core that is left or a new one, to the end of the next leadership."""
        parts = self._parts
        core = before.core if before.core is not None else await self._recover()
        uplink = Uplink(parts.clock, attended=parts.watcher.attended, limits=parts.uplink_limits)
        uplink.applied(core.engine.state.sequence)
        follower = self._follower = Follower(core, parts.journal, uplink, on_frame=parts.watcher.frame)
        if before.core is None:
            await parts.watcher.joined(follower, core.snapshot_sequence)
        parts.watcher.seated(follower)
        stand_from = parts.clock.monotonic() + (parts.times.retry_s if before.core is not None else 0.0)
        if before.paused is not None:
            # Nothing is lost and nobody is refused: what has come meanwhile goes to the next leader.
            uplink.adopt(before.paused.take_unapplied())
            before.paused.stop()
            stand_from = parts.clock.monotonic() + parts.times.stand_back_s
        epoch = await Following(parts, follower, stand_from=stand_from).run(self._stopping)
        if epoch is None:
            return Ended()
        self._leadership = Leadership(parts, follower, epoch)
        try:
            return await self._leadership.run(self._stopping)
        finally:
            self._leadership = None

    async def _recover(self) -> recovery.Recovered:
        """A core as the journal has it."""
        started = self._parts.clock.monotonic()
        recovered = await recovery.recover(self._parts.journal)
        self._log.info(
            "recovered",
            sequence=recovered.engine.state.sequence,
            snapshot_sequence=recovered.snapshot_sequence,
            replayed_commands=recovered.replayed_commands,
            seconds=round(self._parts.clock.monotonic() - started, 3),
        )
        return recovered

    async def _unseat(self) -> None:
        """No core is in use: clients are served no more."""
        await self._parts.watcher.serving(False)
        self._parts.watcher.seated(None)
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.stop()
            follower.uplink.stop()

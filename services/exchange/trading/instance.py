"""One trading-engine instance: it waits for the lease, recovers, leads, and steps down when it must."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading import recovery
from exchange.trading.core import commands as cmd
from exchange.trading.core.events import R_REASON
from exchange.trading.core.model import Market
from exchange.trading.engine_metrics import EngineMetrics
from exchange.trading.feeds.hub import Hub, committed_of
from exchange.trading.feeds.tape import KEPT_TRADES, TradeTape
from exchange.trading.inspection import Inspector
from exchange.trading.journal.contract import Journal, JournalError, JournalUnavailable, Lease
from exchange.trading.sequencer import Sequencer, Stalled, Stopped
from exchange.trading.service.desk import Desk
from exchange.trading.service.session import Sessions

SHARD: Final = 0
LEASE_RENEW_S: Final = 0.5
ACQUIRE_RETRY_S: Final = 0.2
HASH_BOOKS_EVERY_S: Final = 10.0
"""How often the hash of one more book is published, if any has changed."""

MAX_HASHED_ORDERS: Final = 20_000
"""Larger books are hashed on request only: half a microsecond for each order is taken from everybody's orders."""
SNAPSHOT_LOOK_S: Final = 1.0
"""How often it is asked whether a snapshot is due."""
TAPE_COMMANDS: Final = 2 * KEPT_TRADES
"""How far back in the journal the tape of executions is filled from at start."""


class Instance:
    """Owns the life of the sequencer. `run` returns when `stop` was asked for; it raises for a corrupt journal."""

    def __init__(
        self,
        *,
        name: str,
        desk: Desk,
        journal: Journal,
        lease: Lease,
        hub: Hub,
        tape: TradeTape,
        sessions: Sessions,
        inspector: Inspector,
        metrics: EngineMetrics,
        clock: Clock,
        bootstrap: Callable[[Desk], Awaitable[None]],
        retention: tuple[int, int, int],
        snapshot_every: int,
        make_snapshot: Callable[[], Awaitable[int]],
        on_serving: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._name = name
        self._desk = desk
        self._journal = journal
        self._lease = lease
        self._hub = hub
        self._tape = tape
        self._sessions = sessions
        self._inspector = inspector
        self._metrics = metrics
        self._clock = clock
        self._bootstrap = bootstrap
        self._retention = retention
        self._snapshot_every = snapshot_every
        self._make_snapshot = make_snapshot
        self._on_serving = on_serving
        self._stopping = asyncio.Event()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("instance")

    def stop(self) -> None:
        """Ask `run` to end: what has arrived is still made durable."""
        self._stopping.set()

    async def run(self) -> None:
        """Lead whenever the lease can be had, until stopped. Raises JournalCorrupt and broken invariants."""
        while not self._stopping.is_set():
            try:
                epoch = await self._lease.acquire(self._name)
            except JournalUnavailable as error:
                self._log.warning("the lease's store does not answer", error=str(error))
                epoch = None
            if epoch is not None:
                try:
                    await self._lead(epoch)
                except JournalUnavailable as error:
                    self._log.warning("the journal went away: waiting for it", error=str(error))
            # However leading ended, recovering again and again without a pause would help nobody.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), ACQUIRE_RETRY_S)
        with contextlib.suppress(JournalError):
            await self._lease.release()

    async def _lead(self, epoch: int) -> None:
        renewer = asyncio.create_task(self._renew())
        try:
            sequencer = await self._recover(epoch)
        except BaseException:
            renewer.cancel()
            raise
        stopper = asyncio.create_task(self._stopping.wait())
        background = [
            renewer,
            asyncio.create_task(self._hash_books(sequencer)),
            asyncio.create_task(self._take_snapshots(sequencer)),
        ]
        try:
            await self._prepare(sequencer)
            await self._on_serving(True)
            ends: set[asyncio.Future[Any]] = {stopper, sequencer.failure, renewer}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                with contextlib.suppress(Stalled, Stopped):
                    # A journal that does not answer is not waited for: what waits has been told that it is unknown.
                    await sequencer.drain()
        except ServiceError as refusal:
            # Nobody was served yet: what has to stand in the journal first could not be written.
            if refusal.reason not in (ErrorReason.JOURNAL_UNAVAILABLE, ErrorReason.NOT_READY):
                raise
            self._log.warning("the journal went away: waiting for it", error=str(refusal))
        finally:
            await self._on_serving(False)
            for task in (stopper, *background):
                task.cancel()
            self._desk.step_down()
            sequencer.stop()
            await asyncio.gather(stopper, *background, return_exceptions=True)
        error = None if sequencer.failure.cancelled() else sequencer.failure.exception()
        if error is None:
            return
        if isinstance(error, JournalError):
            # What was applied beyond the journal is discarded: the next leadership starts from the journal.
            self._log.warning("no longer leading", error=str(error))
            return
        raise error

    async def _recover(self, epoch: int) -> Sequencer:
        started = self._clock.monotonic()
        recovered = await recovery.recover(self._journal)
        engine = recovered.engine
        self._hub.reset(engine.state.sequence, recovered.frame_hash)
        sequencer = Sequencer(
            engine,
            self._journal,
            shard=SHARD,
            epoch=epoch,
            head_hash=recovered.frame_hash,
            digest=recovered.digest,
            clock=self._clock,
            on_commit=self._hub.publish,
            on_append=self._metrics.appended,
        )
        await self._fill_tape(engine.state.sequence)
        self._desk.lead(sequencer, recovered.snapshot_sequence)
        self._inspector.lead(sequencer)
        self._metrics.restarts.inc()
        self._log.info(
            "leading",
            epoch=epoch,
            sequence=engine.state.sequence,
            snapshot_sequence=recovered.snapshot_sequence,
            replayed_commands=recovered.replayed_commands,
            seconds=round(self._clock.monotonic() - started, 3),
        )
        return sequencer

    async def _fill_tape(self, head: int) -> None:
        first = max(head - TAPE_COMMANDS, await self._journal.floor(), 1)
        if head >= first:
            async for frame in self._journal.read(first):
                self._tape.frame(committed_of(frame))

    async def _prepare(self, sequencer: Sequencer) -> None:
        """What must be in the journal before clients are served."""
        state = sequencer.engine.state
        if (state.max_ids, state.max_id_age_ns, state.max_finished_orders) != self._retention:
            result = (await self._desk.submit([cmd.set_retention("$engine", *self._retention)]))[0]
            assert result[R_REASON] == 0
        await self._bootstrap(self._desk)
        self._sessions.attend()

    async def _renew(self) -> None:
        """Keep the lease. Losing it stops the sequencer at once; the epoch would fence it anyway."""
        while True:
            await asyncio.sleep(LEASE_RENEW_S)
            try:
                kept = await self._lease.renew()
            except JournalUnavailable:
                # Nobody else can have taken it through the same store: the append says what is true.
                continue
            if not kept:
                self._log.warning("the lease is lost")
                return

    async def _hash_books(self, sequencer: Sequencer) -> None:
        """Publish the hash of a book from time to time."""
        hashed: dict[int, tuple[int, ...]] = {}
        while True:
            await asyncio.sleep(HASH_BOOKS_EVERY_S)
            market = _next_to_hash(sequencer.engine.state.markets, hashed)
            if market >= 0:
                # One book at a time: a large one takes milliseconds.
                with contextlib.suppress(ServiceError):
                    await self._desk.submit([cmd.hash_book(market)])

    async def _take_snapshots(self, sequencer: Sequencer) -> None:
        """Have a snapshot stored every so many commands; after a failure once as many have passed again."""
        tried = self._desk.snapshot_sequence
        while True:
            await asyncio.sleep(SNAPSHOT_LOOK_S)
            if sequencer.committed_sequence - tried >= self._snapshot_every:
                tried = sequencer.committed_sequence
                tried = await self._snapshot() or tried

    async def _snapshot(self) -> int:
        try:
            sequence = await self._make_snapshot()
        except Exception as error:  # noqa: BLE001 - a snapshot only makes the next start faster
            self._metrics.snapshot_failures.inc()
            self._log.warning("no snapshot was made", error=repr(error))
            return 0
        self._desk.snapshot_sequence = sequence
        self._log.info("snapshot stored", sequence=sequence)
        return sequence


def _next_to_hash(markets: list[Market], hashed: dict[int, tuple[int, ...]]) -> int:
    """The market whose book changed and whose hash was published longest ago, -1 for none; notes it as hashed."""
    changed = []
    for market in markets:
        bids, asks = market.bids, market.asks
        if bids.orders + asks.orders > MAX_HASHED_ORDERS:
            continue
        looks = (bids.orders, bids.lots, asks.orders, asks.lots, market.last_price)
        if hashed.get(market.index) != looks:
            changed.append((list(hashed).index(market.index) if market.index in hashed else -1, market.index, looks))
    if not changed:
        return -1
    _, index, looks = min(changed)
    hashed.pop(index, None)
    hashed[index] = looks
    return index

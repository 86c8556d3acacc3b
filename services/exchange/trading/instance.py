"""One trading-engine instance around its replica: desk, feeds, sessions, snapshots, and whether clients are served."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading.core import commands as cmd
from exchange.trading.core.events import R_REASON
from exchange.trading.core.model import Market
from exchange.trading.engine_metrics import EngineMetrics
from exchange.trading.feeds.hub import Hub, committed_of
from exchange.trading.feeds.tape import KEPT_TRADES, TradeTape
from exchange.trading.journal.contract import Journal
from exchange.trading.replication.messages import Attendance
from exchange.trading.revoked_orders import RevokedOrders
from exchange.trading.seat import Seat
from exchange.trading.sequencer import Committed, Sequencer
from exchange.trading.service.attendance import SessionAttendance
from exchange.trading.service.desk import Desk

HASH_BOOKS_EVERY_S: Final = 10.0
"""How often the hash of one more book is published, if any has changed."""

MAX_HASHED_ORDERS: Final = 20_000
"""Larger books are hashed on request only: half a microsecond for each order is taken from everybody's orders."""
SNAPSHOT_LOOK_S: Final = 1.0
"""How often it is asked whether a snapshot is due."""
TAPE_COMMANDS: Final = 2 * KEPT_TRADES
"""How far back in the journal the tape of executions is filled from at start."""


class Instance:
    """What surrounds a replica, as its `Watcher`."""

    def __init__(
        self,
        *,
        desk: Desk,
        journal: Journal,
        hub: Hub,
        tape: TradeTape,
        attendance: SessionAttendance,
        metrics: EngineMetrics,
        bootstrap: Callable[[Desk], Awaitable[None]],
        retention: tuple[int, int, int],
        snapshot_every: int,
        make_snapshot: Callable[[], Awaitable[int]],
        on_serving: Callable[[bool], Awaitable[None]],
        revoked_orders: RevokedOrders | None,
    ) -> None:
        """`retention` is ids, their age in nanoseconds, finished orders; `make_snapshot` answers the sequence;
        `revoked_orders` is None where nothing is revoked, for lack of a database.
        """
        self._desk = desk
        self._journal = journal
        self._hub = hub
        self._tape = tape
        self._attendance = attendance
        self._metrics = metrics
        self._bootstrap = bootstrap
        self._retention = retention
        self._snapshot_every = snapshot_every
        self._make_snapshot = make_snapshot
        self._on_serving = on_serving
        self._revoked_orders = revoked_orders
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("instance")

    # --- what the replica tells ---

    async def joined(self, seat: Seat, snapshot_sequence: int) -> None:
        """See `Watcher.joined`: feeds begin anew, and the tape of executions is filled from the journal."""
        self._desk.snapshot_sequence = snapshot_sequence
        head = seat.committed_sequence
        self._hub.reset(head, seat.committed_hash)
        first = max(head - TAPE_COMMANDS, await self._journal.floor(), 1)
        if head >= first:
            async for frame in self._journal.read(first, to_sequence=head):
                self._tape.frame(committed_of(frame))

    def seated(self, seat: Seat | None) -> None:
        """See `Watcher.seated`."""
        self._desk.sit(seat)
        if self._desk.is_seated and self._desk.sequencer is None:
            self._attendance.follow()

    def frame(self, committed: Committed) -> None:
        """See `Watcher.frame`."""
        self._hub.publish(committed)

    async def leads(self, sequencer: Sequencer) -> bool:
        """See `Watcher.leads`: how much is remembered, the first markets; and sessions get their grace."""
        self._metrics.leaderships.inc()
        state = sequencer.engine.state
        try:
            if (state.max_ids, state.max_id_age_ns, state.max_finished_orders) != self._retention:
                result = (await self._desk.submit([cmd.set_retention("$engine", *self._retention)]))[0]
                assert result[R_REASON] == 0
            await self._bootstrap(self._desk)
        except ServiceError as refusal:
            if refusal.reason not in (ErrorReason.JOURNAL_UNAVAILABLE, ErrorReason.NOT_READY):
                raise
            self._log.warning("what must be in the journal first could not be written", error=str(refusal))
            return False
        self._attendance.lead()
        return True

    async def while_leading(self, sequencer: Sequencer) -> None:
        """See `Watcher.while_leading`: hashes of books, snapshots, and orders of what was revoked."""
        duties = [self._hash_books(sequencer), self._take_snapshots(sequencer)]
        if self._revoked_orders is not None:
            duties.append(self._revoked_orders.run())
        await asyncio.gather(*duties)

    async def serving(self, ready: bool) -> None:  # noqa: FBT001 - it is the state
        """See `Watcher.serving`."""
        await self._on_serving(ready)

    def attended(self) -> Iterable[Attendance]:
        """See `Watcher.attended`."""
        return self._attendance.attended()

    def attendance(self, attendance: Attendance) -> None:
        """See `Watcher.attendance`."""
        self._attendance.told(attendance)

    def link_lost(self, sessions: set[tuple[str, str]]) -> None:
        """See `Watcher.link_lost`."""
        self._attendance.link_lost(sessions)

    # --- while leading ---

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

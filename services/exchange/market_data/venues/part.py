"""The feeds of other venues as a part of the market-data process: `tasks` run until they are cancelled, then `close`."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from exchange.market_data.venues.board import Board
from exchange.market_data.venues.catalogue import SIMULATED
from exchange.market_data.venues.feed import Feed
from exchange.market_data.venues.holder import RESTARTS, Holder
from exchange.market_data.venues.metrics import VenueMetrics
from exchange.market_data.venues.shared import FeedView, Shared, SharedState, view_of
from exchange.market_data.venues.simulated import SimulatedVenue
from exchange.market_data.venues.tick_queue import TickQueue
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.quick_cache import QuickCache

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from prometheus_client import CollectorRegistry

    from exchange.market_data.venues.catalogue import Venue
    from exchange.market_data.venues.config import VenuesConfig
    from exchange.market_data.venues.reference import Comparison
    from exchange.runtime.clock import Clock
    from exchange.runtime.config import Secret
    from exchange.runtime.database import Database

TELL_S: Final = 0.25
# To PostgreSQL every so many of these.
STORE_EVERY: Final = 4
# For so long an instance that runs no feeds believes what it has read.
BELIEVE_S: Final = 0.25
# How long a restart is waited for.
RESTART_S: Final = 3.0
_LOOK_S: Final = 0.05
# What has failed by a defect is begun anew after this.
AGAIN_S: Final = 1.0


class VenuesPart:
    """One instance's. Whether it runs the feeds or not, it answers for them."""

    def __init__(
        self,
        config: VenuesConfig,
        *,
        database: Database,
        database_url: Secret,
        redis_url: Secret | None,
        instance: str,
        clock: Clock,
        registry: CollectorRegistry,
    ) -> None:
        """`database` is of the role market_data_user, open before `tasks` run; without `redis_url` all goes by PostgreSQL."""
        self._config = config
        self._database = database
        self._clock = clock
        self._instance = instance
        self._board = Board(config.markets, config.rules)
        self._queue = TickQueue(redis_url, self._board.take, clock)
        self._cache = QuickCache(redis_url, clock=clock)
        self._state = SharedState(self._cache, database, clock)
        self._holder = Holder(
            database_url.reveal(), instance, begin=self._begin, end=self._end, restart=self._restart_here
        )
        self._feeds: dict[str, Feed] = {}
        self._running: list[asyncio.Task[None]] = []
        self._stack = AsyncExitStack()
        self._read: Shared | None = None
        self._believed_until = float("-inf")
        self._metrics = VenueMetrics(registry, self.feeds_here, self._board, clock, lambda: self._queue.refused)
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("venues")

    # --- its life ---

    def tasks(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What runs until the end."""
        return (self._holder.run(),) if self._config.venues else ()

    async def close(self) -> None:
        """After the tasks have ended."""
        await self._queue.close()
        await self._cache.close()

    @property
    def is_holder(self) -> bool:
        """Whether the feeds run here."""
        return self._holder.is_holder

    @property
    def markets(self) -> frozenset[str]:
        """Those that some venue has."""
        return frozenset(self._board.markets)

    def feeds_here(self) -> list[FeedView]:
        """Those that run in this instance."""
        now = self._clock.monotonic()
        return [view_of(feed, now) for feed in self._feeds.values()]

    async def _begin(self) -> None:
        for venue in self._config.venues:
            self._feeds[venue.name] = Feed(
                await self._located(venue),
                self._queue.put,
                self._clock,
                limits=self._config.limits,
                rng=random.Random(),  # noqa: S311 - jitter
            )
        works = [*(feed.run for feed in self._feeds.values()), self._queue.run, self._tell]
        self._running = [asyncio.create_task(self._supervised(work)) for work in works]

    async def _located(self, venue: Venue) -> Venue:
        """The venue, with the address of the simulated one, which is started for it."""
        if venue.name != SIMULATED:
            return venue
        config = self._config
        server = await self._stack.enter_async_context(SimulatedVenue(config.simulated_seed, config.simulated_every_s))
        return replace(venue, url=server.url)

    async def _end(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running = []
        self._feeds = {}
        await self._stack.aclose()
        self._stack = AsyncExitStack()

    async def _supervised(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """For ever, until cancelled: a defect in one task ends neither the others nor, for long, itself."""
        while True:
            try:
                await work()
            except Exception:  # noqa: BLE001 - said aloud, and begun anew
                self._log.exception("a task of the feeds has failed and is begun anew")
            await asyncio.sleep(AGAIN_S)

    async def _tell(self) -> None:
        """Let the other instances know, for ever."""
        rounds, is_stored = 0, True
        while True:
            shared = await self._here()
            await self._state.tell(shared)
            if rounds % STORE_EVERY == 0:
                try:
                    await self._state.store(shared, [self._compared(symbol) for symbol in self._board.markets])
                    is_stored = True
                except ServiceError as error:
                    if is_stored:
                        self._log.warning("prices are not stored: going on without it", error=str(error))
                    is_stored = False
            rounds += 1
            await asyncio.sleep(TELL_S)

    async def _here(self) -> Shared:
        return Shared(
            instance=self._instance,
            written_ns=self._clock.time_ns(),
            feeds=tuple(self.feeds_here()),
            ticks=tuple(self._board.ticks()),
            queue_depth=await self._queue.length(),
        )

    # --- what it answers ---

    async def feeds(self) -> Shared:
        """How all feeds stand. Raises ServiceError NOT_READY where nobody runs them just now."""
        if self.is_holder:
            return await self._here()
        found = await self._shared()
        if found is None and self._config.venues:
            raise ServiceError(ErrorReason.NOT_READY, "no instance runs the feeds now: ask again")
        return found or await self._here()

    async def compare(self, symbol: str) -> Comparison:
        """The venues of a market. Raises ServiceError UNKNOWN_SYMBOL for a market that no venue has."""
        if symbol not in self._board.markets:
            reject(ErrorReason.UNKNOWN_SYMBOL, symbol=symbol)
        if not self.is_holder:
            found = await self._shared()
            self._board.replace(found.ticks if found is not None else ())
        return self._compared(symbol)

    async def restart(self, name: str) -> FeedView:
        """Begin a feed anew, wherever it runs; answers how it stands then.

        Raises ServiceError FEED_NOT_FOUND, and NOT_READY where nobody runs the feeds or the restart is not seen in time.
        """
        before = (await self.feeds()).feed(name)
        if before is None:
            reject(ErrorReason.FEED_NOT_FOUND, feed=name)
        if self.is_holder:
            self._restart_here(name)
        else:
            async with self._database.connection() as connection:
                await connection.execute("SELECT pg_notify($1, $2)", RESTARTS, name)
        ends = self._clock.monotonic() + RESTART_S
        while self._clock.monotonic() < ends:
            now = (await self.feeds()).feed(name)
            if now is not None and now.reconnects != before.reconnects:
                return now
            await asyncio.sleep(_LOOK_S)
        raise ServiceError(ErrorReason.NOT_READY, f"the feed {name} has not begun anew yet: look at its status")

    def _restart_here(self, name: str) -> None:
        feed = self._feeds.get(name)
        if feed is not None:
            feed.restart()

    def _compared(self, symbol: str) -> Comparison:
        return self._board.compare(symbol, self._clock.time_ns())

    async def _shared(self) -> Shared | None:
        if self._clock.monotonic() >= self._believed_until:
            self._read = await self._state.read()
            self._believed_until = self._clock.monotonic() + BELIEVE_S
        return self._read

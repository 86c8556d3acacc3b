"""`market_data_queue`: the list in Valkey by which ticks go from the feeds to the prices.

The list is bounded, and what is in memory is one tick for each venue and market: of those that wait the newest counts. While
Valkey is away ticks are handed over directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import structlog
from redis.exceptions import RedisError

from exchange.market_data.venues.ticks import Tick, decode, encode
from exchange.runtime.valkey import valkey_client

if TYPE_CHECKING:
    from exchange.runtime.clock import Clock
    from exchange.runtime.config import Secret

QUEUE: Final = "market_data_queue"
MAX_QUEUED: Final = 10_000
FLUSH_S: Final = 0.1
MAX_TAKEN: Final = 1_000
ANSWER_S: Final = 0.5
# For so long a server that failed is left alone.
REST_S: Final = 2.0


class TickQueue:
    """`put` ticks; `run` moves them by the list to `deliver`."""

    def __init__(self, url: Secret | None, deliver: Callable[[Tick], None], clock: Clock) -> None:
        """Without a URL there is no list, and ticks are handed over directly."""
        self._deliver = deliver
        self._clock = clock
        self._waiting: dict[tuple[str, str], Tick] = {}
        self._client: Any = None
        self._rests_until = float("-inf")
        self.is_away = url is None
        # What stood on the list and was no tick of ours.
        self.refused = 0
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("tick-queue")
        if url is not None:
            self._client = valkey_client(url, connect_s=ANSWER_S)

    def put(self, tick: Tick) -> None:
        """Never waits."""
        key = (tick.venue, tick.symbol)
        older = self._waiting.get(key)
        self._waiting[key] = tick if older is None else older.newer(tick)

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(self._every(self.push), self._every(self.take))

    async def push(self) -> None:
        """Put on the list what waits here."""
        ticks, self._waiting = list(self._waiting.values()), {}
        if ticks and not await self._try(lambda: self._pushed(ticks)):
            # Some may be on the list as well: to say a price twice does no harm.
            for tick in ticks:
                self._deliver(tick)

    async def take(self) -> None:
        """Deliver what stands on the list."""
        await self._try(self._taken)

    async def length(self) -> int:
        """How many ticks stand on the list; 0 while Valkey is away."""
        found = 0

        async def ask() -> None:
            nonlocal found
            found = await self._client.llen(QUEUE)

        await self._try(ask)
        return found

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _every(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await work()
            await asyncio.sleep(FLUSH_S)

    async def _pushed(self, ticks: list[Tick]) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.rpush(QUEUE, *(encode(tick) for tick in ticks))
            pipeline.ltrim(QUEUE, -MAX_QUEUED, -1)
            await pipeline.execute()

    async def _taken(self) -> None:
        for data in await self._client.lpop(QUEUE, MAX_TAKEN) or ():
            tick = decode(data)
            if tick is None:
                self.refused += 1
            else:
                self._deliver(tick)

    async def _try(self, ask: Callable[[], Awaitable[None]]) -> bool:
        """Whether Valkey did it."""
        if self._client is None or self._clock.monotonic() < self._rests_until:
            return False
        try:
            async with asyncio.timeout(2 * ANSWER_S):
                await ask()
        except (RedisError, OSError, TimeoutError) as error:
            self._rests_until = self._clock.monotonic() + REST_S
            if not self.is_away:
                self.is_away = True
                self._log.warning("Valkey does not answer: ticks go on without it", error=type(error).__name__)
            return False
        if self.is_away:
            self.is_away = False
            self._log.info("Valkey answers again")
        return True

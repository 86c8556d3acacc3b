"""Valkey as a cache that may be away: asked first, never believed when it is silent, and never waited for twice.

What it holds may be lost at any moment, and nothing depends on it: a caller that gets no answer asks PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import structlog
from redis.exceptions import MaxConnectionsError, RedisError

from exchange.runtime.clock import Clock, SystemClock
from exchange.runtime.config import Secret
from exchange.runtime.valkey import valkey_client

ANSWER_S: Final = 0.1
"""A server that has not answered within this is taken for dead."""
REST_S: Final = 5.0
"""For how long a dead server is not asked again; then one call tries."""
MAX_CONNECTIONS: Final = 32

T = TypeVar("T")


class QuickCache:
    """Small values with a time to live. Every method answers, whatever state the server is in; none raises."""

    def __init__(self, url: Secret | None, *, clock: Clock | None = None) -> None:
        """`url` is a Redis URL; without one nothing is ever found."""
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._client: Any = None
        self._rests_until = float("-inf")
        self._broken = False
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("quick-cache")
        if url is not None:
            self._client = valkey_client(
                url, connect_s=ANSWER_S, max_connections=MAX_CONNECTIONS, decode_responses=True
            )

    @property
    def resting(self) -> bool:
        """Whether the server is left alone just now, because it failed."""
        return self._client is None or self._clock.monotonic() < self._rests_until

    async def find(self, keys: Sequence[str]) -> list[str | None]:
        """The values of the keys, in their order; None for what is not there or cannot be asked for."""
        found = await self._try(lambda: self._client.mget(keys))
        return found if found is not None else [None] * len(keys)

    async def put(self, key: str, value: str, *, live_ms: int, only_new: bool = False) -> None:
        """Keep a value for so many milliseconds, `only_new`: unless the key has one."""
        await self._try(lambda: self._client.set(key, value, px=live_ms, nx=only_new))

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _try(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        if self.resting:
            return None
        if self._broken:
            # Said before the call: of all that come now, one tries, and nobody waits with it.
            self._rests_until = self._clock.monotonic() + REST_S
        try:
            async with asyncio.timeout(2 * ANSWER_S):
                answer = await ask()
        except MaxConnectionsError:
            # Busy, not dead.
            return None
        except (RedisError, OSError, TimeoutError) as error:
            self._rests_until = self._clock.monotonic() + REST_S
            if not self._broken:
                self._broken = True
                self._log.warning("Valkey does not answer: going on without it", error=type(error).__name__)
            return None
        if self._broken:
            self._broken = False
            self._rests_until = float("-inf")
            self._log.info("Valkey answers again")
        return answer

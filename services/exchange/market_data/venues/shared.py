"""What the instance that runs the feeds lets the others know: by Valkey four times a second, by PostgreSQL every second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from exchange.market_data.venues.ticks import Tick

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exchange.market_data.venues.feed import Feed
    from exchange.market_data.venues.reference import Comparison
    from exchange.runtime.clock import Clock
    from exchange.runtime.database import Connection, Database
    from exchange.runtime.quick_cache import QuickCache

KEY: Final = "market_data_state"
LIVE_MS: Final = 5_000
# Older than this, it says that nobody runs the feeds.
OLD_NS: Final = 10_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_WRITE_STATE: Final = """
INSERT INTO market_data_state (one, state, written_at) VALUES (true, $1::jsonb, $2)
ON CONFLICT (one) DO UPDATE SET state = excluded.state, written_at = excluded.written_at
"""
_WRITE_PRICE: Final = """
INSERT INTO latest_prices (symbol, price, "timestamp") VALUES ($1, $2, $3)
ON CONFLICT (symbol) DO UPDATE SET price = excluded.price, "timestamp" = excluded."timestamp"
WHERE latest_prices."timestamp" <= excluded."timestamp"
"""


class FeedView(msgspec.Struct, frozen=True, kw_only=True):
    """A feed as `Feed` of the contract says it; times are nanoseconds since the Unix epoch."""

    name: str
    state: str
    problem: str
    symbols: tuple[str, ...]
    connected_ns: int | None
    last_message_ns: int | None
    p50_ms: float | None
    p99_ms: float | None
    messages: int
    reconnects: int
    gaps: int
    mismatches: int


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """All feeds and the newest ticks."""

    instance: str
    written_ns: int
    feeds: tuple[FeedView, ...]
    ticks: tuple[Tick, ...]
    queue_depth: int

    def feed(self, name: str) -> FeedView | None:
        """One of them."""
        return next((feed for feed in self.feeds if feed.name == name), None)


def view_of(feed: Feed, now_s: float) -> FeedView:
    """How a feed stands; `now_s` is monotonic."""
    percentiles = feed.latency.percentiles(now_s)
    return FeedView(
        name=feed.name,
        state=feed.state.value,
        problem=feed.problem,
        symbols=feed.symbols,
        connected_ns=feed.connected_ns,
        last_message_ns=feed.last_message_ns,
        p50_ms=percentiles[0] if percentiles else None,
        p99_ms=percentiles[1] if percentiles else None,
        messages=feed.counts.messages,
        reconnects=feed.counts.reconnects,
        gaps=feed.counts.gaps,
        mismatches=feed.counts.mismatches,
    )


class SharedState:
    """Writes and reads it. `cache` may be away: PostgreSQL is asked then."""

    def __init__(self, cache: QuickCache, database: Database, clock: Clock) -> None:
        self._cache = cache
        self._database = database
        self._clock = clock

    async def tell(self, shared: Shared) -> None:
        """By Valkey; never fails."""
        await self._cache.put(KEY, msgspec.json.encode(shared).decode(), live_ms=LIVE_MS)

    async def store(self, shared: Shared, comparisons: Iterable[Comparison]) -> None:
        """By PostgreSQL, and the reference prices with it: a market without one keeps its last, which ages. Raises ServiceError."""
        async with self._database.transaction() as connection:
            await connection.execute(_WRITE_STATE, msgspec.json.encode(shared).decode(), _moment(shared.written_ns))
            prices = [
                (found.symbol, found.price, _moment(found.price_ns))
                for found in comparisons
                if found.price is not None and found.price_ns is not None
            ]
            if prices:
                await connection.executemany(_WRITE_PRICE, prices)

    async def read(self) -> Shared | None:
        """The newest, or None where nobody has written for OLD_NS. Raises ServiceError without Valkey and PostgreSQL."""
        found = _decoded((await self._cache.find([KEY]))[0])
        if found is None or self._is_old(found):
            async with self._database.connection() as connection:
                found = _decoded(await _stored(connection))
        return None if found is None or self._is_old(found) else found

    def _is_old(self, shared: Shared) -> bool:
        return self._clock.time_ns() - shared.written_ns > OLD_NS


async def _stored(connection: Connection) -> str | None:
    text: str | None = await connection.fetchval("SELECT state::text FROM market_data_state")
    return text


def _decoded(text: str | None) -> Shared | None:
    """None for nothing, and for what another version wrote."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Shared)
    except msgspec.DecodeError:
        return None


def _moment(time_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_ns // 1_000)

"""The history on a real database, with a feed that a test writes itself."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from exchange.market_data.candles import Candle, Trade
from exchange.market_data.history import Frame, History
from exchange.runtime.event_feed import FeedError
from exchange.runtime.feeds.tokens import Position
from tests.integration.trading.engine_app import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from tests.postgres_fixture import Database


CANDLES_BY_SQL = """
    SELECT extract(epoch FROM date_bin(make_interval(secs => %(length)s), created_at, '1970-01-01Z'))::bigint,
        (array_agg(price ORDER BY number))[1]::text, max(price)::text, min(price)::text,
        (array_agg(price ORDER BY number DESC))[1]::text, sum(quantity)::text, sum(notional)::text, count(*), max(sequence)
    FROM (SELECT *, (sequence, split_part(id, '-', 2)::int) AS number FROM trades WHERE symbol = %(symbol)s) AS own
    GROUP BY 1 ORDER BY 1 DESC
"""
TICKER_BY_SQL = """
    SELECT (array_agg(price ORDER BY number DESC))[1]::text, (array_agg(quantity ORDER BY number DESC))[1]::text,
        (array_agg(price ORDER BY number))[1]::text, max(price)::text, min(price)::text, sum(quantity)::text,
        sum(notional)::text, count(*)
    FROM (SELECT *, (sequence, split_part(id, '-', 2)::int) AS number FROM trades WHERE symbol = %(symbol)s) AS own
    WHERE created_at >= to_timestamp(%(second)s - 86399) AND created_at < to_timestamp(%(second)s + 1)
"""


def market_data_url(database: Database) -> str:
    return database.server.url(database.name, "market_data_user")


def token(sequence: int, incarnation: str = "first") -> str:
    """Such as the engine gives with a frame."""
    return Position(incarnation, 0, sequence, -1, f"{sequence:016x}").token()


class Engine:
    """Frames of an engine, and feeds that follow them; `fault` ends them."""

    def __init__(self, frames: Sequence[Frame] = ()) -> None:
        self.frames = list(frames)
        self.head_sequence = 0
        self.fault: Exception | None = None
        self.incarnation = "first"
        self.asked: list[tuple[int, str]] = []
        self._more = asyncio.Event()

    def push(self, *trades: Trade, time_ns: int = 0, sequence: int = 0) -> Frame:
        """A frame of these trades, or of none, at a time."""
        last = max([trades[-1].sequence if trades else sequence, self.head_sequence + (not trades)])
        frame = Frame(last, token(last, self.incarnation), time_ns or trades[-1].time_ns, list(trades))
        self.frames.append(frame)
        self.head_sequence = last
        self.wake()
        return frame

    def wake(self) -> None:
        """Have all feeds look again."""
        self._more.set()
        self._more = asyncio.Event()

    async def batches(self, sequence: int, resume_token: str) -> AsyncGenerator[list[Any], None]:
        """See `history.Feed`."""
        self.asked.append((sequence, resume_token))
        # Also of the history before, as far as it is the same.
        assert resume_token in ({token(sequence), token(sequence, self.incarnation)} if sequence else {""})
        while True:
            if self.fault is not None:
                raise self.fault
            more = self._more
            found = [frame for frame in self.frames if frame.last_sequence > sequence]
            yield found[:2]
            if found:
                sequence = found[:2][-1].last_sequence
            else:
                await more.wait()


class Heard:
    """What was published."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.candles: list[Candle] = []
        self.stops = 0

    def frame(self, frame: Frame, candles: list[Candle]) -> None:
        """See `history.Listener`."""
        self.frames.append(frame.last_sequence)
        self.candles += candles

    def stopped(self) -> None:
        """See `history.Listener`."""
        self.stops += 1


@asynccontextmanager
async def running_history(database: Database, engine: Engine, instance: str = "one") -> AsyncIterator[History]:
    """One instance, ended as a process ends: at once."""
    history = History(market_data_url(database), instance, engine, lambda frame: frame, passing=(FeedError,))
    task = asyncio.create_task(history.run())
    try:
        yield history
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def written(database: Database, history: History, engine: Engine) -> None:
    """Wait until the tables have all that the engine did."""
    await eventually(
        lambda: history.written.sequence >= engine.head_sequence, f"{engine.head_sequence} is in the tables"
    )


def rows(database: Database, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What the database says to the owner of its tables."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        cursor = connection.execute(query, values)
        return cursor.fetchall() if cursor.description is not None else []


def candle_rows(database: Database) -> list[tuple[Any, ...]]:
    """All candles, as text: digits count too."""
    columns = (
        "interval_s, extract(epoch FROM open_time)::bigint, open, high, low, close, volume, quote_volume, trade_count"
    )
    return rows(database, f"SELECT symbol, {columns}, sequence, last_quantity FROM candles ORDER BY 1, 2, 3")

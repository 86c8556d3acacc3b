"""Candles in PostgreSQL: read where the writer begins, then written with their offset in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from exchange.market_data.candles import INTERVALS, KEPT_CLOSED, NANOSECONDS, SECOND, Bar, CandleBuilder
from exchange.market_data.tickers import WINDOW_S, TickerWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from exchange.market_data.candles import Candle

    Connection = asyncpg.Connection[asyncpg.Record]

SHARD: Final = 0
# Any constant does, as long as all instances use the same: who holds it writes.
WRITER_LOCK: Final = 0x50_49_4E_43_44_4C
# Rows that are fetched at once when a day is read.
FETCH_ROWS: Final = 5_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# In Bar's order.
COLUMNS: Final = "open_time, open, high, low, close, volume, quote_volume, trade_count, sequence, last_quantity"
_WRITE_CANDLES: Final = f"""
INSERT INTO candles (symbol, interval_s, {COLUMNS})
SELECT * FROM unnest($1::text[], $2::int[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::numeric[], $7::numeric[],
    $8::numeric[], $9::numeric[], $10::bigint[], $11::bigint[], $12::numeric[])
ON CONFLICT (symbol, interval_s, open_time) DO UPDATE SET high = excluded.high, low = excluded.low, close = excluded.close,
    volume = excluded.volume, quote_volume = excluded.quote_volume, trade_count = excluded.trade_count,
    sequence = excluded.sequence, last_quantity = excluded.last_quantity
"""  # noqa: S608 - put together of constants
_BEGIN_OFFSET: Final = """
INSERT INTO market_data_offset (shard, sequence, resume_token, event_time_ns) VALUES ($1, 0, '', 0)
ON CONFLICT (shard) DO NOTHING
"""
# Only from where this writer believes to be: one that was overtaken writes nothing.
_MOVE_OFFSET: Final = """
UPDATE market_data_offset SET sequence = $3, resume_token = $4, event_time_ns = $5, written_at = clock_timestamp()
WHERE shard = $1 AND sequence = $2
"""
_SYMBOLS: Final = "SELECT DISTINCT symbol FROM candles WHERE interval_s = 86400"
_NEWEST: Final = f"""
SELECT {COLUMNS} FROM candles WHERE symbol = $1 AND interval_s = $2 ORDER BY open_time DESC LIMIT $3
"""  # noqa: S608 - put together of constants
_LAST_BEFORE: Final = f"""
SELECT {COLUMNS} FROM candles WHERE symbol = $1 AND interval_s = {SECOND} AND open_time <= $2 ORDER BY open_time DESC LIMIT 1
"""  # noqa: S608 - put together of constants
_DAY: Final = f"""
SELECT {COLUMNS} FROM candles WHERE symbol = $1 AND interval_s = {SECOND} AND open_time > $2 ORDER BY open_time
"""  # noqa: S608 - put together of constants


class Overtaken(Exception):
    """Another instance has written meanwhile."""


@dataclass(frozen=True, slots=True)
class Offset:
    """How far the tables are; `sequence` 0 means that nothing was written yet."""

    sequence: int
    resume_token: str
    event_time_ns: int


async def become_writer(connection: Connection) -> bool:
    """Whether this session is the one that writes now; it is until it ends."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", WRITER_LOCK))


async def read_offset(connection: Connection) -> Offset:
    """How far the tables are."""
    row = await connection.fetchrow(
        "SELECT sequence, resume_token, event_time_ns FROM market_data_offset WHERE shard = $1", SHARD
    )
    return Offset(*row) if row is not None else Offset(0, "", 0)


async def load(connection: Connection) -> tuple[Offset, dict[str, CandleBuilder], dict[str, TickerWindow]]:
    """How far the tables are, and by symbol the newest candles and the last 24 hours there."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        offset = await read_offset(connection)
        builders: dict[str, CandleBuilder] = {}
        for (symbol,) in await connection.fetch(_SYMBOLS):
            builder = builders[symbol] = CandleBuilder(symbol)
            for length_s in INTERVALS.values():
                newest = await connection.fetch(_NEWEST, symbol, length_s, KEPT_CLOSED + 1)
                builder.begin(length_s, map(bar_of, reversed(newest)), time_ns=offset.event_time_ns)
        # Seconds that have left the day at the engine's last time are out of it at any later one.
        last_out = EPOCH + timedelta(seconds=offset.event_time_ns // NANOSECONDS - WINDOW_S)
        windows = {symbol: await _window(connection, symbol, last_out) for symbol in builders}
    return offset, builders, windows


async def _window(connection: Connection, symbol: str, last_out: datetime) -> TickerWindow:
    window = TickerWindow()
    before = await connection.fetchrow(_LAST_BEFORE, symbol, last_out)
    if before is not None:
        window.begin(bar_of(before))
    async for row in connection.cursor(_DAY, symbol, last_out, prefetch=FETCH_ROWS):
        window.add(bar_of(row))
    return window


async def write(connection: Connection, candles: Sequence[Candle], old: Offset, new: Offset) -> None:
    """Put candles and offset into the tables, or neither. Raises Overtaken."""
    bars = [candle.bar for candle in candles]
    async with connection.transaction():
        if old.sequence == 0:
            await connection.execute(_BEGIN_OFFSET, SHARD)
        # Rows before the offset: by its old time the table still lets them grow.
        await connection.execute(
            _WRITE_CANDLES,
            [candle.symbol for candle in candles],
            [candle.length_s for candle in candles],
            [EPOCH + timedelta(seconds=bar.start_s) for bar in bars],
            *(_column(bars, name) for name in COLUMNS.split(", ")[1:]),
        )
        status = await connection.execute(
            _MOVE_OFFSET, SHARD, old.sequence, new.sequence, new.resume_token, new.event_time_ns
        )
        if status != "UPDATE 1":
            raise Overtaken(f"the candles are no longer at sequence {old.sequence}")


def _column(bars: Iterable[Bar], name: str) -> list[Any]:
    return [getattr(bar, name) for bar in bars]


def bar_of(columns: Iterable[Any]) -> Bar:
    """A row of COLUMNS."""
    open_time, *values = columns
    return Bar((open_time - EPOCH) // timedelta(seconds=1), *values)

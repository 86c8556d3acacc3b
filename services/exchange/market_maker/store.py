"""Settings, positions and what the quoting instance reports, in PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from exchange.market_maker.position import Position
from exchange.market_maker.rules import MarketSettings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from decimal import Decimal

    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

# Any constant does, as long as all instances use the same: who holds it quotes.
QUOTING_LOCK: Final = 0x50_49_4E_4D_4D_4B

_ADD_MARKET: Final = """
INSERT INTO market_maker_markets (symbol, enabled, min_spread, max_spread, levels, level_quantity, max_inventory,
    max_daily_loss, allowance)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (symbol) DO NOTHING
"""
_SET_MARKET: Final = """
UPDATE market_maker_markets SET enabled = $2, min_spread = $3, max_spread = $4, levels = $5, level_quantity = $6,
    max_inventory = $7, max_daily_loss = $8, allowance = $9
WHERE symbol = $1
"""
_SET_POSITION: Final = """
INSERT INTO market_maker_positions (symbol, inventory, cash, day, day_value, loss_base, stopped, allowance)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (symbol) DO UPDATE SET inventory = excluded.inventory, cash = excluded.cash, day = excluded.day,
    day_value = excluded.day_value, loss_base = excluded.loss_base, stopped = excluded.stopped, allowance = excluded.allowance
"""
_SET_REPORT: Final = """
INSERT INTO market_maker_reports (symbol, state, reference_price, bid_price, ask_price, open_orders, profit_today)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (symbol) DO UPDATE SET state = excluded.state, reference_price = excluded.reference_price,
    bid_price = excluded.bid_price, ask_price = excluded.ask_price, open_orders = excluded.open_orders,
    profit_today = excluded.profit_today
"""
_SET_PROGRESS: Final = """
UPDATE market_maker_progress SET account = $1, resume_token = $2, connected = $3, revision = $4,
    reported_at = clock_timestamp()
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings at one moment; `markets` by symbol."""

    enabled: bool
    revision: int
    markets: dict[str, MarketSettings]


@dataclass(frozen=True, slots=True)
class Report:
    """What one market is doing."""

    symbol: str
    state: str
    reference_price: Decimal | None
    bid_price: Decimal | None
    ask_price: Decimal | None
    open_orders: int
    profit_today: Decimal


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the quoting instance is. `age_s` is how long ago it said so."""

    account: str
    resume_token: str
    connected: bool
    revision: int
    age_s: float


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything that operators are shown, at one moment."""

    settings: Settings
    positions: dict[str, Position]
    reports: dict[str, Report]
    progress: Progress
    now: datetime


async def become_quoter(connection: Connection) -> bool:
    """Whether this database session is the one whose instance quotes; it is until it ends."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", QUOTING_LOCK))


async def begin(connection: Connection, *, enabled: bool) -> None:
    """Make the switch where it is not there yet."""
    await connection.execute(
        "INSERT INTO market_maker_switch (enabled) VALUES ($1) ON CONFLICT (one_row) DO NOTHING", enabled
    )


async def settings(connection: Connection) -> Settings:
    """As they are now; nothing is enabled before `begin`."""
    rows = await connection.fetch(
        "SELECT s.enabled AS switch, s.revision, m.* FROM (VALUES (1)) AS one LEFT JOIN market_maker_switch s ON true "
        "LEFT JOIN market_maker_markets m ON true ORDER BY m.symbol"
    )
    markets = {row["symbol"]: _market(row) for row in rows if row["symbol"] is not None}
    return Settings(bool(rows[0]["switch"]), rows[0]["revision"] or 0, markets)


async def add_markets(connection: Connection, found: Iterable[MarketSettings]) -> None:
    """Those that have no settings yet."""
    await connection.executemany(_ADD_MARKET, [_values(one) for one in found])


async def lock_settings(connection: Connection, *, enabled: bool) -> Settings:
    """In a transaction that changes them: one at a time."""
    await begin(connection, enabled=enabled)
    await connection.fetchval("SELECT revision FROM market_maker_switch FOR UPDATE")
    return await settings(connection)


async def change(connection: Connection, markets: Iterable[MarketSettings], *, enabled: bool) -> int:
    """Write them and the switch, after `lock_settings`; answers the new revision."""
    await connection.executemany(_SET_MARKET, [_values(one) for one in markets])
    revision: int = await connection.fetchval(
        "UPDATE market_maker_switch SET enabled = $1, revision = revision + 1 RETURNING revision", enabled
    )
    return revision


async def positions(connection: Connection) -> dict[str, Position]:
    """By symbol."""
    rows = await connection.fetch("SELECT * FROM market_maker_positions")
    return {row["symbol"]: Position(**dict(row)) for row in rows}


async def progress(connection: Connection) -> Progress:
    """Of whoever quotes, or quoted last."""
    row = await connection.fetchrow(
        "SELECT account, resume_token, connected, revision, "
        "extract(epoch FROM clock_timestamp() - reported_at)::float8 AS age_s FROM market_maker_progress"
    )
    assert row is not None, "made by the migration"
    return Progress(**dict(row))


async def report(
    connection: Connection,
    account: str,
    resume_token: str,
    markets: Iterable[Position],
    reports: Iterable[Report],
    *,
    connected: bool,
    revision: int,
) -> None:
    """Write all of it in one transaction."""
    async with connection.transaction():
        await connection.executemany(
            _SET_POSITION,
            [(p.symbol, p.inventory, p.cash, p.day, p.day_value, p.loss_base, p.stopped, p.allowance) for p in markets],
        )
        await connection.executemany(
            _SET_REPORT,
            [
                (r.symbol, r.state, r.reference_price, r.bid_price, r.ask_price, r.open_orders, r.profit_today)
                for r in reports
            ],
        )
        await connection.execute(_SET_PROGRESS, account, resume_token, connected, revision)


async def standing(connection: Connection) -> Standing:
    """In a transaction that sees one state of the tables."""
    rows = await connection.fetch("SELECT * FROM market_maker_reports")
    return Standing(
        settings=await settings(connection),
        positions=await positions(connection),
        reports={row["symbol"]: Report(**dict(row)) for row in rows},
        progress=await progress(connection),
        now=await connection.fetchval("SELECT clock_timestamp()"),
    )


def _market(row: Any) -> MarketSettings:
    names = MarketSettings.__dataclass_fields__
    return MarketSettings(**{name: row[name] for name in names})


def _values(one: MarketSettings) -> tuple[Any, ...]:
    return (
        one.symbol,
        one.enabled,
        one.min_spread,
        one.max_spread,
        one.levels,
        one.level_quantity,
        one.max_inventory,
        one.max_daily_loss,
        one.allowance,
    )

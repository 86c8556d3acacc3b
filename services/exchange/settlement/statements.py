"""Statements of one account: a period of one asset that adds up to the smallest unit, and the fees of a period.

A line is what one trade, fee, deposit, withdrawal or transfer changed of the total, available and held together. Holds and
releases change nothing of it. Totals are read from the ledger's `balance_after`, so they cost the same however long the
history is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from exchange.settlement.accounts import decimals_of
from exchange.settlement.ledger import chart
from exchange.settlement.store import SHARD

if TYPE_CHECKING:
    from exchange.runtime.database import Connection, Database

# A trade with oneself moves held, the rest of it, and what one is paid: no line has more postings.
POSTINGS_A_LINE: Final = 3

_OWED: Final = [chart.AVAILABLE, chart.HELD, chart.FEES]
_CAUSES: Final = [cause for cause in chart.CAUSE_NAMES if cause not in (chart.HOLD, chart.RELEASE)]

_TOTAL: Final = """
SELECT coalesce(sum(last.balance_after), 0)::bigint FROM (
    -- Only kinds that the account has: for another one all its lines would be searched.
    SELECT kind_id FROM ledger_balances WHERE account_id = $1 AND asset = $2 AND kind_id = ANY($3::smallint[])
) kinds CROSS JOIN LATERAL (
    SELECT balance_after FROM ledger_lines
    WHERE account_id = $1 AND asset = $2 AND kind_id = kinds.kind_id AND (event_time_ns, posting_id) <= ($4::bigint, $5::bigint)
        AND posting_id <= $6
    ORDER BY event_time_ns DESC, posting_id DESC LIMIT 1
) last
"""
_LINES: Final = """
SELECT posting_id, transaction_id, cause_id, reference, amount, event_time_ns FROM ledger_lines
WHERE account_id = $1 AND asset = $2 AND kind_id = ANY($3::smallint[]) AND cause_id = ANY($4::smallint[])
    AND (event_time_ns, posting_id) > ($5::bigint, $6::bigint) AND event_time_ns < $7 AND posting_id <= $8
ORDER BY event_time_ns, posting_id LIMIT $9
"""
_FEES: Final = """
WITH mine AS (
    SELECT DISTINCT reference FROM ledger_lines l
    WHERE account_id = $1 AND asset = ANY($5::text[]) AND event_time_ns >= $2 AND event_time_ns < $3 AND cause_id = 1
), sides AS (
    SELECT t.symbol, 'maker' AS role, t.maker_fee AS fee, t.notional FROM mine JOIN trades t ON t.id = mine.reference
    WHERE t.maker_user_id = $4
    UNION ALL
    SELECT t.symbol, 'taker', t.taker_fee, t.notional FROM mine JOIN trades t ON t.id = mine.reference
    WHERE t.taker_user_id = $4
)
SELECT s.symbol, s.role, m.quote_asset AS asset, a.decimals, count(*) AS trades, sum(s.fee) AS fees,
    sum(s.notional) AS notional
FROM sides s JOIN markets m ON m.symbol = s.symbol JOIN assets a ON a.code = m.quote_asset
GROUP BY s.symbol, s.role, m.quote_asset, a.decimals ORDER BY s.symbol, s.role
"""
_QUOTES: Final = "SELECT DISTINCT quote_asset FROM markets"


@dataclass(frozen=True, slots=True)
class Period:
    """From a time (included) to a time (not included), nanoseconds since 1970, in a ledger of so many postings."""

    from_ns: int
    to_ns: int
    last_posting: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Place:
    """After which posting a page begins."""

    time_ns: int
    posting_id: int


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One change of the total; amounts are in smallest units."""

    place: Place
    cause: str
    reference: str
    amount: int
    balance: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A page; `next_place` is None on the last one, `balance` the total after the page."""

    decimals: int
    opening: int
    closing: int
    lines: list[StatementLine]
    balance: int
    next_place: Place | None
    period: Period


@dataclass(frozen=True, slots=True)
class Fees:
    """Fees of one market and role, as decimal text."""

    symbol: str
    role: str
    asset: str
    fees: str
    notional: str
    trade_count: int


async def draw_up(
    database: Database,
    account: str,
    asset: str,
    wanted: Period | tuple[int, int | None],
    after: Place | None,
    limit: int,
) -> Statement:
    """A page of at most `limit` lines.

    `wanted` is (from, to) for the first page, `to` None for all that is settled; the period of the first page for the others:
    it is drawn up of the same ledger, whatever was settled since. Raises ServiceError UNKNOWN_ASSET.
    """
    async with database.reading() as connection:
        decimals = await decimals_of(connection, asset)
        period = wanted if isinstance(wanted, Period) else await _period(connection, *wanted)
        number = await _account_id(connection, account)
        opening = await _total(connection, number, asset, period, Place(period.from_ns - 1, 2**62))
        closing = await _total(connection, number, asset, period, Place(period.to_ns - 1, 2**62))
        begin = after if after is not None else Place(period.from_ns - 1, 2**62)
        balance = opening if after is None else await _total(connection, number, asset, period, begin)
        rows = await _rows(connection, number, asset, period, begin, limit)
    lines, balance, following = _page(rows, balance, limit)
    return Statement(decimals, opening, closing, lines, balance, following, period)


async def go_on(database: Database, account: str, asset: str, page: Statement, limit: int) -> Statement:
    """The page after one that has a `next_place`. All totals are known by then: it costs what its lines cost."""
    assert page.next_place is not None, "that was the last page"
    async with database.reading() as connection:
        number = await _account_id(connection, account)
        rows = await _rows(connection, number, asset, page.period, page.next_place, limit)
    lines, balance, following = _page(rows, page.balance, limit)
    return replace(page, lines=lines, balance=balance, next_place=following)


async def fees(database: Database, account: str, from_ns: int, to_ns: int | None) -> list[Fees]:
    """What trades cost, by market and role."""
    async with database.reading() as connection:
        period = await _period(connection, from_ns, to_ns)
        number = await _account_id(connection, account)
        quotes = [row["quote_asset"] for row in await connection.fetch(_QUOTES)]
        rows = await connection.fetch(_FEES, number, period.from_ns, period.to_ns, account, quotes)
    return [
        Fees(
            row["symbol"],
            row["role"],
            row["asset"],
            f"{row['fees']:.{row['decimals']}f}",
            f"{row['notional']:.{row['decimals']}f}",
            row["trades"],
        )
        for row in rows
    ]


async def _period(connection: Connection, from_ns: int, to_ns: int | None) -> Period:
    offset = await connection.fetchrow(
        "SELECT sequence, posting_id, event_time_ns FROM settlement_offset WHERE shard = $1", SHARD
    )
    if offset is None:
        return Period(from_ns, from_ns, 0, 0)
    # A period that begins after all that is settled is empty; it ends no earlier than it begins.
    settled = max(offset["event_time_ns"] + 1, from_ns)
    return Period(from_ns, settled if to_ns is None else to_ns, offset["posting_id"], offset["sequence"])


async def _account_id(connection: Connection, account: str) -> int:
    """Its number; 0, which is nobody's, for one that was never posted to."""
    found = await connection.fetchval("SELECT account_id FROM ledger_accounts WHERE account = $1", account)
    return int(found or 0)


async def _total(connection: Connection, number: int, asset: str, period: Period, at: Place) -> int:
    found = await connection.fetchval(_TOTAL, number, asset, _OWED, at.time_ns, at.posting_id, period.last_posting)
    return int(found)


async def _rows(connection: Connection, number: int, asset: str, period: Period, begin: Place, limit: int) -> list[Any]:
    """Postings enough for one line more than `limit`."""
    return await connection.fetch(
        _LINES,
        number,
        asset,
        _OWED,
        _CAUSES,
        begin.time_ns,
        begin.posting_id,
        period.to_ns,
        period.last_posting,
        POSTINGS_A_LINE * (limit + 1),
    )


def _page(rows: list[Any], balance: int, limit: int) -> tuple[list[StatementLine], int, Place | None]:
    """(lines, the balance after them, where the next page begins)."""
    lines, following = _lines(rows, balance), None
    if len(lines) > limit:
        following = lines[limit - 1].place
        del lines[limit:]
    if lines:
        balance = lines[-1].balance
    # A trade with oneself at the same price changes nothing.
    return [line for line in lines if line.amount], balance, following


def _lines(rows: list[Any], balance: int) -> list[StatementLine]:
    """Postings of one cause, one after another, are one line."""
    lines = []
    for (sequence, cause, reference), group in groupby(
        rows, lambda row: (row["transaction_id"], row["cause_id"], row["reference"])
    ):
        members = list(group)
        amount = sum(row["amount"] for row in members)
        balance += amount
        last = Place(members[-1]["event_time_ns"], members[-1]["posting_id"])
        lines.append(StatementLine(last, chart.CAUSE_NAMES[cause], reference, amount, balance, sequence))
    return lines

"""A statement as a CSV file: drawn up page by page, so that a long one costs others no more than a short one."""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from exchange.domain.decimals import format_units
from exchange.settlement import statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from exchange.runtime.database import Database
    from exchange.settlement.statements import Statement

COLUMNS: Final = ("time", "cause", "reference", "amount", "balance", "sequence")
PART_LINES: Final = 1_000
PARTS_AT_ONCE: Final = 2
"""Of all files of a process together: the other connections to the database are for calls that somebody waits for."""

# A spreadsheet would take text that begins so for a formula.
_FORMULA: Final = ("=", "+", "-", "@")


class StatementFiles:
    """Files of one process; they take turns."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turns = asyncio.Semaphore(PARTS_AT_ONCE)

    async def parts(self, account: str, asset: str, from_ns: int, to_ns: int | None) -> AsyncIterator[bytes]:
        """The file in parts of whole lines, all of the ledger as the first one saw it; the closing line is the last.

        Raises ServiceError UNKNOWN_ASSET before the first part, NOT_READY where the database is away.
        """
        async with self._turns:
            found = await statements.draw_up(self._database, account, asset, (from_ns, to_ns), None, PART_LINES)
        decimals, period = found.decimals, found.period
        opening = (_moment(from_ns), "opening", "", "", format_units(found.opening, decimals), "")
        yield _text([COLUMNS, opening, *_rows(found)])
        while found.next_place is not None:
            async with self._turns:
                found = await statements.go_on(self._database, account, asset, found, PART_LINES)
            yield _text(_rows(found))
        closing = format_units(found.closing, decimals)
        yield _text([(_moment(period.to_ns), "closing", "", "", closing, period.sequence)])


def _rows(found: Statement) -> list[tuple[object, ...]]:
    decimals = found.decimals
    return [
        (
            _moment(line.place.time_ns),
            line.cause,
            f"'{line.reference}" if line.reference.startswith(_FORMULA) else line.reference,
            format_units(line.amount, decimals),
            format_units(line.balance, decimals),
            line.sequence,
        )
        for line in found.lines
    ]


def _text(rows: list[tuple[object, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _moment(time_ns: int) -> str:
    """A time for people and programs: UTC, to the microsecond."""
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanos // 1_000).isoformat()

"""Verified reads of frames from PostgreSQL: the reading half of `PostgresJournal`.

Pages are bounded by rows and by bytes, and the next page is fetched while one is being verified. Long
pages are verified in a thread, so that replay does not hold up the event loop.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import asyncpg

from exchange.runtime.postgres import CONNECTION_ERRORS
from exchange.trading.journal.checks import check_range
from exchange.trading.journal.errors import JournalCorrupt, JournalUnavailable
from exchange.trading.journal.frame import GENESIS_HASH, MAX_SEQUENCE, Frame

PAGE_FRAMES = 512
PAGE_BYTES = 8 * 1024 * 1024
# Below this, handing a page to a thread costs more than verifying it (about 0.1 ms).
THREAD_FROM_BYTES = 256 * 1024
# Frames before a sequence are first looked for within this many sequences, then everywhere.
LOOK_BACK = 1_000_000
# Plan for the values at hand: a generic plan locks every partition, which takes milliseconds with hundreds of them.
READ_SETTINGS = {"plan_cache_mode": "force_custom_plan"}

_FLOOR = "SELECT floor_sequence, prev_hash FROM journal_floor WHERE shard = $1"
# The frame that may contain the sequence, and the one before it; at least one row, for the floor. The lower
# bound spares the server a look at every older partition; LOOK_BACK says what happens if it was too high.
_AROUND = """
SELECT floor_sequence, prev_hash, first_sequence, last_sequence, hash
FROM (SELECT) AS always
LEFT JOIN journal_floor AS floor ON floor.shard = $1
LEFT JOIN LATERAL (
    SELECT first_sequence, last_sequence, hash FROM journal_frames
    WHERE shard = $1 AND first_sequence <= $2 AND first_sequence > $3 ORDER BY first_sequence DESC LIMIT 2
) AS around ON true
ORDER BY first_sequence DESC
"""
# The inner LIMIT bounds rows, the running sum bytes, and the first row always passes. The lengths of
# values stored out of line are known without fetching them.
_PAGE = """
SELECT scanned, size, shard, first_sequence, last_sequence, epoch, time_ns, commands, events,
       digest, prev_hash, hash, format_version, rules_version
FROM (
    SELECT *, count(*) OVER () AS scanned, sum(size) OVER (ORDER BY first_sequence) AS running
    FROM (
        SELECT *, octet_length(commands) + octet_length(events) AS size FROM journal_frames
        WHERE shard = $1 AND first_sequence > $2 AND first_sequence <= $3
        ORDER BY first_sequence LIMIT $4
    ) AS page
) AS measured
WHERE running - size < $5
ORDER BY first_sequence
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the chain: the last sequence before it, the hash of the frame that ends there, and the
    first sequence of that frame (0 before all frames), after which a page begins.
    """

    last_sequence: int
    hash: bytes
    first_sequence: int


@dataclass(frozen=True, slots=True)
class Page:
    """Rows as stored, and whether more may follow."""

    rows: Sequence[asyncpg.Record]
    size: int
    more: bool


class Reader:
    """Reads one shard's frames over a pool."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", shard: int) -> None:
        self._pool = pool
        self._shard = shard

    async def fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        """Run a query; JournalUnavailable when the server does not answer."""
        try:
            return await self._pool.fetch(sql, *arguments)
        except CONNECTION_ERRORS as error:
            raise JournalUnavailable(f"shard {self._shard}: PostgreSQL is away: {error!r}") from error

    async def floor(self) -> Place:
        """Return the place before the oldest retained frame."""
        rows = await self.fetch(_FLOOR, self._shard)
        return floor_place(*rows[0]) if rows else floor_place(None, None)

    async def read(self, from_sequence: int, to_sequence: int | None) -> AsyncIterator[Frame]:
        """Yield verified frames; see `Journal.read`."""
        place = await self._place_before(from_sequence)
        last = MAX_SEQUENCE if to_sequence is None else to_sequence
        upcoming = asyncio.create_task(self._page(place.first_sequence, last))
        try:
            while True:
                page = await upcoming
                if page.more:
                    upcoming = asyncio.create_task(self._page(page.rows[-1]["first_sequence"], last))
                if page.size >= THREAD_FROM_BYTES:
                    frames, broken = await asyncio.to_thread(verify_rows, page.rows, place)
                else:
                    frames, broken = verify_rows(page.rows, place)
                for frame in frames:
                    yield frame
                if broken is not None:
                    raise broken
                if not page.more:
                    return
                place = Place(frames[-1].last_sequence, frames[-1].hash, frames[-1].first_sequence)
        finally:
            upcoming.cancel()
            with contextlib.suppress(asyncio.CancelledError, JournalUnavailable):
                await upcoming

    async def _place_before(self, sequence: int) -> Place:
        """Return the place before the frame that contains the sequence, or before where it would be."""
        lowest = max(0, sequence - LOOK_BACK)
        around = await self.fetch(_AROUND, self._shard, sequence, lowest)
        before = floor_place(around[0]["floor_sequence"], around[0]["prev_hash"])
        check_range(self._shard, sequence, before.last_sequence + 1)
        if len(around) < 2 and lowest > before.last_sequence:
            around = await self.fetch(_AROUND, self._shard, sequence, 0)
        around = [row for row in around if row["first_sequence"] is not None]
        if around and around[0]["last_sequence"] >= sequence:
            around = around[1:]
        # A frame below the floor is on its way to the archive; the floor itself tells what to expect.
        if around and around[0]["last_sequence"] > before.last_sequence:
            return Place(around[0]["last_sequence"], around[0]["hash"], around[0]["first_sequence"])
        return before

    async def _page(self, after_first_sequence: int, last: int) -> Page:
        rows = await self.fetch(_PAGE, self._shard, after_first_sequence, last, PAGE_FRAMES, PAGE_BYTES)
        size = sum(row["size"] for row in rows)
        scanned = rows[0]["scanned"] if rows else 0
        return Page(rows, size, more=bool(rows) and (scanned == PAGE_FRAMES or len(rows) < scanned))


def floor_place(floor_sequence: int | None, prev_hash: bytes | None) -> Place:
    """Return the place before the floor, given its row in `journal_floor`, if there is one."""
    if floor_sequence is None or prev_hash is None:
        return Place(0, GENESIS_HASH, 0)
    return Place(floor_sequence - 1, prev_hash, floor_sequence - 1)


def verify_rows(rows: Sequence[asyncpg.Record], place: Place) -> tuple[list[Frame], JournalCorrupt | None]:
    """Return the frames up to the first that is wrong, and what is wrong with that one."""
    frames: list[Frame] = []
    last_sequence, last_hash = place.last_sequence, place.hash
    for row in rows:
        _scanned, _size, *fields = row
        frame = Frame(*fields)
        try:
            frame.check_follows(last_sequence, last_hash)
            frame.verify()
        except JournalCorrupt as error:
            return frames, error
        frames.append(frame)
        last_sequence, last_hash = frame.last_sequence, frame.hash
    return frames, None

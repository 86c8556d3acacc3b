"""A market's book as it was after a sequence."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import aclosing
from typing import Final

from exchange.runtime.feeds.views import MAX_DEPTH, BookView
from exchange.trading import apart, recovery
from exchange.trading.book_view import view_of
from exchange.trading.journal.contract import Journal, JournalCorrupt
from exchange.trading.past.answers import PastRefused, Why, from_line, refusing
from exchange.trading.past.retention import retained

MAX_BUILDS: Final = 2
"""Books of the past that one instance builds at a time."""
MAX_BUILD_S: Final = 120.0
"""Seconds that building one may take."""
KEPT_BOOKS: Final = 32
"""Books of the past that are kept, those asked for last."""

Key = tuple[str, int]


async def book_at(journal: Journal, symbol: str, sequence: int) -> BookView:
    """The book of a market after a sequence, replayed from the newest snapshot at or before it.

    Raises PastRefused.
    """
    with refusing():
        (await retained(journal)).check(sequence)
        recovered = await recovery.recover(journal, to_sequence=sequence, exactly=True)
        state = recovered.engine.state
        if state.sequence != sequence:
            # A read stops where rows are missing and none follows within its bounds.
            raise JournalCorrupt(journal.shard, state.sequence + 1, "the journal has no frame with this sequence")
    index = state.market_index.get(symbol)
    if index is None:
        raise PastRefused(Why.UNKNOWN_SYMBOL)
    return view_of(state.markets[index], sequence, MAX_DEPTH)


class PastBooks:
    """Books of the past of one instance: few are built at a time, and the last ones are kept, for they never change.

    A build goes on when its caller leaves: an edge gives up on a read after seconds and asks again, and then finds it.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._kept: OrderedDict[Key, BookView] = OrderedDict()
        self._builds: dict[Key, asyncio.Task[BookView]] = {}

    async def check(self, sequence: int) -> None:
        """Raise PastRefused when the state after the sequence cannot be rebuilt; no replay is needed to know."""
        with refusing():
            (await retained(self._journal)).check(sequence)

    async def book(self, symbol: str, sequence: int) -> BookView:
        """The book of a market, by its canonical symbol. Raises PastRefused, and ApartFailed for a child that died."""
        key = (symbol, sequence)
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        build = self._builds.get(key)
        if build is None:
            if len(self._builds) >= MAX_BUILDS:
                raise PastRefused(Why.BUSY, text=f"{MAX_BUILDS} books of the past at a time")
            build = self._builds[key] = asyncio.create_task(self._build(symbol, sequence))
            build.add_done_callback(lambda ended: self._ended(key, ended))
        return await asyncio.shield(build)

    def _ended(self, key: Key, build: asyncio.Task[BookView]) -> None:
        del self._builds[key]
        # Looked at even if nobody waits any more: whoever asks again gets the error of a build of its own.
        if build.cancelled() or build.exception() is not None:
            return
        self._kept[key] = build.result()
        if len(self._kept) > KEPT_BOOKS:
            self._kept.popitem(last=False)

    async def _build(self, symbol: str, sequence: int) -> BookView:
        dsn = self._journal.dsn
        try:
            async with asyncio.timeout(MAX_BUILD_S):
                if dsn is None:
                    return await book_at(self._journal, symbol, sequence)
                arguments = (str(self._journal.shard), symbol, str(sequence))
                async with aclosing(apart.lines("exchange.trading.past", "book", *arguments, dsn=dsn)) as printed:
                    (answer,) = [from_line(line) async for line in printed]
        except TimeoutError:
            raise PastRefused(Why.BUSY, text=f"{MAX_BUILD_S:g} seconds for a book of the past") from None
        assert isinstance(answer, BookView)
        return answer

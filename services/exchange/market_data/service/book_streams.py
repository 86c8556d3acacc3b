"""StreamOrderBook and StreamBook: books by levels, as the engines send them, and conflated."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from exchange.market_data.service.feeds import FeedSet
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.feeds.book_feed import DEPTHS, INTERVALS_MS, BookFeed
from exchange.runtime.feeds.channel import follow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from exchange.market_data.books import Books, Frame, Market
    from exchange.market_data.service.feeds import Counts
    from exchange.market_data.service.places import Places

CONFLATED_MS: Final = tuple(sorted(INTERVALS_MS - {0}))


class BookStreams(FeedSet[str, BookFeed]):
    """All streams of levels; a listener of the books. Their tokens are those of the engines' StreamOrderBook."""

    def __init__(self, books: Books, places: Places, counts: Counts) -> None:
        super().__init__("book", counts)
        self._books = books
        self._places = places

    # --- publishing ---

    def start_over(self, *, same_history: bool) -> None:
        """See `books.Listener`."""
        for symbol, feed in list(self._feeds.items()):
            market = self._books.markets.get(symbol)
            if not same_history or market is None:
                feed.end(ErrorReason.NOT_READY)
                del self._feeds[symbol]
                continue
            feed.book, feed.mode = market.book, market.mode
            feed.sequence, feed.frame_hash = self._books.sequence, self._books.frame_hash
            feed.start_over()

    def frame(self, frame: Frame) -> None:
        """See `books.Listener`."""
        markets, batch = self._books.markets, frame.batch
        for symbol in frame.books:
            if symbol not in self._feeds:
                markets[symbol].book.changed.clear()
        for symbol, feed in self._feeds.items():
            feed.sequence, feed.frame_hash = batch.last_sequence, batch.frame_hash
            if symbol in frame.books or symbol in frame.markets:
                feed.mode = markets[symbol].mode
                self._counts.messages[self.kind] += feed.publish()

    async def conflate(self) -> None:
        """Send what has gathered for conflated streams, in each interval once, until cancelled."""
        await asyncio.gather(*(self._conflate(interval_ms) for interval_ms in CONFLATED_MS))

    async def _conflate(self, interval_ms: int) -> None:
        while True:
            await asyncio.sleep(interval_ms / 1000)
            for feed in list(self._feeds.values()):
                self._counts.messages[self.kind] += feed.flush(interval_ms)

    # --- subscribing ---

    async def serve(self, symbol: str, depth: int, interval_ms: int, resume_token: str) -> AsyncIterator[bytes]:
        """One subscriber's stream, encoded."""
        if depth not in DEPTHS:
            raise _wrong("depth", depth, "depth must be 10, 50, 200, or 0 for all")
        if interval_ms not in INTERVALS_MS:
            raise _wrong("interval_ms", interval_ms, "interval_ms must be 100, 250, 1000, or 0 for each change")
        canonical = self._books.market(symbol).symbol
        stream = f"book:{canonical}:{depth}" + (f":{interval_ms}" if interval_ms else "")
        tokens = self._places.of(stream)
        place = await self._places.read(tokens, resume_token) if resume_token else None
        # What was awaited may have taken long enough for everything to have begun anew.
        feed = self._feed(self._books.market(symbol))
        view = feed.view(depth, interval_ms, self._places.of(stream))
        channel = view.channel
        position = channel.position_after(place.sequence) if place is not None else None
        feed.idle = 0
        if position is None:
            position = channel.end
            yield feed.snapshot(view)

        def slow() -> bytes:
            self._counts.slow_closed[self.kind] += 1
            return feed.slow_end(view)

        async for message in follow(channel, position, slow, partial(feed.merged, view)):
            yield message

    def _feed(self, market: Market) -> BookFeed:
        feed = self._feeds.get(market.symbol)
        if feed is None:
            book = market.book
            feed = self._feeds[market.symbol] = BookFeed(
                market.symbol,
                book,
                book.prices.text,
                book.quantities.text,
                mode=market.mode,
                sequence=self._books.sequence,
                frame_hash=self._books.frame_hash,
            )
        return feed


def _wrong(field: str, value: int, why: str) -> ServiceError:
    return ServiceError(ErrorReason.INVALID_FIELD, why, metadata={"field": field, "value": value})

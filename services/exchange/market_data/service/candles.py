"""Candles as clients get them: of any past from the tables, of now as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from exchange.market_data.candles import INTERVALS, NANOSECONDS, Candle
from exchange.market_data.history_store import COLUMNS, SHARD, bar_of
from exchange.market_data.service.caching import NOW, PAST, may_be_kept
from exchange.market_data.service.feeds import Feed, FeedSet
from exchange.market_data.service.history import EPOCH, MAX_ROWS, period
from exchange.market_data.service.published import frame_hash_of, known_market, place_of, published
from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason, ServiceError
from pincex.marketdata.v1 import market_data_service_pb2 as pb
from pincex.marketdata.v1 import types_pb2

if TYPE_CHECKING:
    from exchange.market_data.books import Books
    from exchange.market_data.history import Frame, History
    from exchange.market_data.service.feeds import Counts
    from exchange.market_data.service.places import Places
    from exchange.runtime.database import Database

DEFAULT_INTERVAL: Final = "1m"
_NAMES: Final = {length_s: name for name, length_s in INTERVALS.items()}
# Offset and rows in one statement: both are of one moment. There is a row also where there is no candle, for its time.
_CANDLES: Final = f"""
SELECT event_time_ns, {COLUMNS} FROM (SELECT event_time_ns FROM market_data_offset WHERE shard = {SHARD}) AS here
LEFT JOIN LATERAL (
    SELECT * FROM candles WHERE symbol = $1 AND interval_s = $2 AND open_time >= $3 AND open_time < $4
    ORDER BY open_time DESC LIMIT $5
) AS page ON true
ORDER BY open_time DESC
"""  # noqa: S608 - put together of constants


class CandleService(FeedSet[tuple[str, int], Feed]):
    """ListCandles and StreamCandles; a listener of the history, and a `feeds.StreamKind`."""

    def __init__(self, history: History, database: Database, books: Books, places: Places, counts: Counts) -> None:
        super().__init__("candles", counts)
        self._history = history
        self._database = database
        self._books = books
        self._places = places

    async def ListCandles(self, request: pb.ListCandlesRequest, context: Any) -> pb.ListCandlesResponse:
        """One page, the newest first."""
        symbol = known_market(self._books, request.symbol).symbol
        length_s = interval_of(request.interval)
        size = paging.page_size(request.page_size, MAX_ROWS)
        start_s, end_s = period(request, NANOSECONDS)
        filters = ("candles", symbol, length_s, start_s, end_s)
        before_s = paging.number_position(request.page_token, *filters)
        stop_s = min(end_s, before_s or end_s)
        start, stop = (EPOCH + timedelta(seconds=each) for each in (start_s, stop_s))
        async with self._database.connection() as connection:
            rows = await connection.fetch(_CANDLES, symbol, length_s, start, stop, size + 1)
        time_ns = rows[0]["event_time_ns"] if rows else 0
        response = pb.ListCandlesResponse()
        for _, open_time, *columns in rows[:size]:
            if open_time is not None:
                bar = bar_of((open_time, *columns))
                closed = (bar.start_s + length_s) * NANOSECONDS <= time_ns
                response.candles.append(candle_message(Candle(symbol, length_s, bar, closed)))
        if len(rows) > size:
            oldest = response.candles[-1].open_time.seconds
            response.next_page_token = paging.make_token(str(oldest), *filters)
        # Behind a candle that is there, all are closed.
        is_past = bool(before_s) or -(-stop_s // length_s) * length_s * NANOSECONDS <= time_ns
        await may_be_kept(context, PAST if is_past else NOW)
        return response

    async def StreamCandles(self, request: pb.StreamCandlesRequest, context: Any) -> AsyncIterator[bytes]:
        """The candle of now, with each frame that changes it, and once more when it is closed. Encoded."""
        symbol = known_market(self._books, request.symbol).symbol
        length_s = interval_of(request.interval)
        tokens = self._places.of(f"candles:{symbol}:{_NAMES[length_s]}")
        place = await place_of(self._places, tokens, request.resume_token, self._history)
        days = published(self._history)
        builder = days.builders.get(symbol)
        feed = self._feeds.get((symbol, length_s))
        if feed is None:
            hash_now = frame_hash_of(days.resume_token)
            feed = Feed(tokens, days.sequence, hash_now, pb.MarketDataUpdate, self._count)
            self._feeds[symbol, length_s] = feed
        feed.idle = 0
        # Nothing waits from here to the message: it stands exactly at this position.
        position = feed.channel.end
        if place is None:
            newest = builder.newest(length_s) if builder is not None else None
            yield feed.first(_update([newest] if newest is not None else [], snapshot=True))
        elif place.sequence != feed.channel.last_sequence:
            missed = builder.since(length_s, place.sequence) if builder is not None else []
            if missed is None:
                raise ServiceError(ErrorReason.SEQUENCE_NOT_RETAINED, "too much was missed: begin without a token")
            last = feed.channel.last_sequence
            yield feed.encode(_update(missed), last, place.sequence, feed.frame_hash)
        async for message in feed.follow(position, self._slow):
            yield message

    # --- all streams ---

    def frame(self, frame: Frame, candles: list[Candle]) -> None:
        """See `history.Listener`."""
        if not self._feeds or not candles:
            return
        changed: dict[tuple[str, int], list[Candle]] = {}
        for candle in candles:
            key = (candle.symbol, candle.length_s)
            if key in self._feeds:
                changed.setdefault(key, []).append(candle)
        if changed:
            frame_hash = frame_hash_of(frame.resume_token)
            for key, those in changed.items():
                self._feeds[key].publish(_update(those), frame.last_sequence, frame_hash)

    def stopped(self) -> None:
        """See `history.Listener`."""
        self.end(ErrorReason.NOT_READY)


def interval_of(name: str) -> int:
    """The length in seconds of an interval; of DEFAULT_INTERVAL for none. Raises ServiceError INVALID_FIELD."""
    length_s = INTERVALS.get(name or DEFAULT_INTERVAL)
    if length_s is None:
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"interval must be one of {', '.join(INTERVALS)}",
            metadata={"field": "interval", "value": name},
        )
    return length_s


def candle_message(candle: Candle) -> types_pb2.Candle:
    """A candle as clients get it."""
    bar = candle.bar
    message = types_pb2.Candle(
        symbol=candle.symbol,
        interval=_NAMES[candle.length_s],
        open=format(bar.open, "f"),
        high=format(bar.high, "f"),
        low=format(bar.low, "f"),
        close=format(bar.close, "f"),
        volume=format(bar.volume, "f"),
        quote_volume=format(bar.quote_volume, "f"),
        trade_count=bar.trade_count,
        closed=candle.closed,
        sequence=bar.sequence,
    )
    message.open_time.seconds = bar.start_s
    return message


def _update(candles: list[Candle], *, snapshot: bool = False) -> pb.MarketDataUpdate:
    batch = pb.CandleBatch(candles=[candle_message(candle) for candle in candles])
    return pb.MarketDataUpdate(snapshot=snapshot, candles=batch)

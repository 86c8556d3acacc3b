"""Trades of any past, from the table that settlement writes; and the times that requests name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from exchange.market_data.service.caching import NOW, PAST, may_be_kept
from exchange.market_data.service.published import known_market
from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.fields import timestamp
from pincex.marketdata.v1 import market_data_service_pb2 as pb
from pincex.trading.v1 import types_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from exchange.market_data.books import Books
    from exchange.runtime.database import Database

MAX_ROWS: Final = 1_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS: Final = 1_000_000_000
# Beyond the last time that a request may name.
_END_OF_TIME_S: Final = 2**62 // _NANOSECONDS
# Of the parts of a page token: time in microseconds, sequence, place.
_LARGEST: Final = (_END_OF_TIME_S * 1_000_000, 2**62, 2**31 - 1)
# Times never fall while sequences grow, and an id ends with the place within its command: the order is total, and rows that
# come later stand before all others.
_TRADES: Final = """
SELECT id, sequence, symbol, price, quantity, taker_side, created_at, split_part(id, '-', 2)::int AS place FROM trades
WHERE symbol = $1 AND created_at >= $2 AND created_at < $3
    AND ($4::timestamptz IS NULL OR (created_at <= $4 AND (sequence, split_part(id, '-', 2)::int) < ($5, $6)))
ORDER BY created_at DESC, sequence DESC, place DESC LIMIT $7
"""


class TradeHistory:
    """ListTradeHistory."""

    def __init__(self, database: Database, books: Books) -> None:
        self._database = database
        self._books = books

    async def ListTradeHistory(self, request: pb.ListTradeHistoryRequest, context: Any) -> pb.ListTradeHistoryResponse:
        """One page, the newest first."""
        symbol = known_market(self._books, request.symbol).symbol
        size = paging.page_size(request.page_size, MAX_ROWS)
        start_us, end_us = period(request, 1_000)
        filters = ("trades", symbol, start_us, end_us)
        place = _place(paging.read_token(request.page_token, *filters))
        before = None if place is None else EPOCH + timedelta(microseconds=place[0])
        _, sequence, index = place or (0, 0, 0)
        start, end = (EPOCH + timedelta(microseconds=each) for each in (start_us, end_us))
        async with self._database.connection() as connection:
            rows = await connection.fetch(_TRADES, symbol, start, end, before, sequence, index, size + 1)
        response = pb.ListTradeHistoryResponse()
        for row in rows[:size]:
            response.trades.add(
                trade_id=row["id"],
                symbol=row["symbol"],
                price=format(row["price"], "f"),
                quantity=format(row["quantity"], "f"),
                taker_side=types_pb2.Side.Value(row["taker_side"]),
                trade_time=timestamp(row["created_at"]),
                sequence=row["sequence"],
            )
        if len(rows) > size:
            last = rows[size - 1]
            time_us = (last["created_at"] - EPOCH) // timedelta(microseconds=1)
            position = f"{time_us}.{last['sequence']}.{last['place']}"
            response.next_page_token = paging.make_token(position, *filters)
        # What lies before a trade is settled: only the newest page can still change.
        await may_be_kept(context, NOW if place is None else PAST)
        return response


def period(request: pb.ListTradeHistoryRequest | pb.ListCandlesRequest, unit_ns: int) -> tuple[int, int]:
    """(start, end) of a request in whole units since 1970, the end excluded: what has a time of whole units lies within these
    exactly if it lies within those that were asked for. Raises ServiceError INVALID_FIELD.
    """
    start_ns = _nanoseconds(request.start_time, "start_time") if request.HasField("start_time") else 0
    end_ns = _nanoseconds(request.end_time, "end_time") if request.HasField("end_time") else None
    if end_ns is not None and end_ns < start_ns:
        raise ServiceError(ErrorReason.INVALID_FIELD, "end_time lies before start_time", metadata={"field": "end_time"})
    return -(-start_ns // unit_ns), -(-(_END_OF_TIME_S * _NANOSECONDS if end_ns is None else end_ns) // unit_ns)


def _nanoseconds(stamp: Timestamp, field: str) -> int:
    value = stamp.seconds * _NANOSECONDS + stamp.nanos
    if not 0 <= value < _END_OF_TIME_S * _NANOSECONDS or not 0 <= stamp.nanos < _NANOSECONDS:
        raise ServiceError(
            ErrorReason.INVALID_FIELD, f"{field} must lie between 1970 and 2116", metadata={"field": field}
        )
    return value


def _place(position: str) -> tuple[int, int, int] | None:
    """What a page token carries: time, sequence and place within its command of the last trade of the page before."""
    if not position:
        return None
    parts = position.split(".")
    if len(parts) != len(_LARGEST) or not all(
        part.isdigit() and len(part) < paging.MAX_POSITION_DIGITS for part in parts
    ):
        raise ServiceError(ErrorReason.INVALID_PAGE_TOKEN, metadata={"field": "page_token"})
    time_us, sequence, index = (min(int(part), largest) for part, largest in zip(parts, _LARGEST, strict=True))
    return time_us, sequence, index

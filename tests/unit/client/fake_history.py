"""The history of one market, as small as an example needs it."""
# ruff: noqa: N802 - the contract names the methods

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from pincex.marketdata.v1 import market_data_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class FakeHistory:
    """Two candles, of which the newer one is still open; the last 24 hours are not known."""

    def __getattr__(self, name: str) -> Any:
        if not name[0].isupper():
            raise AttributeError(name)
        return None  # a method of the contract that nobody calls here

    async def GetTicker(self, request: Any, context: Any) -> Any:
        """As while candles and tickers are read, or have stopped."""
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not ready")

    async def ListCandles(self, request: Any, context: Any) -> pb.ListCandlesResponse:
        """Both, the newest first."""
        return pb.ListCandlesResponse(candles=[candle(9, 120), candle(7, 60, closed=True)])

    async def StreamCandles(self, request: Any, context: Any) -> AsyncIterator[pb.MarketDataUpdate]:
        """The open one."""
        batch = pb.CandleBatch(candles=[candle(9, 120)])
        yield pb.MarketDataUpdate(sequence=9, snapshot=True, resume_token="t9", candles=batch)
        await asyncio.Event().wait()


def candle(sequence: int, open_s: int, *, closed: bool = False) -> Any:
    """A candle of 1m."""
    message = pb.CandleBatch().candles.add(
        symbol="BTCUSD", interval="1m", open="1", high="1", low="1", close="1", volume="1", quote_volume="1",
        trade_count=1, closed=closed, sequence=sequence,
    )  # fmt: skip
    message.open_time.seconds = open_s
    return message

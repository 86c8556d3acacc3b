"""The engine's events and snapshots as `Follower` takes them, by the internal client."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import grpc.aio

from exchange.market_data.follower import SourceError, SourceLost
from exchange.market_data.service.intake import Decoder, SnapshotReader, trade_of
from exchange.runtime.errors import ServiceError
from exchange.runtime.event_feed import EventFeed, FeedError, FeedLost
from exchange.runtime.feeds.tokens import BadToken
from exchange.runtime.internal_client import InternalClient, reason_of
from pincex.journal.v1 import event_service_pb2 as pb
from pincex.journal.v1 import event_service_pb2_grpc
from pincex.trading.v1 import market_service_pb2, market_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from exchange.market_data.events import Batch, Snapshot, TradeExecuted

SNAPSHOT_S: Final = 60.0
# Frames that are given on at once: between two lists the loop serves others.
MAX_LIST_FRAMES: Final = 64
# Of each market, at the beginning; the engine has no larger page.
TRADES_AT_FIRST: Final = 1_000


class EventSource:
    """See `follower.Source`."""

    def __init__(self, client: InternalClient) -> None:
        self._client = client
        self._feed = EventFeed(client)
        self._decoder = Decoder()

    @property
    def head_sequence(self) -> int:
        """The newest durable sequence that it has heard of, in the history that is followed."""
        return self._feed.head_sequence

    async def snapshot(self) -> Snapshot:
        """See `follower.Source`."""
        reader = SnapshotReader()
        async with self._client.open() as channel:
            stub: Any = event_service_pb2_grpc.EventServiceStub(channel)
            call = stub.StreamSnapshot(pb.StreamSnapshotRequest(in_groups=True), metadata=self._client.metadata())
            try:
                async with asyncio.timeout(SNAPSHOT_S):
                    async for item in call:
                        reader.add(item)
                    trades = {symbol: await self._latest_trades(symbol) for symbol in reader.symbols}
                snapshot = reader.finish(trades)
            except grpc.aio.AioRpcError as error:
                raise SourceError(f"{reason_of(error)}: {error.details() or error.code().name}") from None
            except (TimeoutError, BadToken, ServiceError) as error:
                raise SourceError(f"no whole snapshot came: {error!r}") from None
        self._decoder.rules_version = reader.rules_version
        self._feed.head_sequence = snapshot.sequence
        # Later ones come as events.
        for symbol, latest in snapshot.trades.items():
            snapshot.trades[symbol] = [trade for trade in latest if trade.sequence <= snapshot.sequence]
        return snapshot

    async def _latest_trades(self, symbol: str) -> list[TradeExecuted]:
        stub: Any = market_service_pb2_grpc.MarketServiceStub(self._client.channel)
        request = market_service_pb2.ListMarketTradesRequest(symbol=symbol, page_size=TRADES_AT_FIRST)
        page = await self._client.call(stub.ListMarketTrades, request, repeatable=True)
        return [trade_of(trade) for trade in reversed(page.trades)]

    async def batches(self, sequence: int, token: str) -> AsyncGenerator[list[Batch], None]:
        """See `follower.Source`."""
        decode = self._decoder.batch
        try:
            async with aclosing(self._feed.batches(sequence, token)) as lists:
                async for gathered in lists:
                    for first in range(0, len(gathered) or 1, MAX_LIST_FRAMES):
                        if first:
                            await asyncio.sleep(0)
                        yield [decode(batch) for batch in gathered[first : first + MAX_LIST_FRAMES]]
        except FeedError as error:
            raise SourceError(str(error)) from None
        except FeedLost as error:
            raise SourceLost(str(error)) from None

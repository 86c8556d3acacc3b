"""`ExchangeClient.admin.feeds`: the connections to other venues, and what their prices come to."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import grpc.aio

from pincex.marketdata.v1 import feed_service_pb2 as wire
from pincex.marketdata.v1 import feed_service_pb2_grpc
from pincex_client.convert import from_wire
from pincex_client.transport import Caller


@dataclass(frozen=True, slots=True)
class VenueFeed:
    """One connection. `state` is CONNECTING, SUBSCRIBING, LIVE, STALE or BACKING_OFF; `problem` says why it is not LIVE.

    Latencies are from the venue's time to the exchange's, in milliseconds over the last minute; 0 where nothing is known.
    """

    name: str
    state: str
    problem: str
    symbols: tuple[str, ...]
    connected_time: datetime | None
    last_message_time: datetime | None
    latency_p50_ms: float
    latency_p99_ms: float
    messages: int
    reconnects: int
    gaps: int
    bad_checksums: int


@dataclass(frozen=True, slots=True)
class VenueFeeds:
    """All of them, and how many ticks wait in `market_data_queue`."""

    feeds: tuple[VenueFeed, ...]
    queue_depth: int


@dataclass(frozen=True, slots=True)
class VenuePrice:
    """What one venue says. Where it does not count for the reference price, `why` is stale, outlier, crossed or no_book."""

    venue: str
    price: Decimal | None
    bid: Decimal | None
    ask: Decimal | None
    price_time: datetime | None
    deviation_ppm: int
    included: bool
    why: str


@dataclass(frozen=True, slots=True)
class PriceComparison:
    """The venues of a market beside the reference price (None where no venue counts) and the exchange's own book."""

    symbol: str
    venues: tuple[VenuePrice, ...]
    reference_price: Decimal | None
    own_bid: Decimal | None
    own_ask: Decimal | None


@dataclass(frozen=True, slots=True)
class ReferencePrice:
    """The median of `venue_count` venues; `price_time` is of the oldest price in it."""

    symbol: str
    price: Decimal
    venue_count: int
    price_time: datetime | None


class FeedsAdmin:
    """For operators, support and auditors."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._caller = caller
        self._feeds = feed_service_pb2_grpc.FeedServiceStub(channel)
        self._prices = feed_service_pb2_grpc.ReferencePriceServiceStub(channel)

    async def _call(self, method: Any, request: Any) -> Any:
        return await self._caller.call(method, request, repeatable=True)

    async def status(self) -> VenueFeeds:
        """How every feed stands."""
        return from_wire(VenueFeeds, await self._call(self._feeds.ListFeeds, wire.ListFeedsRequest()))

    async def restart(self, name: str, *, reason: str = "") -> VenueFeed:
        """Drop a feed's connection and begin anew, at once."""
        request = wire.RestartFeedRequest(name=name, reason=reason)
        return from_wire(VenueFeed, await self._call(self._feeds.RestartFeed, request))

    async def compare(self, symbol: str) -> PriceComparison:
        """The price of each venue, and which do not count, and why."""
        request = wire.ComparePricesRequest(symbol=symbol)
        return from_wire(PriceComparison, await self._call(self._feeds.ComparePrices, request))

    async def reference_price(self, symbol: str) -> ReferencePrice:
        """What the venues come to. Raises Rejected PRICE_UNAVAILABLE where none counts."""
        request = wire.GetReferencePriceRequest(symbol=symbol)
        return from_wire(ReferencePrice, await self._call(self._prices.GetReferencePrice, request))

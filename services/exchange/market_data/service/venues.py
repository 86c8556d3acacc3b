"""ReferencePriceService and FeedService: what other venues' prices come to, and the connections to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from exchange.domain.symbols import canonical_symbol
from exchange.runtime.errors import ErrorReason, reject
from exchange.runtime.fields import reason_text
from pincex.marketdata.v1 import feed_service_pb2 as pb
from pincex.marketdata.v1 import feed_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.market_data.venues.part import VenuesPart
    from exchange.market_data.venues.shared import FeedView
    from exchange.runtime.grpc_server import GrpcServer

BestOfOwnBook: TypeAlias = Callable[[str], Awaitable[tuple[str, str]]]
"""Best bid and ask of our own book of a market, as decimals; empty where a side is, or where nobody can say."""

_NS_PER_SECOND = 1_000_000_000


class ReferencePriceService(feed_service_pb2_grpc.ReferencePriceServiceServicer):
    """See `proto/pincex/marketdata/v1/feed_service.proto`."""

    def __init__(self, venues: VenuesPart) -> None:
        self._venues = venues

    async def GetReferencePrice(self, request: pb.GetReferencePriceRequest, context: Any) -> pb.ReferencePrice:
        """The median of the venues that count now."""
        symbol = _symbol(request.symbol)
        found = await self._venues.compare(symbol)
        if found.price is None or found.price_ns is None:
            why = ", ".join(f"{venue.tick.venue} {venue.why}" for venue in found.venues)
            reject(ErrorReason.PRICE_UNAVAILABLE, symbol=symbol, venues=why or "none")
        return pb.ReferencePrice(
            symbol=symbol,
            price=_plain(found.price),
            venue_count=found.venue_count,
            price_time=_timestamp(found.price_ns),
        )


class FeedService(feed_service_pb2_grpc.FeedServiceServicer):
    """See `proto/pincex/marketdata/v1/feed_service.proto`."""

    def __init__(self, venues: VenuesPart, own_book: BestOfOwnBook) -> None:
        self._venues = venues
        self._own_book = own_book

    async def ListFeeds(self, request: pb.ListFeedsRequest, context: Any) -> pb.ListFeedsResponse:
        """All feeds, wherever they run."""
        found = await self._venues.feeds()
        return pb.ListFeedsResponse(feeds=[_feed(feed) for feed in found.feeds], queue_depth=found.queue_depth)

    async def RestartFeed(self, request: pb.RestartFeedRequest, context: Any) -> pb.Feed:
        """Begin one anew."""
        reason_text(request.reason)
        return _feed(await self._venues.restart(request.name.strip().lower()))

    async def ComparePrices(self, request: pb.ComparePricesRequest, context: Any) -> pb.PriceComparison:
        """All venues of a market, the reference price, and our own book."""
        symbol = _symbol(request.symbol)
        found = await self._venues.compare(symbol)
        own_bid, own_ask = await self._own_book(symbol)
        message = pb.PriceComparison(
            symbol=symbol,
            reference_price=_plain(found.price) if found.price is not None else "",
            own_bid=own_bid,
            own_ask=own_ask,
        )
        for venue in found.venues:
            message.venues.add(
                venue=venue.tick.venue,
                price=_text(venue.price),
                bid=_text(venue.tick.bid),
                ask=_text(venue.tick.ask),
                price_time=_timestamp(venue.tick.received_ns),
                deviation_ppm=venue.deviation_ppm or 0,
                included=venue.included,
                why=venue.why,
            )
        return message


async def no_own_book(symbol: str) -> tuple[str, str]:
    """Where nobody can say what our own book is."""
    del symbol
    return "", ""


def add_public_venue_services(server: GrpcServer, venues: VenuesPart) -> None:
    """For everyone, on both servers."""
    server.add(feed_service_pb2_grpc.add_ReferencePriceServiceServicer_to_server, ReferencePriceService(venues))


def add_operator_venue_services(server: GrpcServer, venues: VenuesPart, own_book: BestOfOwnBook = no_own_book) -> None:
    """For operators, on the ops server."""
    server.add(feed_service_pb2_grpc.add_FeedServiceServicer_to_server, FeedService(venues, own_book))


def _symbol(text: str) -> str:
    if not text:
        reject(ErrorReason.FIELD_REQUIRED, field="symbol")
    return canonical_symbol(text)


def _feed(feed: FeedView) -> pb.Feed:
    return pb.Feed(
        name=feed.name,
        state=pb.FeedState.Value(feed.state),
        problem=feed.problem,
        symbols=feed.symbols,
        connected_time=None if feed.connected_ns is None else _timestamp(feed.connected_ns),
        last_message_time=None if feed.last_message_ns is None else _timestamp(feed.last_message_ns),
        latency_p50_ms=feed.p50_ms,
        latency_p99_ms=feed.p99_ms,
        messages=feed.messages,
        reconnects=feed.reconnects,
        gaps=feed.gaps,
        bad_checksums=feed.mismatches,
    )


def _text(price: Decimal | None) -> str:
    return "" if price is None else _plain(price)


def _plain(price: Decimal) -> str:
    """Without an exponent, and without zeros at the end that say nothing."""
    text = format(price, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _timestamp(time_ns: int) -> Timestamp:
    return Timestamp(seconds=time_ns // _NS_PER_SECOND, nanos=time_ns % _NS_PER_SECOND)

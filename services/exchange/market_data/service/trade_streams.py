"""StreamTrades, as the engines send it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exchange.market_data.service.feeds import Feed, FeedSet
from exchange.runtime.errors import ErrorReason
from exchange.runtime.feeds.notices import set_time
from pincex.trading.v1 import market_service_pb2 as pb
from pincex.trading.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from exchange.market_data.books import Books, Frame
    from exchange.market_data.events import TradeExecuted
    from exchange.market_data.service.feeds import Counts
    from exchange.market_data.service.past import Past
    from exchange.market_data.service.places import Places
    from exchange.runtime.feeds.tokens import Position

SNAPSHOT_TRADES: Final = 100


def trade_message(trade: TradeExecuted) -> types_pb2.Trade:
    """A trade as the public sees it."""
    message = types_pb2.Trade(
        trade_id=trade.trade_id,
        symbol=trade.symbol,
        price=trade.price,
        quantity=trade.quantity,
        taker_side=trade.taker_side,  # type: ignore[arg-type]
        sequence=trade.sequence,
    )
    set_time(message.trade_time, trade.time_ns)
    return message


class TradeStreams(FeedSet[str, Feed]):
    """All of them; a listener of the books. Their tokens are those of the engines' StreamTrades."""

    def __init__(self, books: Books, places: Places, past: Past, counts: Counts) -> None:
        super().__init__("trades", counts)
        self._books = books
        self._places = places
        self._past = past

    def start_over(self, *, same_history: bool) -> None:
        """See `books.Listener`. What was traded meanwhile is not known here: who comes again with a token gets it."""
        del same_history
        self.end(ErrorReason.NOT_READY)

    def frame(self, frame: Frame) -> None:
        """See `books.Listener`."""
        for symbol, trades in frame.trades.items():
            feed = self._feeds.get(symbol)
            if feed is not None:
                feed.publish(pb.TradeUpdate(trades=_batch(trades)), trades[-1].sequence, frame.batch.frame_hash)

    async def serve(self, symbol: str, resume_token: str) -> AsyncIterator[bytes]:
        """One subscriber's stream, encoded."""
        canonical = self._books.market(symbol).symbol
        stream = f"trades:{canonical}"
        place = await self._places.read(self._places.of(stream), resume_token) if resume_token else None
        market = self._books.market(canonical)
        feed = self._feeds.get(canonical)
        if feed is None:
            books = self._books
            feed = Feed(self._places.of(stream), books.sequence, books.frame_hash, pb.TradeUpdate, self._count)
            self._feeds[canonical] = feed
        feed.idle = 0
        position = feed.position_of(place)
        if place is None:
            page, _ = market.tape.before(0, SNAPSHOT_TRADES)
            position = feed.channel.end
            yield feed.first(pb.TradeUpdate(snapshot=_batch(reversed(page))))
        elif position is None:
            # Before anything is awaited: what comes from now on is read from the channel.
            position = feed.channel.end
            async for message in self._missed(feed, canonical, place):
                yield message
        async for message in feed.follow(position, self._slow):
            yield message

    async def _missed(self, feed: Feed, symbol: str, place: Position) -> AsyncIterator[bytes]:
        """What lies between a place and the last message of the channel, from the engine."""
        until, until_hash, before = feed.channel.last_sequence, feed.frame_hash, place.sequence
        if before < until:
            async for trades, frame_hash in self._past.trades(symbol, place, until):
                last = trades[-1].sequence
                yield feed.encode(pb.TradeUpdate(trades=_batch(trades)), last, before, frame_hash)
                before = last
        if before != until:
            # To the place from which this channel counts, which may lie before the token: no trade lies between.
            yield feed.encode(pb.TradeUpdate(trades=_batch(())), until, before, until_hash)


def _batch(trades: Iterable[TradeExecuted]) -> pb.TradeBatch:
    batch = pb.TradeBatch(trades=[trade_message(trade) for trade in trades])
    if batch.trades:
        batch.newest_trade_time.CopyFrom(batch.trades[-1].trade_time)
    return batch

"""StreamTrades: one channel a market, each update encoded once for all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from exchange.runtime.errors import ErrorReason
from exchange.runtime.feeds.channel import Channel, follow
from exchange.runtime.feeds.notices import drain_notice, end_message, heartbeat, set_time
from exchange.trading.core.events import E_KIND, T_MARKET, TRADE, Event
from exchange.trading.feeds.hub import Hub
from exchange.trading.feeds.tape import TradeTape
from exchange.trading.sequencer import Committed
from exchange.trading.service.desk import Desk
from exchange.trading.service.messages import trade_message
from exchange.trading.service.streaming import Places, durable
from exchange.trading.service.units import MarketUnits
from pincex.trading.v1 import market_service_pb2 as pb

SNAPSHOT_TRADES: Final = 100

Row = tuple[int, int, Event]  # sequence, time, event


class _Feed:
    def __init__(self, units: MarketUnits, sequence: int, frame_hash: bytes, places: Places) -> None:
        self.units = units
        self.places = places
        self.channel = Channel(sequence)
        self.frame_hash = frame_hash


class TradeStreams:
    """All trade streams of an instance; a sink of the hub, behind the tape."""

    def __init__(self, desk: Desk, hub: Hub, places: Places, tape: TradeTape) -> None:
        self._desk = desk
        self._hub = hub
        self._places = places
        self._tape = tape
        self._feeds: dict[int, _Feed] = {}

    def frame(self, committed: Committed) -> None:
        """Publish the executions of a durable frame."""
        if not self._feeds:
            return
        rows: dict[int, list[Row]] = {}
        for offset, events in enumerate(committed.events):
            for event in events:
                if event[E_KIND] == TRADE and event[T_MARKET] in self._feeds:
                    sequence = committed.first_sequence + offset
                    rows.setdefault(event[T_MARKET], []).append((sequence, committed.time_ns, event))
        for market, trades in rows.items():
            feed = self._feeds[market]
            feed.frame_hash = committed.frame_hash
            update = pb.TradeUpdate(trades=_batch(feed.units, trades))
            self._publish(feed, trades[-1][0], update)

    def reset(self) -> None:
        """Another core serves: end every stream, since what came in between was not seen here."""
        self.end(ErrorReason.NOT_READY)

    def _publish(self, feed: _Feed, sequence: int, update: pb.TradeUpdate) -> None:
        update.sequence = sequence
        update.prev_sequence = feed.channel.last_sequence
        update.resume_token = feed.places.token(sequence, feed.frame_hash)
        feed.channel.publish(sequence, update.SerializeToString())

    def heartbeat(self, time_ns: int) -> None:
        """Say on every channel that all is well."""
        for feed in self._feeds.values():
            last = feed.channel.last_sequence
            token = feed.places.token(last, feed.frame_hash)
            self._publish(feed, last, pb.TradeUpdate(heartbeat=heartbeat(self._hub.head_sequence, time_ns, token)))

    def end(self, reason: int, drain_time_ns: int = 0) -> None:
        """End every stream, with a drain notice first where a time is given."""
        for feed in self._feeds.values():
            last = feed.channel.last_sequence
            token = feed.places.token(last, feed.frame_hash)
            if drain_time_ns:
                self._publish(feed, last, pb.TradeUpdate(drain=drain_notice(drain_time_ns, token)))
            self._publish(feed, last, pb.TradeUpdate(end=end_message(reason, token)))
            feed.channel.close()
        self._feeds.clear()

    async def serve(self, symbol: str, resume_token: str) -> AsyncIterator[bytes]:
        """One subscriber's stream, encoded."""
        market, units = await self._desk.find(lambda: self._desk.market(symbol))
        places = self._places.of(f"trades:{market.symbol}")
        place = await places.read(resume_token) if resume_token else None
        seat = self._desk.seat
        feed = self._feeds.get(market.index)
        if feed is None:
            feed = self._feeds[market.index] = _Feed(units, seat.committed_sequence, seat.committed_hash, places)
        channel = feed.channel
        position = channel.position_after(place.sequence) if place is not None else None
        if place is None:
            page, _ = self._tape.market_trades(market.index, 0, SNAPSHOT_TRADES)
            rows = [(entry.sequence, entry.time_ns, entry.event) for entry in reversed(page)]
            position = channel.end
            update = pb.TradeUpdate(snapshot=_batch(units, rows))
            yield _encode(places, update, channel.last_sequence, 0, feed.frame_hash)
        elif position is None:
            position = channel.end
            until, before = channel.last_sequence, place.sequence
            until_hash = feed.frame_hash
            async for rows, frame_hash in self._missed(market.index, before, until):
                yield _encode(places, pb.TradeUpdate(trades=_batch(units, rows)), rows[-1][0], before, frame_hash)
                before = rows[-1][0]
            if before != until:
                # To the place from which this channel counts, which may lie before the token: no trade lies between.
                yield _encode(places, pb.TradeUpdate(trades=_batch(units, [])), until, before, until_hash)
        async for message in follow(channel, position, lambda: self._slow(feed)):
            yield message

    async def _missed(self, market: int, after: int, until: int) -> AsyncIterator[tuple[list[Row], bytes]]:
        """Executions after one sequence and up to another, from the journal, by frame, with the frame's hash."""
        async for committed in durable(self._hub, after + 1):
            rows = [
                (committed.first_sequence + offset, committed.time_ns, event)
                for offset, events in enumerate(committed.events)
                for event in events
                if event[E_KIND] == TRADE
                and event[T_MARKET] == market
                and after < committed.first_sequence + offset <= until
            ]
            if rows:
                yield rows, committed.frame_hash
            if committed.last_sequence >= until:
                return

    def _slow(self, feed: _Feed) -> bytes:
        last = feed.channel.last_sequence
        update = pb.TradeUpdate(end=end_message(ErrorReason.SLOW_CONSUMER), sequence=last, prev_sequence=last)
        return update.SerializeToString()


def _batch(units: MarketUnits, rows: list[Row]) -> pb.TradeBatch:
    batch = pb.TradeBatch(trades=[trade_message(event, units, sequence, time_ns) for sequence, time_ns, event in rows])
    if rows:
        set_time(batch.newest_trade_time, rows[-1][1])
    return batch


def _encode(places: Places, update: pb.TradeUpdate, sequence: int, prev_sequence: int, frame_hash: bytes) -> bytes:
    update.sequence = sequence
    update.prev_sequence = prev_sequence
    update.resume_token = places.token(sequence, frame_hash)
    return update.SerializeToString()

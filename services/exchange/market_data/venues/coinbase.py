"""Coinbase's Advanced Trade market data: the channels level2, market_trades and heartbeats, on one connection.

By Coinbase's own description (docs.cdp.coinbase.com, Advanced Trade WebSocket): `level2` sends a snapshot and then absolute
quantities by price. Each message of a connection has a `sequence_num` one above the last one's: a larger step means that something
is missing, a smaller one that the message is old. `heartbeats` come every second with a counter of their own. What is missing
may be of any channel, so a gap ends the connection: all books begin anew on the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final

import msgspec

from exchange.market_data.venues.book import VenueBook
from exchange.market_data.venues.dialect import Broken, Counts, Fault, Heard, decoded, inverted, number, price_of

CHANNELS: Final = ("level2", "market_trades", "heartbeats")
_NS_PER_SECOND: Final = 1_000_000_000
_NS_PER_US: Final = 1_000

_Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Envelope(msgspec.Struct):
    channel: str = ""
    timestamp: str = ""
    sequence: _Sequence | None = msgspec.field(name="sequence_num", default=None)
    events: msgspec.Raw = msgspec.Raw()
    # An error has these instead.
    type: str = ""
    message: str = ""


class _Level(msgspec.Struct):
    side: str
    price: str = msgspec.field(name="price_level")
    quantity: str = msgspec.field(name="new_quantity")


class _Book(msgspec.Struct):
    type: str
    product: str = msgspec.field(name="product_id")
    updates: list[_Level] = []


class _Trade(msgspec.Struct):
    product: str = msgspec.field(name="product_id")
    price: str


class _Trades(msgspec.Struct):
    type: str
    trades: list[_Trade] = []


class _Heartbeat(msgspec.Struct):
    # A number, or its digits: both have been sent.
    counter: int | str = msgspec.field(name="heartbeat_counter")


class CoinbaseDialect:
    """One connection. `products` are Coinbase's names by ours, such as BTCUSD: BTC-USD."""

    def __init__(self, products: Mapping[str, str], counts: Counts) -> None:
        self.symbols = tuple(products)
        self.books: dict[str, VenueBook] = {}
        self._products = products
        self._symbols = inverted(products)
        self.counts = counts
        self._sequence: int | None = None
        self._heartbeat: int | None = None

    def path(self) -> str:
        """The one there is."""
        return "/"

    def greeting(self) -> Sequence[str]:
        """A request for each channel: it must come within 5 s."""
        products = list(self._products.values())
        return [
            msgspec.json.encode({"type": "subscribe", "product_ids": products, "channel": channel}).decode()
            for channel in CHANNELS
        ]

    def receive(self, message: str | bytes) -> Heard:
        """Take a message. Raises Broken for a gap, for what is no message of Coinbase, and for a refusal."""
        envelope = decoded(message, _Envelope)
        if envelope.type == "error":
            raise Broken(Fault.REFUSED, f"Coinbase says {envelope.message[:200]!r}")
        if envelope.sequence is None or not envelope.channel:
            raise Broken(Fault.GARBAGE, "a message without channel or sequence_num")
        if not self._is_next(envelope.sequence):
            return Heard()
        heard = Heard(_nanoseconds(envelope.timestamp))
        match envelope.channel:
            case "l2_data":
                for book in decoded(envelope.events, list[_Book]):
                    self._book(book, heard)
            case "market_trades":
                for trades in decoded(envelope.events, list[_Trades]):
                    self._trades(trades, heard)
            case "heartbeats":
                for heartbeat in decoded(envelope.events, list[_Heartbeat]):
                    self._beat(heartbeat)
        return heard

    def snapshots_wanted(self) -> Sequence[str]:
        """None: the channel sends them."""
        return ()

    def snapshot_path(self, symbol: str) -> str:
        """Nothing is fetched."""
        raise AssertionError(f"the channel sends the snapshot of {symbol}")

    def snapshot(self, symbol: str, body: bytes) -> Heard:
        """Nothing is fetched."""
        raise AssertionError(f"the channel sends the snapshot of {symbol}, not {len(body)} bytes by REST")

    def snapshot_failed(self, symbol: str) -> None:
        """Nothing is fetched."""
        raise AssertionError(f"the channel sends the snapshot of {symbol}")

    def _is_next(self, sequence: int) -> bool:
        last, expected = self._sequence, None if self._sequence is None else self._sequence + 1
        if expected is not None and sequence > expected:
            self.counts.count(Fault.GAP)
            raise Broken(Fault.GAP, f"sequence_num {sequence} came after {last}")
        if last is not None and sequence <= last:
            return False
        self._sequence = sequence
        return True

    def _book(self, event: _Book, heard: Heard) -> None:
        symbol = self._symbols.get(event.product)
        if symbol is None:
            return
        bids: list[tuple[Decimal, Decimal]] = []
        asks: list[tuple[Decimal, Decimal]] = []
        for level in event.updates:
            if level.side not in {"bid", "offer"}:
                raise Broken(Fault.GARBAGE, f"side {level.side[:20]!r}")
            (bids if level.side == "bid" else asks).append((price_of(level.price), number(level.quantity)))
        if event.type == "snapshot":
            self.books[symbol] = VenueBook(bids, asks)
        elif symbol in self.books:
            self.books[symbol].apply(bids, asks)
        else:
            self.counts.count(Fault.GAP)
            raise Broken(Fault.GAP, f"an update of {event.product} before its snapshot")
        heard.moved.add(symbol)

    def _trades(self, event: _Trades, heard: Heard) -> None:
        # What traded before we came says nothing of the price now; of an update's the newest stands first.
        if event.type == "snapshot":
            return
        for trade in reversed(event.trades):
            symbol = self._symbols.get(trade.product)
            if symbol is not None:
                heard.trades[symbol] = price_of(trade.price)

    def _beat(self, heartbeat: _Heartbeat) -> None:
        text = str(heartbeat.counter)
        if not text.isascii() or not text.isdigit() or len(text) > 19:
            raise Broken(Fault.GARBAGE, f"heartbeat_counter {text[:20]!r}")
        counter, last = int(text), self._heartbeat
        if last is not None and counter > last + 1:
            self.counts.count(Fault.GAP)
            raise Broken(Fault.GAP, f"heartbeat_counter {counter} came after {last}")
        self._heartbeat = counter


def _nanoseconds(text: str) -> int | None:
    """Since the Unix epoch, to the microsecond; None for what is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * _NS_PER_SECOND + moment.microsecond * _NS_PER_US

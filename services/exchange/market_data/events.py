"""What market data keeps of the engine's events: plain values, prices and quantities as decimal strings as on the wire.

Sides are those of the contract: 1 buy, 2 sell. Times are nanoseconds since 1970. Whose orders they are is left out: nothing
of it may reach a public feed.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

BUY: Final = 1
SELL: Final = 2


class OrderAccepted(msgspec.Struct, frozen=True):
    """`resting` is what rests once the command is done: after the trades of the same sequence, which follow."""

    sequence: int
    time_ns: int
    symbol: str
    order_id: int
    side: int
    price: str
    resting: str


class OrderTriggered(msgspec.Struct, frozen=True):
    """A stop order woke up; `resting` as in OrderAccepted."""

    sequence: int
    time_ns: int
    symbol: str
    order_id: int
    side: int
    price: str
    resting: str


class OrderReduced(msgspec.Struct, frozen=True):
    """Open orders of any kind, sleeping ones too; the place stays."""

    sequence: int
    time_ns: int
    symbol: str
    order_id: int
    open_quantity: str


class OrderReplaced(msgspec.Struct, frozen=True):
    """`kept_place`: by the rules of that time it stays where it was. `resting` as in OrderAccepted."""

    sequence: int
    time_ns: int
    symbol: str
    order_id: int
    side: int
    price: str
    resting: str
    kept_place: bool


class OrderCancelled(msgspec.Struct, frozen=True):
    """An order ended before it was filled whole, on the book or not."""

    sequence: int
    time_ns: int
    symbol: str
    order_id: int
    was_resting: bool


class TradeExecuted(msgspec.Struct, frozen=True):
    """`notional` is price x quantity. `maker_open` is what is left of the maker."""

    sequence: int
    time_ns: int
    symbol: str
    trade_id: str
    price: str
    quantity: str
    notional: str
    taker_side: int
    maker_order_id: int
    maker_open: str


class MarketChanged(msgspec.Struct, frozen=True):
    """A market was made or changed. `definition` is its message `pincex.trading.v1.Market`, encoded; `last_price`, of
    the last trade, only a snapshot says.
    """

    sequence: int
    time_ns: int
    symbol: str
    base_asset: str
    quote_asset: str
    tick_size: str
    lot_size: str
    mode: int
    last_price: str
    definition: bytes


class SwitchesChanged(msgspec.Struct, frozen=True):
    """Switches of the whole exchange, as they stand now."""

    sequence: int
    time_ns: int
    accept_new_orders: bool
    maintenance: bool
    circuit_breaker: bool


class BookHashed(msgspec.Struct, frozen=True):
    """What a copy of this book must hash to after this event."""

    sequence: int
    time_ns: int
    symbol: str
    book_hash: str


Event: TypeAlias = (
    OrderAccepted
    | OrderTriggered
    | OrderReduced
    | OrderReplaced
    | OrderCancelled
    | TradeExecuted
    | MarketChanged
    | SwitchesChanged
    | BookHashed
)


class Batch(msgspec.Struct, frozen=True):
    """What one frame of the journal, `first_sequence` to `last_sequence`, means for markets: perhaps nothing. All events of
    one sequence are in one batch. `frame_hash` is as much of the frame's hash as resume tokens carry, or more; `token`
    continues the events after this batch.
    """

    first_sequence: int
    last_sequence: int
    time_ns: int
    frame_hash: bytes
    token: str
    events: list[Event]


class RestingOrder(msgspec.Struct, frozen=True):
    """An order on a book."""

    order_id: int
    side: int
    price: str
    quantity: str


class Snapshot(msgspec.Struct, frozen=True):
    """All markets and books after `sequence`. `resting` is by symbol, in the order of priority, bids first; `trades` are the
    latest of each, the oldest first. `incarnation`
    and `shard` name the history, as resume tokens do; `frame_hash` is that of the frame with this sequence; `token`
    continues the events after it.
    """

    sequence: int
    incarnation: str
    shard: int
    frame_hash: bytes
    token: str
    switches: SwitchesChanged
    markets: list[MarketChanged]
    resting: dict[str, list[RestingOrder]]
    trades: dict[str, list[TradeExecuted]]

"""What a feed says of a market at a moment: the message of `market_data_queue`."""

from __future__ import annotations

from decimal import Decimal

import msgspec


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """Best bid and ask of one venue, and its last trade where it is known.

    Without bid or ask the venue has no whole book now. Times are nanoseconds since the Unix epoch: `venue_ns` by the venue's
    clock (None where it says none), `received_ns` by ours. On the queue it is JSON, its prices decimal strings.
    """

    venue: str
    symbol: str
    bid: Decimal | None = None
    ask: Decimal | None = None
    trade: Decimal | None = None
    venue_ns: int | None = None
    received_ns: int

    def newer(self, later: Tick) -> Tick:
        """The later tick, with the trade that it does not repeat."""
        return (
            later if later.trade is not None or self.trade is None else msgspec.structs.replace(later, trade=self.trade)
        )


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Tick)


def encode(tick: Tick) -> bytes:
    """As it stands on the queue."""
    return _encoder.encode(tick)


def decode(data: bytes) -> Tick | None:
    """The tick, or None for what is none: anyone with the password can push to a list."""
    try:
        tick = _decoder.decode(data)
    except (msgspec.DecodeError, ArithmeticError, ValueError):
        return None
    prices = (price for price in (tick.bid, tick.ask, tick.trade) if price is not None)
    return tick if all(price.is_finite() and price > 0 for price in prices) else None

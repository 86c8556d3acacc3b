"""From the engine's events on the wire to what the history takes."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from exchange.market_data.candles import NANOSECONDS, Trade
from exchange.market_data.history import Frame

if TYPE_CHECKING:
    from pincex.journal.v1 import event_service_pb2 as pb


def frame_of(batch: pb.EventBatch) -> Frame:
    """The trades of a frame, and its time."""
    trades: list[Trade] = []
    for event in batch.events:
        if event.HasField("trade_executed"):
            trade, stamp = event.trade_executed, event.event_time
            trades.append(
                Trade(
                    trade.symbol,
                    stamp.seconds * NANOSECONDS + stamp.nanos,
                    event.sequence,
                    Decimal(trade.price),
                    Decimal(trade.quantity),
                    Decimal(trade.notional),
                )
            )
    time_ns = 0
    if batch.events:
        last = batch.events[-1].event_time
        time_ns = last.seconds * NANOSECONDS + last.nanos
    return Frame(batch.last_sequence, batch.resume_token, time_ns, trades)

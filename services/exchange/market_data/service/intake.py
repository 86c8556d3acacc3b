"""From the engine's messages to the values of `market_data.events`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from exchange.market_data import events as ev
from exchange.runtime.feeds.tokens import BadToken, parse
from pincex.journal.v1 import event_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.timestamp_pb2 import Timestamp

    from pincex.trading.v1 import types_pb2

# Since these rules an order that is replaced at its price and does not grow keeps its place.
RULES_KEEP_PRIORITY: Final = 2


def time_of(stamp: Timestamp) -> int:
    """Nanoseconds since 1970."""
    return stamp.seconds * 1_000_000_000 + stamp.nanos


class Decoder:
    """Decodes frames, one after the other. `rules_version`: those that hold at the next event."""

    def __init__(self) -> None:
        self.rules_version = 0
        self._by_kind: dict[str, Callable[[int, int, Any], ev.Event]] = {
            "order_accepted": _accepted,
            "order_triggered": _triggered,
            "trade_executed": _trade,
            "order_reduced": _reduced,
            "order_replaced": self._replaced,
            "order_cancelled": _cancelled,
            "market_changed": _market,
            "switches_changed": _switches,
            "book_hashed": _hashed,
        }

    def batch(self, message: pb.EventBatch) -> ev.Batch:
        """A frame."""
        found: list[ev.Event] = []
        by_kind = self._by_kind
        time_ns = 0
        for event in message.events:
            kind: Any = event.WhichOneof("event")
            decode = by_kind.get(kind)
            if decode is not None:
                time_ns = time_of(event.event_time)
                found.append(decode(event.sequence, time_ns, getattr(event, kind)))
            elif kind == "rules_activated":
                self.rules_version = event.rules_activated.rules_version
        return ev.Batch(
            message.first_sequence, message.last_sequence, time_ns, message.frame_hash, message.resume_token, found
        )

    def _replaced(self, sequence: int, time_ns: int, event: pb.OrderReplaced) -> ev.OrderReplaced:
        # Decimals of one market have one form, of the same number of digits behind the point.
        kept_place = (
            self.rules_version >= RULES_KEEP_PRIORITY
            and event.price == event.old_price
            and _no_more(event.open_quantity, event.old_open_quantity)
        )
        return ev.OrderReplaced(
            sequence,
            time_ns,
            event.symbol,
            int(event.order_id),
            event.side,
            event.price,
            event.resting_quantity,
            kept_place,
        )


def _no_more(text: str, than: str) -> bool:
    """Compares decimals of one form."""
    return (len(text), text) <= (len(than), than)


def _accepted(sequence: int, time_ns: int, event: pb.OrderAccepted) -> ev.Event:
    order_id = int(event.order_id)
    return ev.OrderAccepted(sequence, time_ns, event.symbol, order_id, event.side, event.price, event.resting_quantity)


def _triggered(sequence: int, time_ns: int, event: pb.OrderTriggered) -> ev.Event:
    order_id = int(event.order_id)
    return ev.OrderTriggered(sequence, time_ns, event.symbol, order_id, event.side, event.price, event.resting_quantity)


def _trade(sequence: int, time_ns: int, event: pb.TradeExecuted) -> ev.Event:
    return ev.TradeExecuted(
        sequence,
        time_ns,
        event.symbol,
        event.trade_id,
        event.price,
        event.quantity,
        event.notional,
        event.taker_side,
        int(event.maker_order_id),
        event.maker_open_quantity,
    )


def _reduced(sequence: int, time_ns: int, event: pb.OrderReduced) -> ev.Event:
    return ev.OrderReduced(sequence, time_ns, event.symbol, int(event.order_id), event.open_quantity)


def _cancelled(sequence: int, time_ns: int, event: pb.OrderCancelled) -> ev.Event:
    return ev.OrderCancelled(sequence, time_ns, event.symbol, int(event.order_id), event.was_resting)


def _market(sequence: int, time_ns: int, event: pb.MarketChanged) -> ev.Event:
    return market_of(sequence, time_ns, event.market)


def market_of(sequence: int, time_ns: int, market: types_pb2.Market) -> ev.MarketChanged:
    """A market as it stands."""
    return ev.MarketChanged(
        sequence,
        time_ns,
        market.symbol,
        market.base_asset,
        market.quote_asset,
        market.tick_size,
        market.lot_size,
        market.mode,
        market.last_price,
        market.SerializeToString(),
    )


def _switches(sequence: int, time_ns: int, event: pb.SwitchesChanged) -> ev.SwitchesChanged:
    return ev.SwitchesChanged(sequence, time_ns, event.accept_new_orders, event.maintenance_mode, event.circuit_breaker)


def _hashed(sequence: int, time_ns: int, event: pb.BookHashed) -> ev.Event:
    return ev.BookHashed(sequence, time_ns, event.symbol, event.book_hash)


class SnapshotReader:
    """Takes the items of a snapshot in their order."""

    def __init__(self) -> None:
        self.rules_version = 0
        self._head: pb.SnapshotHead | None = None
        self._switches = ev.SwitchesChanged(0, 0, accept_new_orders=True, maintenance=False, circuit_breaker=False)
        self._markets: list[ev.MarketChanged] = []
        self._orders: dict[int, ev.RestingOrder] = {}
        self._resting: dict[str, list[ev.RestingOrder]] = {}

    def add(self, item: pb.SnapshotItem) -> None:
        """Take one item; those that are not about markets are passed over."""
        kind = item.WhichOneof("item")
        if kind == "head":
            self._head = item.head
            self.rules_version = item.head.rules_version
        elif kind == "switches":
            self._switches = _switches(0, 0, item.switches)
        elif kind == "market":
            self._markets.append(market_of(0, 0, item.market))
            self._resting[item.market.symbol] = []
        elif kind in ("order", "orders"):
            # One by one from an engine of an older build.
            for order in item.orders.orders or [item.order]:
                order_id = int(order.order_id)
                self._orders[order_id] = ev.RestingOrder(order_id, order.side, order.price, order.open_quantity)
        elif kind == "resting":
            self._resting[item.resting.symbol].extend(self._orders[order_id] for order_id in item.resting.order_ids)

    @property
    def symbols(self) -> list[str]:
        """Of all markets so far."""
        return list(self._resting)

    def finish(self, trades: dict[str, list[ev.TradeExecuted]]) -> ev.Snapshot:
        """The whole, with these latest trades. Raises BadToken where no head came or its token cannot be read."""
        head = self._head
        if head is None:
            raise BadToken("no head")
        place = parse(head.resume_token)
        return ev.Snapshot(
            sequence=head.sequence,
            incarnation=place.incarnation,
            shard=place.shard,
            frame_hash=bytes.fromhex(place.frame_hash),
            token=head.resume_token,
            switches=self._switches,
            markets=self._markets,
            resting=self._resting,
            trades=trades,
        )


def trade_of(trade: types_pb2.Trade) -> ev.TradeExecuted:
    """A trade as everyone sees it: what it was worth and what became of its maker is not said."""
    return ev.TradeExecuted(
        sequence=trade.sequence,
        time_ns=time_of(trade.trade_time),
        symbol=trade.symbol,
        trade_id=trade.trade_id,
        price=trade.price,
        quantity=trade.quantity,
        notional="",
        taker_side=trade.taker_side,
        maker_order_id=0,
        maker_open="",
    )

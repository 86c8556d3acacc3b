"""From the engine's events on the wire to postings and projections."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from exchange.domain.decimals import parse_units
from exchange.settlement.ledger.books import UnknownThing
from exchange.settlement.ledger.orders import OrderRow
from pincex.journal.v1 import event_service_pb2 as pb
from pincex.trading.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from exchange.settlement.ledger.books import Books

_BUY: Final = types_pb2.BUY
_SIDE_NAMES: Final = {number: name for name, number in types_pb2.Side.items()}
_TYPE_NAMES: Final = {number: name for name, number in types_pb2.OrderType.items()}
_TIF_NAMES: Final = {number: name for name, number in types_pb2.TimeInForce.items()}
_MODE_NAMES: Final = {number: name for name, number in types_pb2.MarketMode.items()}
_REASON_NAMES: Final = {number: name for name, number in types_pb2.CancelReason.items()}


class Intake:
    """Posts events into the books, in their order; `time_ns` is that of the last one."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._stamp = (0, 0)
        self._moment = ""
        self.time_ns = 0
        self._by_kind: dict[str, Callable[[Any, int], None]] = {
            "order_accepted": self._accepted,
            "order_triggered": self._triggered,
            "trade_executed": self._trade,
            "order_reduced": self._reduced,
            "order_replaced": self._replaced,
            "order_cancelled": self._cancelled,
            "balance_adjusted": self._adjusted,
            "asset_created": self._asset,
            "market_changed": self._market,
        }

    def take(self, batch: pb.EventBatch) -> None:
        """Post all events of a frame. Raises UnknownThing where they speak of what no event before made."""
        by_kind = self._by_kind
        for event in batch.events:
            kind: Any = event.WhichOneof("event")
            handler = by_kind.get(kind)
            if handler is None:
                continue
            stamp = event.event_time
            moment = (stamp.seconds, stamp.nanos)
            if moment != self._stamp:
                self._tell_time(*moment)
            try:
                handler(getattr(event, kind), event.sequence)
            except KeyError as error:
                raise UnknownThing(f"sequence {event.sequence}: order {error}") from None

    def _tell_time(self, seconds: int, nanos: int) -> None:
        """One command's events share one time, most frames share one too."""
        self._stamp = (seconds, nanos)
        self.time_ns = seconds * 1_000_000_000 + nanos
        self._moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanos // 1000).isoformat()

    def _accepted(self, event: pb.OrderAccepted, sequence: int) -> None:
        books = self._books
        market = books.market(event.symbol)
        decimals = market.base_decimals
        books.orders.accepted(
            OrderRow(
                order_id=int(event.order_id),
                user_id=event.account,
                client_order_id=event.client_order_id,
                symbol=event.symbol,
                side=_SIDE_NAMES[event.side],
                order_type=_TYPE_NAMES[event.order_type],
                time_in_force=_TIF_NAMES[event.time_in_force],
                quantity=parse_units(event.quantity, decimals),
                price=event.price,
                stop_price=event.stop_price,
                decimals=decimals,
                created=self._moment,
                sequence=sequence,
            )
        )
        self._hold(sequence, event.account, event.held_asset, event.held_amount, event.order_id)

    def _triggered(self, event: pb.OrderTriggered, sequence: int) -> None:
        self._books.orders.triggered(int(event.order_id), event.price, self._moment, sequence)

    def _trade(self, event: pb.TradeExecuted, sequence: int) -> None:
        books, moment = self._books, self._moment
        market = books.market(event.symbol)
        base, quote = market.base_decimals, market.quote_decimals
        quantity = parse_units(event.quantity, base)
        maker_fee, taker_fee = parse_units(event.maker_fee, quote), parse_units(event.taker_fee, quote)
        maker, taker = event.maker_account, event.taker_account
        buys = event.taker_side == _BUY
        books.trade(
            sequence,
            self.time_ns,
            event.trade_id,
            market,
            taker if buys else maker,
            maker if buys else taker,
            quantity,
            parse_units(event.notional, quote),
            parse_units(event.buyer_released_amount, quote),
            taker_fee if buys else maker_fee,
            maker_fee if buys else taker_fee,
        )
        maker_order, taker_order = event.maker_order_id, event.taker_order_id
        orders = books.orders
        orders.traded(int(maker_order), quantity, parse_units(event.maker_open_quantity, base), moment, sequence)
        orders.traded(int(taker_order), quantity, parse_units(event.taker_open_quantity, base), moment, sequence)
        books.trade_count += 1
        books.batch.trades.append(
            f"{event.trade_id}\t{sequence}\t{event.symbol}\t{event.price}\t{event.quantity}\t{event.notional}\t"
            f"{'BUY' if buys else 'SELL'}\t{maker_order}\t{taker_order}\t{maker}\t{taker}\t"
            f"{event.maker_fee}\t{event.taker_fee}\t{moment}\n"
        )

    def _reduced(self, event: pb.OrderReduced, sequence: int) -> None:
        orders = self._books.orders
        orders.reduced(int(event.order_id), event.reduced_quantity, event.open_quantity, self._moment, sequence)
        self._release(sequence, event.account, event.held_asset, event.released_amount, event.order_id)

    def _replaced(self, event: pb.OrderReplaced, sequence: int) -> None:
        orders = self._books.orders
        orders.replaced(int(event.order_id), event.price, event.open_quantity, self._moment, sequence)
        if event.held_change.startswith("-"):
            self._release(sequence, event.account, event.held_asset, event.held_change[1:], event.order_id)
        else:
            self._hold(sequence, event.account, event.held_asset, event.held_change, event.order_id)

    def _cancelled(self, event: pb.OrderCancelled, sequence: int) -> None:
        self._books.orders.cancelled(int(event.order_id), _REASON_NAMES[event.reason], self._moment, sequence)
        self._release(sequence, event.account, event.held_asset, event.released_amount, event.order_id)

    def _adjusted(self, event: pb.BalanceAdjusted, sequence: int) -> None:
        books, account, asset, reference = self._books, event.account, event.asset, event.reference
        amount = parse_units(event.amount, books.asset(asset))
        match event.kind:
            case pb.CREDIT:
                books.deposit(sequence, self.time_ns, account, asset, amount, reference)
            case pb.WITHDRAWAL_HOLD:
                books.hold(sequence, self.time_ns, account, asset, amount, reference)
            case pb.WITHDRAWAL_RELEASE:
                books.hold(sequence, self.time_ns, account, asset, -amount, reference)
            case pb.WITHDRAWAL_SETTLE:
                books.withdrawal(sequence, self.time_ns, account, asset, amount, reference)
            case pb.TRANSFER:
                books.transfer(sequence, self.time_ns, account, event.to_account, asset, amount, reference)
            case other:
                raise UnknownThing(f"sequence {sequence}: adjustment {other}")

    def _asset(self, event: pb.AssetCreated, _: int) -> None:
        self._books.add_asset(event.asset.code, event.asset.decimals)

    def _market(self, event: pb.MarketChanged, sequence: int) -> None:
        market = event.market
        self._books.set_market(market.symbol, market.base_asset, market.quote_asset, _MODE_NAMES[market.mode], sequence)

    def _hold(self, sequence: int, account: str, asset: str, amount: str, order_id: str) -> None:
        units = parse_units(amount, self._books.asset(asset))
        self._books.hold(sequence, self.time_ns, account, asset, units, order_id)

    def _release(self, sequence: int, account: str, asset: str, amount: str, order_id: str) -> None:
        units = parse_units(amount, self._books.asset(asset))
        self._books.hold(sequence, self.time_ns, account, asset, -units, order_id)

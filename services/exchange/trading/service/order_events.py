"""From events of the core to the messages that an account sees of its own orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from exchange.trading.core.commands import C_REQUEST_ID, P_STOP, Command
from exchange.trading.core.constants import CANCELLED, FILLED, PARTIAL, PENDING
from exchange.trading.core.events import (
    E_KIND,
    O_ACCOUNT,
    O_MARKET,
    O_ORDER_ID,
    O_PRICE,
    O_SIDE,
    OA_COMMAND,
    OC_FEE_PAID,
    OC_FILLED,
    OC_LOTS,
    OC_NOTIONAL,
    OC_REASON,
    OC_WAS_RESTING,
    OD_FEE_PAID,
    OD_FILLED,
    OD_NOTIONAL,
    OD_OPEN,
    OD_WAS_RESTING,
    OP_FEE_PAID,
    OP_FILLED,
    OP_NOTIONAL,
    OP_OPEN,
    ORDER_ACCEPTED,
    ORDER_CANCELLED,
    ORDER_REDUCED,
    ORDER_REPLACED,
    ORDER_TRIGGERED,
    OT_OPEN,
    T_MAKER_ACCOUNT,
    T_MAKER_FEE_PAID,
    T_MAKER_FILLED,
    T_MAKER_NOTIONAL,
    T_MAKER_OPEN,
    T_MAKER_ORDER,
    T_MARKET,
    T_PRICE,
    T_TAKER_ACCOUNT,
    T_TAKER_FEE_PAID,
    T_TAKER_FILLED,
    T_TAKER_NOTIONAL,
    T_TAKER_OPEN,
    T_TAKER_ORDER,
    T_TAKER_SIDE,
    TRADE,
    Event,
)
from exchange.trading.core.model import Order
from exchange.trading.service.messages import fill_message, order_of
from exchange.trading.service.units import MarketUnits
from pincex.trading.v1 import order_service_pb2 as pb

OF_ONE_ORDER: Final = frozenset({ORDER_ACCEPTED, ORDER_TRIGGERED, ORDER_REDUCED, ORDER_REPLACED, ORDER_CANCELLED})


@dataclass(frozen=True, slots=True)
class Static:
    """What never changes of an order."""

    side: int
    command: Command
    created_ns: int


def static_of(order: Order) -> Static:
    """What never changes of an order that the core still has."""
    return Static(order.side, order.command, order.created_ns)


def orders_in(event: Event) -> tuple[int, ...]:
    """Numbers of the orders that an event speaks of."""
    kind = event[E_KIND]
    if kind == TRADE:
        return (event[T_MAKER_ORDER], event[T_TAKER_ORDER])
    return (event[O_ORDER_ID],) if kind in OF_ONE_ORDER else ()


def concerns(event: Event, account: str) -> bool:
    """Whether an event belongs to an account's order stream."""
    kind = event[E_KIND]
    if kind == TRADE:
        return bool(event[T_MAKER_ACCOUNT] == account or event[T_TAKER_ACCOUNT] == account)
    return kind in OF_ONE_ORDER and event[O_ACCOUNT] == account


class CommandTranslator:
    """Translates the events of one command, in order, for one account.

    What an order looks like after each event is told by the event itself, by what never changes (`lookup`), and by the
    events of the same command before it: a taker's limit price, a stop order's waking.
    """

    def __init__(
        self,
        account: str,
        sequence: int,
        time_ns: int,
        lookup: Callable[[int], Static | None],
        units: Callable[[int], MarketUnits],
        default_stp: Callable[[int], int],
    ) -> None:
        self._account = account
        self._sequence = sequence
        self._time_ns = time_ns
        self._lookup = lookup
        self._units = units
        self._default_stp = default_stp
        self._prices: dict[int, int] = {}
        self._woken: set[int] = set()

    def messages(self, event: Event) -> Iterator[pb.OrderEvent]:
        """The account's messages of an event, without their places in a stream."""
        kind = event[E_KIND]
        if kind == TRADE:
            yield from self._trade(event)
            return
        if kind not in OF_ONE_ORDER:
            return
        self._prices[event[O_ORDER_ID]] = event[O_PRICE]
        if kind == ORDER_TRIGGERED:
            self._woken.add(event[O_ORDER_ID])
        if event[O_ACCOUNT] != self._account:
            return
        if kind == ORDER_ACCEPTED:
            command = tuple(event[OA_COMMAND])
            static = Static(event[O_SIDE], command, self._time_ns)
            message = self._order(event, static, lots_open=command[12])
        else:
            known = self._lookup(event[O_ORDER_ID])
            if known is None:
                return
            message = self._changed(kind, event, known)
        yield message

    def _changed(self, kind: int, event: Event, static: Static) -> pb.OrderEvent:
        if kind == ORDER_TRIGGERED:
            return self._order(event, static, lots_open=event[OT_OPEN], triggered=True)
        if kind == ORDER_REDUCED:
            return self._order(
                event,
                static,
                lots_open=event[OD_OPEN],
                filled=event[OD_FILLED],
                notional=event[OD_NOTIONAL],
                fee_paid=event[OD_FEE_PAID],
                triggered=event[OD_WAS_RESTING],
            )
        if kind == ORDER_REPLACED:
            return self._order(
                event,
                static,
                lots_open=event[OP_OPEN],
                filled=event[OP_FILLED],
                notional=event[OP_NOTIONAL],
                fee_paid=event[OP_FEE_PAID],
                triggered=True,
            )
        return self._order(
            event,
            static,
            lots_cancelled=event[OC_LOTS],
            filled=event[OC_FILLED],
            notional=event[OC_NOTIONAL],
            fee_paid=event[OC_FEE_PAID],
            triggered=event[OC_WAS_RESTING],
            cancel_reason=event[OC_REASON],
        )

    def _order(
        self,
        event: Event,
        static: Static,
        *,
        lots_open: int = 0,
        lots_cancelled: int = 0,
        filled: int = 0,
        notional: int = 0,
        fee_paid: int = 0,
        triggered: bool = False,
        cancel_reason: int = 0,
    ) -> pb.OrderEvent:
        order_id: int = event[O_ORDER_ID]
        return self._message(
            order_id,
            event[O_MARKET],
            static,
            price=event[O_PRICE],
            lots_open=lots_open,
            lots_cancelled=lots_cancelled,
            filled=filled,
            notional=notional,
            fee_paid=fee_paid,
            triggered=triggered,
            cancel_reason=cancel_reason,
        )

    def _message(
        self,
        order_id: int,
        market: int,
        static: Static,
        *,
        price: int,
        lots_open: int,
        lots_cancelled: int,
        filled: int,
        notional: int,
        fee_paid: int,
        triggered: bool,
        cancel_reason: int,
    ) -> pb.OrderEvent:
        if cancel_reason:
            status = CANCELLED
        elif lots_open == 0:
            status = FILLED
        else:
            status = PARTIAL if filled else PENDING
        order = order_of(
            self._units(market),
            order_id=order_id,
            account=self._account,
            side=static.side,
            command=static.command,
            default_stp=self._default_stp(market),
            created_ns=static.created_ns,
            updated_ns=self._time_ns,
            sequence=self._sequence,
            status=status,
            price=price,
            lots_open=lots_open,
            lots_filled=filled,
            lots_cancelled=lots_cancelled,
            notional=notional,
            fee_paid=fee_paid,
            cancel_reason=cancel_reason,
            triggered=bool(static.command[P_STOP]) and (triggered or order_id in self._woken),
        )
        return pb.OrderEvent(order=order)

    def _trade(self, event: Event) -> Iterator[pb.OrderEvent]:
        if event[T_MAKER_ACCOUNT] == self._account:
            yield from self._side(event, maker=True)
        if event[T_TAKER_ACCOUNT] == self._account:
            yield from self._side(event, maker=False)

    def _side(self, event: Event, *, maker: bool) -> Iterator[pb.OrderEvent]:
        order_id: int = event[T_MAKER_ORDER if maker else T_TAKER_ORDER]
        static = self._lookup(order_id)
        market: int = event[T_MARKET]
        fill = fill_message(
            event,
            self._units(market),
            self._sequence,
            self._time_ns,
            maker=maker,
            client_order_id=static.command[C_REQUEST_ID] if static is not None else "",
        )
        yield pb.OrderEvent(fill=fill)
        if static is None:
            return
        taker_side: int = event[T_TAKER_SIDE]
        assert static.side == (3 - taker_side if maker else taker_side)
        traded_at: int = event[T_PRICE]
        yield self._message(
            order_id,
            market,
            static,
            # A maker trades at its own limit.
            price=traded_at if maker else self._prices.get(order_id, traded_at),
            lots_open=event[T_MAKER_OPEN if maker else T_TAKER_OPEN],
            lots_cancelled=0,
            filled=event[T_MAKER_FILLED if maker else T_TAKER_FILLED],
            notional=event[T_MAKER_NOTIONAL if maker else T_TAKER_NOTIONAL],
            fee_paid=event[T_MAKER_FEE_PAID if maker else T_TAKER_FEE_PAID],
            triggered=True,
            cancel_reason=0,
        )

"""From events of the core to messages of `pincex.journal.v1`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exchange.domain.decimals import format_units
from exchange.runtime.feeds.notices import set_time
from exchange.trading.core import events as ev
from exchange.trading.core.commands import (
    C_REQUEST_ID,
    C_SESSION,
    P_EXPIRE,
    P_KEY,
    P_LOTS,
    P_POST_ONLY,
    P_STOP,
    P_TIF,
    P_TYPE,
)
from exchange.trading.core.constants import BUY, STOP
from exchange.trading.core.events import Event
from exchange.trading.core.registry import build_market
from exchange.trading.service.desk import Desk
from exchange.trading.service.messages import market_message, trade_id
from exchange.trading.service.units import MarketUnits
from pincex.journal.v1 import event_service_pb2 as pb


class EventTranslator:
    """Needs the state only for what never changes: scales and names of markets and assets. The core that holds them may
    be replaced while a stream goes on, so it is asked for each time.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._units = desk.units
        self._by_kind: dict[int, Callable[[pb.Event, Event], None]] = {
            ev.ORDER_ACCEPTED: self._accepted,
            ev.ORDER_REJECTED: self._rejected,
            ev.ORDER_TRIGGERED: self._triggered,
            ev.TRADE: self._trade,
            ev.ORDER_REDUCED: self._reduced,
            ev.ORDER_REPLACED: self._replaced,
            ev.ORDER_CANCELLED: self._cancelled,
            ev.BALANCE_ADJUSTED: self._adjusted,
            ev.COMMAND_REJECTED: self._command_rejected,
            ev.ASSET_CREATED: self._asset,
            ev.MARKET_CHANGED: self._market,
            ev.SWITCHES_CHANGED: self._switches,
            ev.SESSION_CHANGED: self._session,
            ev.LIMITS_CHANGED: self._limits,
            ev.BOOK_HASHED: self._book_hashed,
            ev.RULES_ACTIVATED: self._rules,
            ev.MASS_CANCELLED: self._mass_cancelled,
        }

    def fill(self, message: pb.Event, event: Event, sequence: int, index: int, time_ns: int) -> None:
        """Fill a message with an event and its place."""
        message.sequence = sequence
        message.index = index
        set_time(message.event_time, time_ns)
        self._by_kind[event[ev.E_KIND]](message, event)

    def _order(self, target: Any, event: Event) -> MarketUnits:
        units = self._units(event[ev.O_MARKET])
        target.order_id = str(event[ev.O_ORDER_ID])
        target.account = event[ev.O_ACCOUNT]
        target.symbol = units.symbol
        target.side = event[ev.O_SIDE]
        target.price = units.price(event[ev.O_PRICE])
        return units

    @staticmethod
    def _held(units: MarketUnits, side: int, amount: int) -> tuple[str, str]:
        """(amount, asset) of what an order of this side holds."""
        if side == BUY:
            return units.quote(amount), units.quote_asset
        return units.base(amount), units.base_asset

    def _accepted(self, message: pb.Event, event: Event) -> None:
        target = message.order_accepted
        units = self._order(target, event)
        command = event[ev.OA_COMMAND]
        if command[P_TYPE] == STOP:
            target.price = ""
        target.client_order_id = command[C_REQUEST_ID]
        target.session_id = command[C_SESSION]
        # A list, where it was read from the journal; older rules knew no keys.
        target.api_key = command[P_KEY] if len(command) > P_KEY else ""
        target.order_type = command[P_TYPE]
        target.time_in_force = command[P_TIF]
        target.quantity = units.quantity(command[P_LOTS])
        target.stop_price = units.price(command[P_STOP])
        target.post_only = bool(command[P_POST_ONLY])
        target.self_trade_prevention = event[ev.OA_STP]
        if command[P_EXPIRE]:
            set_time(target.expire_time, command[P_EXPIRE])
        target.resting_quantity = units.quantity(event[ev.OA_RESTING])
        target.held_amount, target.held_asset = self._held(units, event[ev.O_SIDE], event[ev.OA_HELD])

    def _rejected(self, message: pb.Event, event: Event) -> None:
        target = message.order_rejected
        target.account = event[ev.OR_ACCOUNT]
        target.client_order_id = event[ev.OR_CLIENT_ORDER_ID]
        target.reason = event[ev.OR_REASON]
        if 0 <= event[ev.OR_MARKET] < len(self._desk.state.markets):
            target.symbol = self._units(event[ev.OR_MARKET]).symbol

    def _triggered(self, message: pb.Event, event: Event) -> None:
        target = message.order_triggered
        units = self._order(target, event)
        target.resting_quantity = units.quantity(event[ev.OT_RESTING])

    def _trade(self, message: pb.Event, event: Event) -> None:
        target = message.trade_executed
        units = self._units(event[ev.T_MARKET])
        target.trade_id = trade_id(message.sequence, event)
        target.symbol = units.symbol
        target.price = units.price(event[ev.T_PRICE])
        target.quantity = units.quantity(event[ev.T_LOTS])
        target.notional = units.quote(event[ev.T_PRICE] * event[ev.T_LOTS] * units.quote_per_tick_lot)
        target.maker_order_id = str(event[ev.T_MAKER_ORDER])
        target.taker_order_id = str(event[ev.T_TAKER_ORDER])
        target.maker_account = event[ev.T_MAKER_ACCOUNT]
        target.taker_account = event[ev.T_TAKER_ACCOUNT]
        target.taker_side = event[ev.T_TAKER_SIDE]
        target.maker_fee = units.quote(event[ev.T_MAKER_FEE])
        target.taker_fee = units.quote(event[ev.T_TAKER_FEE])
        target.maker_open_quantity = units.quantity(event[ev.T_MAKER_OPEN])
        target.taker_open_quantity = units.quantity(event[ev.T_TAKER_OPEN])
        target.buyer_released_amount = units.quote(event[ev.T_BUYER_RELEASED])

    def _reduced(self, message: pb.Event, event: Event) -> None:
        target = message.order_reduced
        units = self._order(target, event)
        target.reduced_quantity = units.quantity(event[ev.OD_REDUCED])
        target.open_quantity = units.quantity(event[ev.OD_OPEN])
        target.released_amount, target.held_asset = self._held(units, event[ev.O_SIDE], event[ev.OD_RELEASED])

    def _replaced(self, message: pb.Event, event: Event) -> None:
        target = message.order_replaced
        units = self._order(target, event)
        target.old_price = units.price(event[ev.OP_OLD_PRICE])
        target.old_open_quantity = units.quantity(event[ev.OP_OLD_OPEN])
        target.open_quantity = units.quantity(event[ev.OP_OPEN])
        target.resting_quantity = units.quantity(event[ev.OP_RESTING])
        target.held_change, target.held_asset = self._held(units, event[ev.O_SIDE], event[ev.OP_HELD_CHANGE])

    def _cancelled(self, message: pb.Event, event: Event) -> None:
        target = message.order_cancelled
        units = self._order(target, event)
        target.cancelled_quantity = units.quantity(event[ev.OC_LOTS])
        target.reason = event[ev.OC_REASON]
        target.was_resting = bool(event[ev.OC_WAS_RESTING])
        target.released_amount, target.held_asset = self._held(units, event[ev.O_SIDE], event[ev.OC_RELEASED])

    def _adjusted(self, message: pb.Event, event: Event) -> None:
        target = message.balance_adjusted
        asset = self._desk.state.assets[event[ev.B_ASSET]]
        target.kind = event[ev.B_ADJUSTMENT]
        target.account = event[ev.B_ACCOUNT]
        target.asset = asset.code
        target.amount = format_units(event[ev.B_AMOUNT], asset.decimals)
        target.to_account = event[ev.B_TO]
        target.reference = event[ev.B_REFERENCE]

    def _command_rejected(self, message: pb.Event, event: Event) -> None:
        target = message.command_rejected
        target.account = event[ev.CR_ACCOUNT]
        target.reference = event[ev.CR_REFERENCE]
        target.reason = event[ev.CR_REASON]

    def _asset(self, message: pb.Event, event: Event) -> None:
        target = message.asset_created.asset
        target.code = event[ev.AC_CODE]
        target.decimals = event[ev.AC_DECIMALS]

    def _market(self, message: pb.Event, event: Event) -> None:
        index = event[ev.MC_MARKET]
        market = build_market(self._desk.state, index, tuple(event[ev.MC_DEFINITION]))
        market.mode = event[ev.MC_MODE]
        message.market_changed.market.CopyFrom(market_message(market, self._units(index), message.sequence))

    def _switches(self, message: pb.Event, event: Event) -> None:
        target = message.switches_changed
        target.accept_new_orders = event[ev.SW_ACCEPT]
        target.maintenance_mode = event[ev.SW_MAINTENANCE]
        target.circuit_breaker = event[ev.SW_BREAKER]

    def _session(self, message: pb.Event, event: Event) -> None:
        target = message.session_changed
        target.account = event[ev.SC_ACCOUNT]
        target.session_id = event[ev.SC_SESSION]
        target.state = event[ev.SC_STATE]

    def _limits(self, message: pb.Event, event: Event) -> None:
        target = message.account_limits_changed
        target.account = event[ev.LC_ACCOUNT]
        target.max_open_orders = event[ev.LC_MAX_OPEN]

    def _book_hashed(self, message: pb.Event, event: Event) -> None:
        message.book_hashed.symbol = self._units(event[ev.BH_MARKET]).symbol
        message.book_hashed.book_hash = event[ev.BH_HASH]

    def _rules(self, message: pb.Event, event: Event) -> None:
        message.rules_activated.rules_version = event[ev.RA_VERSION]

    def _mass_cancelled(self, message: pb.Event, event: Event) -> None:
        target = message.orders_mass_cancelled
        target.account = event[ev.MX_ACCOUNT]
        target.cancelled_count = event[ev.MX_COUNT]
        if event[ev.MX_MARKET] >= 0:
            target.symbol = self._units(event[ev.MX_MARKET]).symbol

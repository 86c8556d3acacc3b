"""From the core to messages of the contract: orders, fills, trades, markets, balances."""

from __future__ import annotations

from exchange.domain.decimals import format_units
from exchange.runtime.feeds.notices import set_time
from exchange.trading.core import keys
from exchange.trading.core.commands import (
    C_ACCOUNT,
    C_REQUEST_ID,
    P_EXPIRE,
    P_LOTS,
    P_POST_ONLY,
    P_SIDE,
    P_STOP,
    P_STP,
    P_TIF,
    P_TYPE,
    Command,
)
from exchange.trading.core.constants import STOP
from exchange.trading.core.events import (
    R_CANCEL_REASON,
    R_COMMAND,
    R_FEE_PAID,
    R_FILLED,
    R_NOTIONAL,
    R_OPEN,
    R_ORDER_ID,
    R_PRICE,
    R_SEQUENCE,
    R_STATUS,
    R_TIME,
    T_INDEX,
    T_LOTS,
    T_MAKER_ACCOUNT,
    T_MAKER_FEE,
    T_MAKER_ORDER,
    T_PRICE,
    T_TAKER_ACCOUNT,
    T_TAKER_FEE,
    T_TAKER_ORDER,
    T_TAKER_SIDE,
    Event,
    Result,
)
from exchange.trading.core.model import Asset, Balance, Market, Order
from exchange.trading.service.units import MarketUnits
from pincex.trading.v1 import types_pb2 as pb


def order_of(
    units: MarketUnits,
    *,
    order_id: int,
    account: str,
    side: int,
    command: Command,
    default_stp: int,
    created_ns: int,
    updated_ns: int,
    sequence: int,
    status: int,
    price: int,
    lots_open: int,
    lots_filled: int,
    lots_cancelled: int,
    notional: int,
    fee_paid: int,
    cancel_reason: int,
    triggered: bool,
) -> pb.Order:
    """An Order message from its values; `lots_cancelled` is what was open when it was cancelled."""
    message = pb.Order(
        order_id=str(order_id),
        client_order_id=command[C_REQUEST_ID],
        symbol=units.symbol,
        side=side,  # type: ignore[arg-type]
        order_type=command[P_TYPE],
        time_in_force=command[P_TIF],
        status=status,  # type: ignore[arg-type]
        quantity=units.quantity(lots_filled + lots_open + lots_cancelled),
        filled_quantity=units.quantity(lots_filled),
        open_quantity=units.quantity(lots_open),
        price="" if command[P_TYPE] == STOP and not triggered else units.price(price),
        stop_price=units.price(command[P_STOP]),
        filled_notional=units.quote(notional),
        average_price=units.average_price(notional, lots_filled),
        fee_paid=units.quote(fee_paid),
        post_only=bool(command[P_POST_ONLY]),
        self_trade_prevention=command[P_STP] or default_stp,  # type: ignore[arg-type]
        cancel_reason=cancel_reason,  # type: ignore[arg-type]
        triggered=triggered,
        account=account,
        sequence=sequence,
        api_key=keys.key_of(command),
    )
    if command[P_EXPIRE]:
        set_time(message.expire_time, command[P_EXPIRE])
    set_time(message.created_time, created_ns)
    set_time(message.updated_time, updated_ns)
    return message


def order_message(order: Order, units: MarketUnits, result: Result | None = None) -> pb.Order:
    """An order as it stands in the core, or as it stood when `result` was made."""
    if result is None:
        lots_open, lots_filled, status = order.lots_open, order.lots_filled, order.status
        notional, fee_paid, price, cancel_reason = order.notional, order.fee_paid, order.price, order.cancel_reason
        sequence = order.updated_sequence or order.order_id
        updated_ns = order.updated_ns or order.created_ns
    else:
        lots_open, lots_filled, status = result[R_OPEN], result[R_FILLED], result[R_STATUS]
        notional, fee_paid, price = result[R_NOTIONAL], result[R_FEE_PAID], result[R_PRICE]
        cancel_reason, sequence, updated_ns = result[R_CANCEL_REASON], result[R_SEQUENCE], result[R_TIME]
    return order_of(
        units,
        order_id=order.order_id,
        account=order.account.name,
        side=order.side,
        command=order.command,
        default_stp=order.market.default_stp,
        created_ns=order.created_ns,
        updated_ns=updated_ns,
        sequence=sequence,
        status=status,
        price=price,
        lots_open=lots_open,
        lots_filled=lots_filled,
        lots_cancelled=order.lots_cancelled if cancel_reason else 0,
        notional=notional,
        fee_paid=fee_paid,
        cancel_reason=cancel_reason,
        triggered=order.triggered,
    )


def placed_message(result: Result, units: MarketUnits, default_stp: int) -> pb.Order:
    """A new order as it stood right after it was matched, from the result of its PLACE command alone: a repeat gets the
    very same, whatever became of the order since.
    """
    command: Command = result[R_COMMAND]
    lots_open, lots_filled, cancel_reason = result[R_OPEN], result[R_FILLED], result[R_CANCEL_REASON]
    return order_of(
        units,
        order_id=result[R_ORDER_ID],
        account=command[C_ACCOUNT],
        side=command[P_SIDE],
        command=command,
        default_stp=default_stp,
        created_ns=result[R_TIME],
        updated_ns=result[R_TIME],
        sequence=result[R_SEQUENCE],
        status=result[R_STATUS],
        price=result[R_PRICE],
        lots_open=lots_open,
        lots_filled=lots_filled,
        lots_cancelled=command[P_LOTS] - lots_filled - lots_open if cancel_reason else 0,
        notional=result[R_NOTIONAL],
        fee_paid=result[R_FEE_PAID],
        cancel_reason=cancel_reason,
        # Even one whose stop price is reached at once wakes behind the command that placed it.
        triggered=False,
    )


def trade_id(sequence: int, event: Event) -> str:
    """The stable name of an execution."""
    return f"{sequence}-{event[T_INDEX]}"


def trade_message(event: Event, units: MarketUnits, sequence: int, time_ns: int) -> pb.Trade:
    """An execution as the public sees it."""
    message = pb.Trade(
        trade_id=trade_id(sequence, event),
        symbol=units.symbol,
        price=units.price(event[T_PRICE]),
        quantity=units.quantity(event[T_LOTS]),
        taker_side=event[T_TAKER_SIDE],
        sequence=sequence,
    )
    set_time(message.trade_time, time_ns)
    return message


def fill_message(
    event: Event, units: MarketUnits, sequence: int, time_ns: int, *, maker: bool, client_order_id: str
) -> pb.Fill:
    """An execution as one of its accounts sees it."""
    price, lots = event[T_PRICE], event[T_LOTS]
    taker_side: int = event[T_TAKER_SIDE]
    message = pb.Fill(
        trade_id=trade_id(sequence, event),
        order_id=str(event[T_MAKER_ORDER if maker else T_TAKER_ORDER]),
        client_order_id=client_order_id,
        symbol=units.symbol,
        side=(3 - taker_side) if maker else taker_side,  # type: ignore[arg-type]
        price=units.price(price),
        quantity=units.quantity(lots),
        notional=units.quote(price * lots * units.quote_per_tick_lot),
        fee=units.quote(event[T_MAKER_FEE if maker else T_TAKER_FEE]),
        is_maker=maker,
        sequence=sequence,
        account=event[T_MAKER_ACCOUNT if maker else T_TAKER_ACCOUNT],
    )
    set_time(message.trade_time, time_ns)
    return message


def market_message(market: Market, units: MarketUnits, sequence: int) -> pb.Market:
    """A market's rules and state."""
    return pb.Market(
        symbol=market.symbol,
        base_asset=units.base_asset,
        quote_asset=units.quote_asset,
        tick_size=units.tick_size,
        lot_size=units.lot_size,
        mode=market.mode,  # type: ignore[arg-type]
        min_quantity=units.quantity(market.min_lots),
        max_quantity=units.quantity(market.max_lots) if market.max_lots else "",
        min_notional=units.quote(market.min_notional),
        maker_fee_ppm=market.maker_ppm,
        taker_fee_ppm=market.taker_ppm,
        price_band_ppm=market.band_ppm,
        market_protection_ppm=market.protection_ppm,
        default_self_trade_prevention=market.default_stp,  # type: ignore[arg-type]
        last_price=units.price(market.last_price),
        reference_price=units.price(market.last_price or market.reference_price),
        sequence=sequence,
    )


def balance_message(account: str, asset: Asset, balance: Balance, sequence: int) -> pb.Balance:
    """One balance as it stands."""
    return amounts_message(account, asset, balance.available, balance.held, sequence)


def amounts_message(account: str, asset: Asset, available: int, held: int, sequence: int) -> pb.Balance:
    """One balance as it was at a sequence."""
    return pb.Balance(
        account=account,
        asset=asset.code,
        available=format_units(available, asset.decimals),
        held=format_units(held, asset.decimals),
        total=format_units(available + held, asset.decimals),
        sequence=sequence,
    )


def asset_message(asset: Asset) -> pb.Asset:
    """An asset."""
    return pb.Asset(code=asset.code, decimals=asset.decimals)

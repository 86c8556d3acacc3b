"""What the naive exchange refuses, and why: each rule in the order in which a client is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core import reasons as r
from exchange.trading.core import registry as reg

if TYPE_CHECKING:
    from tests.reference.naive_exchange import NaiveExchange, NaiveOrder


@dataclass
class Definition:
    """A market. `unit`: quote units of one lot at one tick; `lot`: base units of one lot."""

    base: int
    quote: int
    lot: int
    unit: int
    min_lots: int = 1
    max_lots: int = 0
    min_notional: int = 0
    maker_ppm: int = 0
    taker_ppm: int = 0
    band_ppm: int = 0
    protection_ppm: int = 0
    stp: int = c.STP_NONE
    reference: int = 0
    mode: int = c.OPEN
    last: int = 0

    @property
    def rates(self) -> tuple[int, int]:
        return (self.maker_ppm, self.taker_ppm)

    def change(self, changes: dict[int, int]) -> None:
        names = {
            reg.D_MIN_LOTS: "min_lots",
            reg.D_MAX_LOTS: "max_lots",
            reg.D_MIN_NOTIONAL: "min_notional",
            reg.D_MAKER_PPM: "maker_ppm",
            reg.D_TAKER_PPM: "taker_ppm",
            reg.D_BAND_PPM: "band_ppm",
            reg.D_PROTECTION_PPM: "protection_ppm",
            reg.D_DEFAULT_STP: "stp",
        }
        for position, value in changes.items():
            setattr(self, names[position], value)

    def band(self) -> tuple[int, int]:
        """Lowest and highest price allowed."""
        centre = self.last or self.reference
        if not self.band_ppm or not centre:
            return (0, 2**200)
        width = centre * self.band_ppm // c.PPM
        return (max(centre - width, 1), centre + width)

    def protect(self, side: int, price: int) -> int:
        width = price * self.protection_ppm // c.PPM
        return min(price + width, c.MAX_TICKS) if side == c.BUY else max(price - width, 1)


def meets(side: int, price: int, facing: int) -> bool:
    """Whether an order of this side and price trades with one of the other side at `facing`."""
    return price >= facing if side == c.BUY else price <= facing


def place_refusal(exchange: NaiveExchange, command: tuple[Any, ...]) -> tuple[int, int]:
    """(reason or 0, price at which the order may trade)."""
    for switch, state, reason in (
        ("maintenance", True, r.MAINTENANCE),
        ("breaker", True, r.CIRCUIT_BREAKER),
        ("accept", False, r.NEW_ORDERS_DISABLED),
    ):
        if exchange.switches[switch] == state:
            return reason, 0
    market = command[cmd.P_MARKET]
    if not 0 <= market < len(exchange.markets):
        return r.UNKNOWN_SYMBOL, 0
    definition = exchange.markets[market]
    if definition.mode != c.OPEN:
        return (r.MARKET_CANCEL_ONLY if definition.mode == c.CANCEL_ONLY else r.MARKET_HALTED), 0
    price = _working_price(exchange, command)
    return _terms_refusal(exchange, definition, command, price) or _arrival_refusal(exchange, command, price), price


def _working_price(exchange: NaiveExchange, command: tuple[Any, ...]) -> int:
    kind: int = command[cmd.P_TYPE]
    side: int = command[cmd.P_SIDE]
    price: int = command[cmd.P_PRICE]
    definition: Definition = exchange.markets[command[cmd.P_MARKET]]
    if kind in (c.LIMIT, c.STOP_LIMIT):
        return price
    if kind == c.STOP:
        return definition.protect(side, command[cmd.P_STOP])
    if price < 0:
        return 0
    if price == 0:
        facing = exchange.resting(command[cmd.P_MARKET], 3 - side)
        if not facing:
            return 0
        price = definition.protect(side, facing[0].price)
    low, high = definition.band()
    return min(price, high) if side == c.BUY else max(price, low)


def _terms_refusal(exchange: NaiveExchange, definition: Definition, command: tuple[Any, ...], price: int) -> int:
    """What is wrong with the order whatever stands in the book."""
    kind, lots, stop = command[cmd.P_TYPE], command[cmd.P_LOTS], command[cmd.P_STOP]
    if price <= 0:
        return r.NO_LIQUIDITY if kind == c.MARKET else r.NUMBER_TOO_LARGE
    if lots < definition.min_lots:
        return r.QUANTITY_TOO_SMALL
    if lots > (definition.max_lots or lots):
        return r.QUANTITY_TOO_LARGE
    if too_large(definition, price, lots):
        return r.NUMBER_TOO_LARGE
    if kind in (c.STOP, c.STOP_LIMIT):
        if not 0 < stop <= c.MAX_TICKS:
            return r.NUMBER_TOO_LARGE
        if definition.last and meets(3 - command[cmd.P_SIDE], stop, definition.last):
            return r.STOP_ALREADY_REACHED
    if kind in (c.LIMIT, c.STOP_LIMIT) and price * lots * definition.unit < definition.min_notional:
        return r.NOTIONAL_TOO_SMALL
    low, high = definition.band()
    if kind == c.STOP_LIMIT and definition.band_ppm:
        width = stop * definition.band_ppm // c.PPM
        low, high = stop - width, stop + width
    if kind in (c.LIMIT, c.STOP_LIMIT) and not low <= price <= high:
        return r.PRICE_OUT_OF_BAND
    return 0


def _arrival_refusal(exchange: NaiveExchange, command: tuple[Any, ...], price: int) -> int:
    """What the book, the time or the account's other orders forbid."""
    side, account = command[cmd.P_SIDE], command[cmd.C_ACCOUNT]
    facing = exchange.resting(command[cmd.P_MARKET], 3 - side)
    crossing = [order for order in facing if meets(side, price, order.price)]
    if command[cmd.P_POST_ONLY] and crossing:
        return r.POST_ONLY_WOULD_CROSS
    if command[cmd.P_TYPE] == c.MARKET and not facing:
        return r.NO_LIQUIDITY
    if 0 < command[cmd.P_EXPIRE] <= exchange.time:
        return r.EXPIRE_TIME_PASSED
    key, key_most, account_most = command[cmd.P_KEY :] if exchange.rules >= 3 and command[cmd.P_KEY :] else ("", 0, 0)
    limit = exchange.limits.get(account, account_most or 10_000)
    own = exchange.open_orders(account=account)
    if limit and len(own) >= limit:
        return r.TOO_MANY_OPEN_ORDERS
    if key_most and sum(order.command[cmd.P_KEY : cmd.P_KEY + 1] == (key,) for order in own) >= key_most:
        return r.TOO_MANY_OPEN_ORDERS
    if command[cmd.P_TIF] == c.FOK:
        stp = command[cmd.P_STP] or exchange.markets[command[cmd.P_MARKET]].stp
        missing = command[cmd.P_LOTS]
        for order in crossing:
            if missing <= 0:
                break
            own = order.account == account and stp != c.STP_NONE
            if own and stp != c.STP_CANCEL_OLDEST:
                break
            missing -= 0 if own else order.open
        if missing > 0:
            return r.FOK_NOT_FILLABLE
    return 0


def too_large(definition: Definition, price: int, lots: int) -> bool:
    """Beyond what the engine holds exactly."""
    return (
        price > c.MAX_TICKS
        or lots > c.MAX_LOTS
        or lots * definition.lot > c.MAX_AMOUNT
        or price * lots * definition.unit > c.MAX_AMOUNT
    )


def change_refusal(exchange: NaiveExchange, order: NaiveOrder | None) -> int:
    """Why an order may not be cancelled or reduced."""
    if order is None:
        return r.ORDER_NOT_FOUND
    if order.open == 0:
        return r.ORDER_CLOSED
    return r.MARKET_HALTED if exchange.markets[order.market].mode == c.HALTED else 0


def replace_refusal(exchange: NaiveExchange, order: NaiveOrder | None, command: tuple[Any, ...]) -> int:
    """Why an order may not be replaced."""
    reason = change_refusal(exchange, order)
    if reason or order is None:
        return reason
    definition = exchange.markets[order.market]
    price, lots, expected = command[cmd.X_PRICE], command[cmd.X_LOTS], command[cmd.X_EXPECTED_FILLED]
    low, high = definition.band()
    asset = definition.quote if order.side == c.BUY else definition.base
    facing = exchange.resting(order.market, 3 - order.side)
    for refused, why in (
        (exchange.switches["maintenance"], r.MAINTENANCE),
        (exchange.switches["breaker"], r.CIRCUIT_BREAKER),
        (definition.mode != c.OPEN, r.MARKET_CANCEL_ONLY),
        (order.place != "resting", r.ORDER_ASLEEP),
        (expected >= 0 and expected != order.filled, r.FILLED_QUANTITY_CHANGED),
        (price <= 0, r.NUMBER_TOO_LARGE),
        (lots < definition.min_lots, r.QUANTITY_TOO_SMALL),
        (lots > (definition.max_lots or lots), r.QUANTITY_TOO_LARGE),
        (too_large(definition, price, lots), r.NUMBER_TOO_LARGE),
        (order.notional + price * lots * definition.unit > c.MAX_AMOUNT, r.NUMBER_TOO_LARGE),
        ((order.filled + lots) * definition.lot > c.MAX_AMOUNT, r.NUMBER_TOO_LARGE),
        (price * lots * definition.unit < definition.min_notional, r.NOTIONAL_TOO_SMALL),
        (not low <= price <= high, r.PRICE_OUT_OF_BAND),
        (
            order.command[cmd.P_POST_ONLY] and facing and meets(order.side, price, facing[0].price),
            r.POST_ONLY_WOULD_CROSS,
        ),
        (
            order.needs(definition, price, lots) - order.needs(definition, order.price, order.open)
            > exchange.available(order.account, asset),
            r.INSUFFICIENT_FUNDS,
        ),
    ):
        if refused:
            return why
    return 0


def money_refusal(exchange: NaiveExchange, command: tuple[Any, ...]) -> int:
    """Why money may not come, wait or change hands."""
    kind, account, asset, amount = command[0], command[1], command[cmd.F_ASSET], command[cmd.F_AMOUNT]
    if not 0 <= asset < exchange.assets:
        return r.UNKNOWN_ASSET
    if not 0 < amount <= c.MAX_AMOUNT:
        return r.NUMBER_TOO_LARGE
    if kind == cmd.CREDIT:
        return r.BALANCE_LIMIT if exchange.supply[asset] + amount > c.MAX_AMOUNT else 0
    if kind == cmd.HOLD and (account, command[cmd.C_REQUEST_ID]) in exchange.holds:
        return r.ALREADY_EXISTS
    return r.INSUFFICIENT_FUNDS if amount > exchange.available(account, asset) else 0

"""Money of orders: what is held, what a trade moves, what goes back. Whole units only.

Rounding, once for all: a fee is the sum of notional x rate over all fills of its order, divided by a million and rounded
up; each fill is charged what the fee has grown by. So many small fills cost no more than one large one, the fee never
exceeds what was held for it, and every unit that leaves one account arrives in another. An order remembers how many
millionths it has paid ahead rather than the sum itself, which would outgrow 64 bits.
"""

from __future__ import annotations

from exchange.trading.core.constants import BUY, PPM
from exchange.trading.core.model import Market, Order


def fee_of(notional: int, rate_ppm: int, ahead: int) -> int:
    """What is due on `notional` at a rate, rounded up, by one who is `ahead` by so many millionths of a unit.

    In two parts, since their product would outgrow what the compiled core holds as a bare number.
    """
    whole = notional // PPM
    return whole * rate_ppm + ((notional - whole * PPM) * rate_ppm - ahead + (PPM - 1)) // PPM


def hold_for(order: Order, price: int, lots: int) -> int:
    """What an order must hold to trade `lots` more at `price` or better: quote units with the dearer of its fees for
    BUY, base units for SELL (whose fee comes out of the proceeds).
    """
    market = order.market
    if order.side != BUY:
        return lots * market.base_per_lot
    notional = price * lots * market.quote_per_tick_lot
    rate = order.taker_ppm
    if order.maker_ppm > rate:  # noqa: PLR1730 - `max` takes three times as long
        rate = order.maker_ppm
    return notional + fee_of(notional, rate, order.fee_ahead)


def move_hold(order: Order, price: int, lots: int) -> int:
    """Set the order's hold to what `lots` at `price` need; answers what moved from available to held (negative: back).
    The caller has checked that it is available.
    """
    needed = hold_for(order, price, lots)
    change = needed - order.held
    if change != 0:
        balance = order.balance
        balance.available -= change
        balance.held += change
        order.held = needed
    return change


def charge(order: Order, notional: int, rate_ppm: int) -> int:
    """Add a fill to the order's fee; answers what is due now."""
    if rate_ppm == 0:
        return 0
    whole = notional // PPM
    part = (notional - whole * PPM) * rate_ppm - order.fee_ahead
    rounded = (part + (PPM - 1)) // PPM
    due = whole * rate_ppm + rounded
    order.fee_ahead = rounded * PPM - part
    order.fee_paid += due
    return due


def settle_buyer(order: Order, market: Market, lots: int, cost: int) -> int:
    """The buyer's side of a fill: `cost` quote units (notional and fee) leave the hold, what the fill no longer needs
    goes back, the base asset arrives. `order.lots_open` is what is left. Answers what left the hold.
    """
    needed = hold_for(order, order.price, order.lots_open) if order.lots_open else 0
    released = order.held - needed
    order.held = needed
    quote = order.balance
    quote.held -= released
    quote.available += released - cost
    base = order.account.balances.get(market.base)
    if base is None:
        base = order.account.balance(market.base)
    base.available += lots * market.base_per_lot
    return released


def settle_seller(order: Order, market: Market, lots: int, proceeds: int) -> None:
    """The seller's side of a fill: the base asset leaves the hold, `proceeds` quote units (notional less fee) arrive."""
    sold = lots * market.base_per_lot
    order.held -= sold
    order.balance.held -= sold
    quote = order.account.balances.get(market.quote)
    if quote is None:
        quote = order.account.balance(market.quote)
    quote.available += proceeds

"""Money of orders: what is held, what a trade moves, what goes back. Whole units only.

Rounding, once for all: a fee is the sum of notional x rate over all fills of its order, divided by a million and rounded
up; each fill is charged what the fee has grown by. So many small fills cost no more than one large one, the fee never
exceeds what was held for it, and every unit that leaves one account arrives in another. An order remembers how many
millionths it has paid ahead rather than the sum itself, which would outgrow 64 bits.
"""

from __future__ import annotations

from exchange.trading.core.constants import BUY, PPM
from exchange.trading.core.model import Market, Order


def hold_for(order: Order, price: int, lots: int) -> int:
    """What an order must hold to trade `lots` more at `price` or better: quote units with the dearer of its fees for
    BUY, base units for SELL (whose fee comes out of the proceeds).
    """
    market = order.market
    if order.side != BUY:
        return lots * market.base_per_lot
    notional = price * lots * market.quote_per_tick_lot
    rate = order.taker_ppm
    rate = max(rate, order.maker_ppm)
    return notional - (order.fee_ahead - notional * rate) // PPM


def move_hold(order: Order, price: int, lots: int) -> int:
    """Set the order's hold to what `lots` at `price` need; answers what moved from available to held (negative: back).
    The caller has checked that it is available.
    """
    needed = hold_for(order, price, lots)
    change = needed - order.held
    if change != 0:
        market = order.market
        balance = order.account.balance(market.quote if order.side == BUY else market.base)
        balance.available -= change
        balance.held += change
        order.held = needed
    return change


def charge(order: Order, notional: int, rate_ppm: int) -> int:
    """Add a fill to the order's fee; answers what is due now."""
    if rate_ppm == 0:
        return 0
    exact = notional * rate_ppm - order.fee_ahead
    due = -(-exact // PPM)
    order.fee_ahead = due * PPM - exact
    order.fee_paid += due
    return due


def settle_buyer(order: Order, market: Market, lots: int, cost: int) -> int:
    """The buyer's side of a fill: `cost` quote units (notional and fee) leave the hold, what the fill no longer needs
    goes back, the base asset arrives. `order.lots_open` is what is left. Answers what left the hold.
    """
    needed = hold_for(order, order.price, order.lots_open) if order.lots_open else 0
    released = order.held - needed
    order.held = needed
    account = order.account
    quote = account.balances[market.quote]
    quote.held -= released
    quote.available += released - cost
    base = account.balances.get(market.base)
    if base is None:
        base = account.balance(market.base)
    base.available += lots * market.base_per_lot
    return released


def settle_seller(order: Order, market: Market, lots: int, proceeds: int) -> None:
    """The seller's side of a fill: the base asset leaves the hold, `proceeds` quote units (notional less fee) arrive."""
    account = order.account
    sold = lots * market.base_per_lot
    order.held -= sold
    account.balances[market.base].held -= sold
    quote = account.balances.get(market.quote)
    if quote is None:
        quote = account.balance(market.quote)
    quote.available += proceeds

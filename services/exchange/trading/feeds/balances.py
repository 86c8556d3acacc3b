"""A copy of one account's balances, kept from events alone.

What each event moves, written down once: whoever keeps books from the event stream (the balance feed here, settlement's
ledger) moves the same units as the core did.
"""

from __future__ import annotations

from collections.abc import Iterator

from exchange.trading.core.constants import (
    ADJUST_CREDIT,
    ADJUST_HOLD,
    ADJUST_RELEASE,
    ADJUST_SETTLE,
    BUY,
    FEE_ACCOUNT,
)
from exchange.trading.core.events import (
    B_ACCOUNT,
    B_ADJUSTMENT,
    B_AMOUNT,
    B_ASSET,
    B_TO,
    BALANCE_ADJUSTED,
    E_KIND,
    O_ACCOUNT,
    O_MARKET,
    O_SIDE,
    OA_HELD,
    OC_RELEASED,
    OD_RELEASED,
    OP_HELD_CHANGE,
    ORDER_ACCEPTED,
    ORDER_CANCELLED,
    ORDER_REDUCED,
    ORDER_REPLACED,
    T_BUYER_RELEASED,
    T_LOTS,
    T_MAKER_ACCOUNT,
    T_MAKER_FEE,
    T_MARKET,
    T_PRICE,
    T_TAKER_ACCOUNT,
    T_TAKER_FEE,
    T_TAKER_SIDE,
    TRADE,
    Event,
)
from exchange.trading.core.model import Balance, Market, State

Move = tuple[str, int, int, int]
"""(account, asset, change of available, change of held), smallest units."""

_HOLD_CHANGE = {
    ORDER_ACCEPTED: (OA_HELD, 1),
    ORDER_REPLACED: (OP_HELD_CHANGE, 1),
    ORDER_REDUCED: (OD_RELEASED, -1),
    ORDER_CANCELLED: (OC_RELEASED, -1),
}


def moves(event: Event, markets: list[Market]) -> Iterator[Move]:
    """What an event moves in the books of its accounts."""
    kind = event[E_KIND]
    if kind == TRADE:
        yield from _trade_moves(event, markets[event[T_MARKET]])
    elif kind in _HOLD_CHANGE:
        position, sign = _HOLD_CHANGE[kind]
        change = event[position] * sign
        if change:
            market = markets[event[O_MARKET]]
            yield (event[O_ACCOUNT], market.quote if event[O_SIDE] == BUY else market.base, -change, change)
    elif kind == BALANCE_ADJUSTED:
        yield from _adjustment_moves(event)


def _trade_moves(event: Event, market: Market) -> Iterator[Move]:
    lots = event[T_LOTS]
    notional = event[T_PRICE] * lots * market.quote_per_tick_lot
    base = lots * market.base_per_lot
    maker, taker = event[T_MAKER_ACCOUNT], event[T_TAKER_ACCOUNT]
    maker_fee, taker_fee = event[T_MAKER_FEE], event[T_TAKER_FEE]
    if event[T_TAKER_SIDE] == BUY:
        buyer, buyer_fee, seller, seller_fee = taker, taker_fee, maker, maker_fee
    else:
        buyer, buyer_fee, seller, seller_fee = maker, maker_fee, taker, taker_fee
    released = event[T_BUYER_RELEASED]
    yield (buyer, market.quote, released - notional - buyer_fee, -released)
    yield (buyer, market.base, base, 0)
    yield (seller, market.base, 0, -base)
    yield (seller, market.quote, notional - seller_fee, 0)
    if buyer_fee or seller_fee:
        yield (FEE_ACCOUNT, market.quote, buyer_fee + seller_fee, 0)


def _adjustment_moves(event: Event) -> Iterator[Move]:
    adjustment, account, asset, amount = event[B_ADJUSTMENT], event[B_ACCOUNT], event[B_ASSET], event[B_AMOUNT]
    if adjustment == ADJUST_CREDIT:
        yield (account, asset, amount, 0)
    elif adjustment == ADJUST_HOLD:
        yield (account, asset, -amount, amount)
    elif adjustment == ADJUST_RELEASE:
        yield (account, asset, amount, -amount)
    elif adjustment == ADJUST_SETTLE:
        yield (account, asset, 0, -amount)
    else:
        yield (account, asset, -amount, 0)
        yield (event[B_TO], asset, amount, 0)


class BalanceCopy:
    """One account's balances, from a moment of the core on."""

    def __init__(self, state: State, account: str) -> None:
        self._account = account
        self.balances: dict[int, Balance] = {}
        holder = state.accounts.get(account)
        if holder is not None:
            for asset, balance in holder.balances.items():
                copied = self.balances[asset] = Balance()
                copied.available = balance.available
                copied.held = balance.held

    def apply(self, events: list[Event], markets: list[Market]) -> list[int]:
        """Apply the events of one command; answers the assets whose balance changed, in order. `markets` are those of the
        core that serves now, which may be another than the one the copy began with.
        """
        changed: list[int] = []
        for event in events:
            for account, asset, available, held in moves(event, markets):
                if account != self._account or not (available or held):
                    continue
                balance = self.balances.get(asset)
                if balance is None:
                    balance = self.balances[asset] = Balance()
                balance.available += available
                balance.held += held
                if asset not in changed:
                    changed.append(asset)
        return changed

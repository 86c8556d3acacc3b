"""What to do in one market, from all that is known of it. Pure: no clock, no network."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from exchange.market_maker.funds import afford, held, set_aside
from exchange.market_maker.orders import changes
from exchange.market_maker.quoting import BUY, SELL, Outside, Quotes, quotes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from exchange.market_maker.orders import Changes, OwnOrder
    from exchange.market_maker.position import Position
    from exchange.market_maker.rules import MarketRules, MarketSettings

# What a market is said to be doing; all but the first mean that no quote stands.
QUOTING: Final = "QUOTING"
DISABLED: Final = "DISABLED"
STALE_REFERENCE: Final = "STALE_REFERENCE"
MARKET_CLOSED: Final = "MARKET_CLOSED"
LOSS_LIMIT: Final = "LOSS_LIMIT"
NO_FUNDS: Final = "NO_FUNDS"
NOT_CONNECTED: Final = "NOT_CONNECTED"
# No level that the market takes fits in: into its band, its least sizes, or the inventory that is allowed.
NO_ROOM: Final = "NO_ROOM"


@dataclass(frozen=True, slots=True)
class View:
    """One market as it stands. `reference` None: there is none, or it is too old. `refused`: the
    exchange took no new orders a moment ago, whatever the market's mode says. `base` and `quote` are free for new orders, beside what
    open orders hold.
    """

    rules: MarketRules
    settings: MarketSettings
    position: Position
    orders: Sequence[OwnOrder]
    reference: Decimal | None
    movement: Fraction
    outside: Outside
    base: Decimal
    quote: Decimal
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The state, what to change, and what is free for new orders after it."""

    state: str
    changes: Changes
    base_left: Decimal
    quote_left: Decimal


def decide(view: View) -> Decision:
    """Quotes are pulled whenever one of the reasons for not quoting holds."""
    rules, orders = view.rules, view.orders
    base = view.base + set_aside(rules, orders, SELL)
    quote = view.quote + set_aside(rules, orders, BUY)
    state, wanted = _wanted(view, base, quote)
    quote -= sum((held(rules, BUY, level.ticks, level.lots) for level in wanted.bids), Decimal(0))
    base -= sum((held(rules, SELL, level.ticks, level.lots) for level in wanted.asks), Decimal(0))
    return Decision(state, changes(orders, wanted), base, quote)


def _wanted(view: View, base: Decimal, quote: Decimal) -> tuple[str, Quotes]:
    nothing = Quotes()
    if not view.settings.enabled:
        return DISABLED, nothing
    if view.position.stopped:
        return LOSS_LIMIT, nothing
    if view.refused or not view.rules.is_open:
        return MARKET_CLOSED, nothing
    if view.reference is None:
        return STALE_REFERENCE, nothing
    wished = quotes(view.rules, view.settings, view.reference, view.movement, view.position.inventory, view.outside)
    if not wished:
        return NO_ROOM, nothing
    paid = afford(wished, view.rules, base, quote)
    return (QUOTING, paid) if paid else (NO_FUNDS, nothing)

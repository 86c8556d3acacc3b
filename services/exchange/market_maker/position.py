"""What the market maker has made of its trades in one market: inventory, profit of the day, and whether it lost too much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from exchange.market_maker.quoting import BUY

if TYPE_CHECKING:
    from datetime import date

    from exchange.market_maker.rules import MarketSettings

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution of an order of ours. Quantity is of the base asset, notional and fee of the quote asset."""

    symbol: str
    side: str
    quantity: Decimal
    notional: Decimal
    fee: Decimal


@dataclass(frozen=True, slots=True)
class Position:
    """`inventory` and `cash` are what all fills have added since the beginning; at a reference price they have a value.

    `day_value` is that value when the day (UTC) began, `loss_base` the one from which losses count: the day's, or that of when
    an operator let it quote again, which `allowance` counts as the settings do. `stopped`: it lost too much.
    """

    symbol: str
    inventory: Decimal = _ZERO
    cash: Decimal = _ZERO
    day: date | None = None
    day_value: Decimal = _ZERO
    loss_base: Decimal = _ZERO
    stopped: bool = False
    allowance: int = 0

    def filled(self, fill: Fill) -> Position:
        """After one more execution."""
        sign = 1 if fill.side == BUY else -1
        return replace(
            self,
            inventory=self.inventory + sign * fill.quantity,
            cash=self.cash - sign * fill.notional - fill.fee,
        )

    def value(self, reference: Decimal) -> Decimal:
        """In the quote asset."""
        return self.cash + self.inventory * reference

    def profit_today(self, reference: Decimal) -> Decimal:
        """In the quote asset, with its sign."""
        return self.value(reference) - self.day_value

    def marked(self, today: date, reference: Decimal, settings: MarketSettings) -> Position:
        """At this price: a new day begins with it, an operator's new allowance too, and a loss at the limit stops."""
        value = self.value(reference)
        now = self
        if now.day is None or now.day != today:
            now = replace(now, day=today, day_value=value, loss_base=value)
        if now.allowance != settings.allowance:
            now = replace(now, allowance=settings.allowance, loss_base=value, stopped=False)
        loss = now.loss_base - value
        if loss > 0 and loss >= settings.max_daily_loss:
            now = replace(now, stopped=True)
        return now

"""What a new order needs to get in: room in the rates of its sender, and what it says of that sender."""

from __future__ import annotations

from exchange.runtime.principal import Principal
from exchange.trading.core.commands import Command
from exchange.trading.limits.rates import OrderRates
from exchange.trading.limits.sender import Sender, sender_of
from exchange.trading.service.desk import Desk


class Admittance:
    """Asked by everything that takes new orders, before they are queued."""

    def __init__(self, desk: Desk, rates: OrderRates) -> None:
        self._desk = desk
        self._rates = rates

    def sender(self, principal: Principal) -> Sender:
        """What PLACE commands of this principal carry at their end."""
        return sender_of(principal, self._desk.state)

    def is_limited(self, principal: Principal) -> bool:
        """Whether orders of this principal are counted at all; who asks once need not ask for each of a batch."""
        return self._rates.is_limited(principal)

    def count(self, principal: Principal, command: Command) -> None:
        """Count a PLACE or REPLACE, but for a repeat: that one gets its first answer, as it must, however fast it comes, and
        places nothing. Raises ServiceError QUOTA_EXCEEDED.
        """
        if self.is_limited(principal) and self._desk.engine.recall(command) is None:
            self._rates.take(principal)

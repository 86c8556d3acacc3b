"""What an order says of its sender: the API key, and how many open orders key and account may have.

It is part of the PLACE command (`core/keys.py`), so that every replica and every replay applies the limits that held when
the order came.
"""

from __future__ import annotations

from exchange.runtime.principal import Principal
from exchange.trading.core import keys
from exchange.trading.core.model import State
from exchange.trading.limits.tiers import tier_of

Sender = tuple[()] | tuple[str, int, int]
"""The last values of a PLACE: key, its limit, the account's limit by tier; or none of them."""

NOBODY: Sender = ()


def sender_of(principal: Principal, state: State) -> Sender:
    """What orders of this principal carry; nothing while the rules know no keys, or where there is nothing to say."""
    most = tier_of(principal).max_open_orders
    if not (principal.api_key or most) or not keys.are_known(state):
        return NOBODY
    return (principal.api_key, principal.max_open_orders, most)

"""Orders by the API key that placed them, and how many of them may be open.

Which key sent an order, and what key and account may have open by their tier, stand in its PLACE command: the limits that
held when it came are those of every replay. An order keeps its command, so its key is read there; how many of an
account's orders each key has open is counted beside them, and worked out again when a snapshot is loaded.
"""

from __future__ import annotations

from exchange.trading.core.commands import P_ACCOUNT_MAX_OPEN, P_KEY, P_KEY_MAX_OPEN, Command
from exchange.trading.core.constants import RULES_KNOW_KEYS
from exchange.trading.core.model import Account, State


def are_known(state: State) -> bool:
    """Whether the rules in force know keys; commands say nothing of them before."""
    return state.rules_version >= RULES_KNOW_KEYS


def key_of(command: Command) -> str:
    """Public id of the API key that sent a PLACE, or ""."""
    if len(command) <= P_KEY:
        return ""
    key: str = command[P_KEY]
    return key


def too_many_open(state: State, account: Account, command: Command) -> bool:
    """Whether the account, or the key that sends this PLACE, has as many open orders already as it may have."""
    limit = account.max_open_orders
    limited = len(command) > P_KEY and state.rules_version >= RULES_KNOW_KEYS
    if limit < 0:
        limit = state.default_max_open_orders
        if limited and command[P_ACCOUNT_MAX_OPEN] != 0:
            limit = command[P_ACCOUNT_MAX_OPEN]
    if limit != 0 and len(account.orders) >= limit:
        return True
    if not limited:
        return False
    most: int = command[P_KEY_MAX_OPEN]
    return most != 0 and account.open_by_key.get(command[P_KEY], 0) >= most


def opened(account: Account, command: Command) -> None:
    """An order of this PLACE is open now."""
    key = key_of(command)
    if key:
        account.open_by_key[key] = account.open_by_key.get(key, 0) + 1


def closed(account: Account, command: Command) -> None:
    """An order of this PLACE has ended."""
    key = key_of(command)
    if key:
        left = account.open_by_key[key] - 1
        if left:
            account.open_by_key[key] = left
        else:
            del account.open_by_key[key]

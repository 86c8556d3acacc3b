"""Money that comes, waits, goes or changes hands other than by trading."""

from __future__ import annotations

from exchange.trading.core.commands import C_REQUEST_ID, F_AMOUNT, F_ASSET, F_TO, H_HOLD_ID, Command
from exchange.trading.core.constants import (
    ADJUST_CREDIT,
    ADJUST_HOLD,
    ADJUST_RELEASE,
    ADJUST_SETTLE,
    ADJUST_TRANSFER,
    MAX_ACCOUNTS,
    MAX_AMOUNT,
)
from exchange.trading.core.events import BALANCE_ADJUSTED, Event, Result
from exchange.trading.core.model import Account, State
from exchange.trading.core.orders import reject_command
from exchange.trading.core.reasons import (
    ALREADY_EXISTS,
    BALANCE_LIMIT,
    DONE,
    HOLD_NOT_FOUND,
    INSUFFICIENT_FUNDS,
    NUMBER_TOO_LARGE,
    TOO_MANY_OBJECTS,
    UNKNOWN_ASSET,
)


def account_of(state: State, name: str) -> Account:
    """The account of this name, made at its first use."""
    account = state.accounts.get(name)
    if account is None:
        account = state.accounts[name] = Account(name)
    return account


def done(state: State, command: Command, count: int = 0) -> Result:
    """The result of a command that concerns no order."""
    return (state.sequence, state.time_ns, DONE, 0, 0, 0, 0, 0, 0, 0, 0, count, command)


def credit(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """Money comes in, unless the asset's supply would pass MAX_AMOUNT."""
    asset: int = command[F_ASSET]
    amount: int = command[F_AMOUNT]
    reason = _asset_refusal(state, asset, amount)
    if reason == DONE and state.assets[asset].supply + amount > MAX_AMOUNT:
        reason = BALANCE_LIMIT
    if reason != DONE:
        return reject_command(state, command, reason, events)
    state.assets[asset].supply += amount
    account.balance(asset).available += amount
    events.append((BALANCE_ADJUSTED, ADJUST_CREDIT, account.name, asset, amount, "", command[C_REQUEST_ID]))
    return done(state, command)


def hold(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """A withdrawal sets money aside under its request id."""
    asset: int = command[F_ASSET]
    amount: int = command[F_AMOUNT]
    name: str = command[C_REQUEST_ID]
    reason = _asset_refusal(state, asset, amount)
    if reason == DONE and name in account.holds:
        reason = ALREADY_EXISTS
    if reason == DONE and (asset not in account.balances or account.balances[asset].available < amount):
        reason = INSUFFICIENT_FUNDS
    if reason != DONE:
        return reject_command(state, command, reason, events)
    balance = account.balances[asset]
    balance.available -= amount
    balance.held += amount
    account.holds[name] = (asset, amount)
    events.append((BALANCE_ADJUSTED, ADJUST_HOLD, account.name, asset, amount, "", name))
    return done(state, command)


def settle_hold(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """The money of a hold has left the exchange."""
    name: str = command[H_HOLD_ID]
    held = account.holds.pop(name, None)
    if held is None:
        return reject_command(state, command, HOLD_NOT_FOUND, events, name)
    asset, amount = held
    account.balances[asset].held -= amount
    state.assets[asset].supply -= amount
    events.append((BALANCE_ADJUSTED, ADJUST_SETTLE, account.name, asset, amount, "", name))
    return done(state, command)


def release_hold(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """The money of a hold goes back to available."""
    name: str = command[H_HOLD_ID]
    held = account.holds.pop(name, None)
    if held is None:
        return reject_command(state, command, HOLD_NOT_FOUND, events, name)
    asset, amount = held
    balance = account.balances[asset]
    balance.held -= amount
    balance.available += amount
    events.append((BALANCE_ADJUSTED, ADJUST_RELEASE, account.name, asset, amount, "", name))
    return done(state, command)


def transfer(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """From one account's available money to another's."""
    asset: int = command[F_ASSET]
    amount: int = command[F_AMOUNT]
    to_name: str = command[F_TO]
    reason = _asset_refusal(state, asset, amount)
    if reason == DONE and (asset not in account.balances or account.balances[asset].available < amount):
        reason = INSUFFICIENT_FUNDS
    if reason == DONE and to_name not in state.accounts and len(state.accounts) >= MAX_ACCOUNTS:
        reason = TOO_MANY_OBJECTS
    if reason != DONE:
        return reject_command(state, command, reason, events)
    account.balances[asset].available -= amount
    account_of(state, to_name).balance(asset).available += amount
    events.append((BALANCE_ADJUSTED, ADJUST_TRANSFER, account.name, asset, amount, to_name, command[C_REQUEST_ID]))
    return done(state, command)


def _asset_refusal(state: State, asset: int, amount: int) -> int:
    if not 0 <= asset < len(state.assets):
        return UNKNOWN_ASSET
    if amount <= 0 or amount > MAX_AMOUNT:
        return NUMBER_TOO_LARGE
    return DONE

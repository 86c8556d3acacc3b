"""The whole state as nested lists of integers, strings and booleans, and back.

Everything that a later command could notice is in it, in an order that does not depend on hashing: two engines that
applied the same commands dump the same, and an engine restored from a dump goes on exactly as the one dumped.
"""

from __future__ import annotations

from hashlib import sha256
from heapq import heapify
from typing import Any, Final

import msgspec

from exchange.trading.core import admission, book, keys, memory
from exchange.trading.core.commands import C_ACCOUNT, C_KIND, C_REQUEST_ID, P_EXPIRE, P_STOP, PLACE, Command
from exchange.trading.core.constants import BUY, FEE_ACCOUNT
from exchange.trading.core.events import R_COMMAND, R_ORDER_ID, R_TIME, Result
from exchange.trading.core.model import Account, Asset, Balance, Order, Session, State
from exchange.trading.core.registry import build_market, definition_of

FORMAT_VERSION: Final = 1


def hash_of(dumped: list[Any]) -> str:
    """SHA-256, hexadecimal, over the msgpack form of a dump."""
    return sha256(msgspec.msgpack.encode(dumped)).hexdigest()


def dump(state: State) -> list[Any]:
    """The state as it stands. Layout: see `load`, which reads it in the same order."""
    numbers = {name: number for number, name in enumerate(state.accounts)}
    return [
        FORMAT_VERSION,
        state.sequence,
        state.time_ns,
        state.rules_version,
        [state.accept_new_orders, state.maintenance, state.circuit_breaker],
        [state.max_ids, state.max_id_age_ns, state.max_finished_orders, state.default_max_open_orders],
        state.forgotten_ns,
        [[asset.code, asset.decimals, asset.supply] for asset in state.assets],
        [[*definition_of(market), market.mode, market.last_price] for market in state.markets],
        [_dump_account(state, account) for account in state.accounts.values()],
        [_dump_order(order, numbers) for order in state.orders.values()],
        [
            [[order.order_id for order in book.orders_in_priority(side)] for side in (market.bids, market.asks)]
            for market in state.markets
        ],
        [order.order_id for order in state.finished],
        [_dump_remembered(state, entry, numbers) for entry in state.remembered],
        [order.order_id for order in state.triggered],
    ]


def _dump_account(state: State, account: Account) -> list[Any]:
    return [
        account.name,
        account.max_open_orders,
        [[asset, balance.available, balance.held] for asset, balance in sorted(account.balances.items())],
        [[name, asset, amount] for name, (asset, amount) in account.holds.items()],
        [
            [
                session.name,
                session.cancel_on_disconnect,
                session.grace_ms,
                session.dead_man_ms,
                session.last_number,
                [[number, _dump_result(state, result)] for number, result in session.results],
            ]
            for session in account.sessions.values()
        ],
    ]


def _dump_order(order: Order, numbers: dict[str, int]) -> list[Any]:
    return [
        order.order_id,
        numbers[order.account.name],
        order.market.index,
        order.side,
        order.price,
        order.lots_open,
        order.created_ns,
        order.command,
        order.lots_filled,
        order.notional,
        order.fee_paid,
        order.fee_ahead,
        order.held,
        order.status,
        order.cancel_reason,
        order.triggered,
        order.updated_ns,
        order.updated_sequence,
        order.maker_ppm,
        order.taker_ppm,
        order.lots_cancelled,
    ]


def _dump_remembered(state: State, entry: Result, numbers: dict[str, int]) -> list[Any]:
    time_ns, result = memory.filed(entry)
    command: Command = result[R_COMMAND]
    number = numbers[command[C_ACCOUNT] or FEE_ACCOUNT]
    return [time_ns, number, command[C_KIND] == PLACE, command[C_REQUEST_ID], _dump_result(state, result)]


def _dump_result(state: State, result: Result) -> list[Any]:
    """A result, with an empty command where the order that it placed still has it."""
    order = state.orders.get(result[R_ORDER_ID])
    shared = order is not None and order.command == result[R_COMMAND]
    return [*result[:R_COMMAND], [] if shared else result[R_COMMAND]]


def load(dumped: list[Any]) -> State:
    """The state that was dumped. Raises ValueError for another format."""
    if dumped[0] != FORMAT_VERSION:
        raise ValueError(f"snapshot format {dumped[0]}, this build reads {FORMAT_VERSION}")
    state = State()
    state.sequence, state.time_ns, state.rules_version = dumped[1], dumped[2], dumped[3]
    state.accept_new_orders, state.maintenance, state.circuit_breaker = dumped[4]
    state.max_ids, state.max_id_age_ns, state.max_finished_orders, state.default_max_open_orders = dumped[5]
    state.forgotten_ns = dumped[6]
    for index, (code, decimals, supply) in enumerate(dumped[7]):
        asset = Asset(index, code, decimals)
        asset.supply = supply
        state.assets.append(asset)
        state.asset_index[code] = index
    for index, row in enumerate(dumped[8]):
        market = build_market(state, index, tuple(row[:-2]))
        market.mode, market.last_price = row[-2], row[-1]
        admission.set_band(market)
        state.markets.append(market)
        state.market_index[market.symbol] = index
    admission.set_entry(state)
    accounts = [_load_account(row) for row in dumped[9]]
    state.accounts = {account.name: account for account in accounts}
    state.fees = state.accounts[FEE_ACCOUNT]
    for row in dumped[10]:
        _load_order(state, accounts, row)
    for market, sides in zip(state.markets, dumped[11], strict=True):
        for side, order_ids in zip((market.bids, market.asks), sides, strict=True):
            for order_id in order_ids:
                book.rest(side, state.orders[order_id])
    for order_id in dumped[12]:
        order = state.orders[order_id]
        state.finished.append(order)
        order.account.finished.append(order)
    for time_ns, number, placed, request_id, row in dumped[13]:
        account = accounts[number]
        known = account.placed if placed else account.requests
        result = known[request_id] = _load_result(state, row)
        state.remembered.append(result if result[R_TIME] == time_ns else (0, time_ns, result))
    for order_id in dumped[14]:
        order = state.orders[order_id]
        order.waiting = True
        state.triggered.append(order)
    state.stirred = bool(state.triggered)
    for account, row in zip(accounts, dumped[9], strict=True):
        _load_sessions(state, account, row[4])
    heapify(state.timers)
    return state


def _load_account(row: list[Any]) -> Account:
    account = Account(row[0])
    account.max_open_orders = row[1]
    for asset, available, held in row[2]:
        balance = account.balances[asset] = Balance()
        balance.available = available
        balance.held = held
    for name, asset, amount in row[3]:
        account.holds[name] = (asset, amount)
    return account


def _load_sessions(state: State, account: Account, rows: list[Any]) -> None:
    for name, cancel_on_disconnect, grace_ms, dead_man_ms, last_number, results in rows:
        session = account.sessions[name] = Session(
            name, grace_ms, dead_man_ms, cancel_on_disconnect=cancel_on_disconnect
        )
        session.last_number = last_number
        session.results.extend((number, _load_result(state, result)) for number, result in results)


def _load_order(state: State, accounts: list[Account], row: list[Any]) -> None:
    order_id, number, market_index, side, price, lots_open, created_ns, command = row[:8]
    account = accounts[number]
    market = state.markets[market_index]
    balance = account.balances[market.quote if side == BUY else market.base]
    order = Order(order_id, account, balance, market, side, price, lots_open, 0, created_ns, tuple(command))
    order.lots_filled, order.notional, order.fee_paid, order.fee_ahead, order.held = row[8:13]
    order.cancel_reason, order.triggered = row[14:16]  # row[13] is the status, which follows from the others
    order.updated_ns, order.updated_sequence, order.maker_ppm, order.taker_ppm = row[16:20]
    order.lots_cancelled = row[20]
    state.orders[order_id] = order
    if lots_open == 0:
        return
    account.orders[order_id] = order
    keys.opened(account, order.command)
    if order.command[P_EXPIRE]:
        state.timers_live += 1
        state.timers.append((order.command[P_EXPIRE], order_id))
    if order.command[P_STOP] and not order.triggered:
        book.sleep(order.market, order)


def _load_result(state: State, row: list[Any]) -> Result:
    command = row[R_COMMAND] or state.orders[row[R_ORDER_ID]].command
    return (*row[:R_COMMAND], tuple(command))

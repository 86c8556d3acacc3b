"""Commands: plain tuples with named positions, since they pass the hot path and the journal by the million.

Every command starts with the same six values; what follows depends on its kind. The builders below are the only place
that knows the order. Quantities are lots, prices ticks, amounts smallest units, times nanoseconds since 1970 UTC; zero
or the empty string means "not given". Market and asset are the numbers that the engine gave them at creation.
"""

from __future__ import annotations

from typing import Any, Final

Command = tuple[Any, ...]

# Kinds
PLACE: Final = 1
CANCEL: Final = 2
REDUCE: Final = 3
REPLACE: Final = 4
CANCEL_ALL: Final = 5
MASS_CANCEL: Final = 6
CREDIT: Final = 7
HOLD: Final = 8
SETTLE_HOLD: Final = 9
RELEASE_HOLD: Final = 10
TRANSFER: Final = 11
CREATE_ASSET: Final = 12
CREATE_MARKET: Final = 13
UPDATE_MARKET: Final = 14
SET_MARKET_MODE: Final = 15
SET_SWITCH: Final = 16
SET_ACCOUNT_LIMITS: Final = 17
OPEN_SESSION: Final = 18
CLOSE_SESSION: Final = 19
EXPIRE_SESSION: Final = 20
ACTIVATE_RULES: Final = 21
HASH_BOOK: Final = 22
TICK: Final = 23
SET_RETENTION: Final = 24

# Positions shared by all kinds
C_KIND: Final = 0
C_ACCOUNT: Final = 1
C_SESSION: Final = 2  # session id, or ""
C_NUMBER: Final = 3  # number within the session, or 0
C_REQUEST_ID: Final = 4  # client order id of PLACE, request id of the others, or ""
C_REQUEST_TIME: Final = 5
C_BODY: Final = 6  # where the body starts: two commands ask the same if these are equal from here on

# PLACE
P_MARKET: Final = 6
P_SIDE: Final = 7
P_TYPE: Final = 8
P_TIF: Final = 9
P_POST_ONLY: Final = 10
P_STP: Final = 11
P_LOTS: Final = 12
P_PRICE: Final = 13
P_STOP: Final = 14
P_EXPIRE: Final = 15
# At the end of a PLACE, all three or none: see `keys.py`
P_KEY: Final = 16  # public id of the API key that sent it, or ""
P_KEY_MAX_OPEN: Final = 17  # open orders that the key may have
P_ACCOUNT_MAX_OPEN: Final = 18  # open orders that the account may have, unless an operator has set another limit

# CANCEL, REDUCE, REPLACE
X_ORDER_ID: Final = 6
X_CLIENT_ORDER_ID: Final = 7
X_LOTS: Final = 8  # REDUCE: to take off; REPLACE: new open quantity
X_PRICE: Final = 9  # REPLACE
X_EXPECTED_FILLED: Final = 10  # REPLACE; -1: do not check

# CANCEL_ALL: market or -1.  MASS_CANCEL: account or "", market or -1, and perhaps the API key whose orders alone it is of
A_MARKET: Final = 6
M_ACCOUNT: Final = 6
M_MARKET: Final = 7
M_KEY: Final = 8

# CREDIT, HOLD, TRANSFER: asset, amount, (other account).  SETTLE_HOLD, RELEASE_HOLD: hold id
F_ASSET: Final = 6
F_AMOUNT: Final = 7
F_TO: Final = 8
H_HOLD_ID: Final = 6


def place(
    account: str,
    market: int,
    side: int,
    order_type: int,
    lots: int,
    price: int,
    *,
    tif: int,
    post_only: bool = False,
    stp: int = 0,
    stop: int = 0,
    expire_ns: int = 0,
    client_order_id: str = "",
    session: str = "",
    number: int = 0,
    request_time_ns: int = 0,
    key: str = "",
    key_max_open: int = 0,
    account_max_open: int = 0,
) -> Command:
    """A new order. `price` is the limit, or the protection price of a MARKET order (0: the market's own)."""
    # Without them it is the command that it was before there were any, byte for byte.
    limits = (key, key_max_open, account_max_open) if key or account_max_open else ()
    return (
        PLACE,
        account,
        session,
        number,
        client_order_id,
        request_time_ns,
        market,
        side,
        order_type,
        tif,
        1 if post_only else 0,
        stp,
        lots,
        price,
        stop,
        expire_ns,
        *limits,
    )


def cancel(
    account: str,
    *,
    order_id: int = 0,
    client_order_id: str = "",
    session: str = "",
    number: int = 0,
    request_id: str = "",
    request_time_ns: int = 0,
) -> Command:
    """Cancel one order, named by either id."""
    return (CANCEL, account, session, number, request_id, request_time_ns, order_id, client_order_id)


def reduce(
    account: str,
    lots: int,
    *,
    order_id: int = 0,
    client_order_id: str = "",
    session: str = "",
    number: int = 0,
    request_id: str = "",
    request_time_ns: int = 0,
) -> Command:
    """Take lots off an open order, which keeps its place."""
    return (REDUCE, account, session, number, request_id, request_time_ns, order_id, client_order_id, lots)


def replace(
    account: str,
    lots: int,
    price: int,
    *,
    order_id: int = 0,
    client_order_id: str = "",
    expected_filled: int = -1,
    session: str = "",
    number: int = 0,
    request_id: str = "",
    request_time_ns: int = 0,
) -> Command:
    """Give an open order a new price and open quantity; whether it keeps its place depends on the rules."""
    return (
        REPLACE,
        account,
        session,
        number,
        request_id,
        request_time_ns,
        order_id,
        client_order_id,
        lots,
        price,
        expected_filled,
    )


def cancel_all(
    account: str,
    market: int = -1,
    *,
    session: str = "",
    number: int = 0,
    request_id: str = "",
    request_time_ns: int = 0,
) -> Command:
    """Cancel the account's open orders, in one market or (-1) in all."""
    return (CANCEL_ALL, account, session, number, request_id, request_time_ns, market)


def mass_cancel(operator: str, account: str, market: int = -1, *, key: str = "", request_id: str = "") -> Command:
    """Operator: cancel the open orders of an account ("": of all) in one market (-1: in all).

    With `key` those of the account that this API key placed. Only where `keys.are_known`: under rules that know no keys
    it would cancel those of the whole account, and none was placed by a key.
    """
    plain = (MASS_CANCEL, operator, "", 0, request_id, 0, account, market)
    return (*plain, key) if key else plain


def credit(account: str, asset: int, amount: int, *, request_id: str, request_time_ns: int = 0) -> Command:
    """Money comes in."""
    return (CREDIT, account, "", 0, request_id, request_time_ns, asset, amount)


def hold(account: str, asset: int, amount: int, *, request_id: str) -> Command:
    """A withdrawal sets money aside; `request_id` names the hold."""
    return (HOLD, account, "", 0, request_id, 0, asset, amount)


def settle_hold(account: str, hold_id: str, *, request_id: str) -> Command:
    """The money of a hold has left the exchange."""
    return (SETTLE_HOLD, account, "", 0, request_id, 0, hold_id)


def release_hold(account: str, hold_id: str, *, request_id: str) -> Command:
    """The money of a hold goes back to available."""
    return (RELEASE_HOLD, account, "", 0, request_id, 0, hold_id)


def transfer(account: str, to_account: str, asset: int, amount: int, *, request_id: str) -> Command:
    """From the available money of one account to another."""
    return (TRANSFER, account, "", 0, request_id, 0, asset, amount, to_account)


def create_asset(operator: str, code: str, decimals: int, *, request_id: str = "") -> Command:
    """A new asset; the engine numbers it."""
    return (CREATE_ASSET, operator, "", 0, request_id, 0, code, decimals)


def create_market(operator: str, definition: tuple[Any, ...], *, request_id: str = "") -> Command:
    """A new market; `definition` as `markets.Definition` lays it out."""
    return (CREATE_MARKET, operator, "", 0, request_id, 0, *definition)


def update_market(operator: str, market: int, changes: dict[int, int], *, request_id: str = "") -> Command:
    """New values for some of a market's rules, by their position in the definition."""
    flat = [item for pair in changes.items() for item in pair]
    return (UPDATE_MARKET, operator, "", 0, request_id, 0, market, *flat)


def set_market_mode(operator: str, market: int, mode: int, *, request_id: str = "") -> Command:
    """Open, cancel-only or halted."""
    return (SET_MARKET_MODE, operator, "", 0, request_id, 0, market, mode)


def set_switch(operator: str, switch: int, *, on: bool, request_id: str = "") -> Command:
    """Turn a switch of the whole exchange."""
    return (SET_SWITCH, operator, "", 0, request_id, 0, switch, 1 if on else 0)


def set_account_limits(operator: str, account: str, max_open_orders: int, *, request_id: str = "") -> Command:
    """How many open orders an account may have; 0: no limit."""
    return (SET_ACCOUNT_LIMITS, operator, "", 0, request_id, 0, account, max_open_orders)


def open_session(account: str, session: str, *, cancel_on_disconnect: bool, grace_ms: int, dead_man_ms: int) -> Command:
    """Open a session or attach to it again with new settings."""
    return (OPEN_SESSION, account, "", 0, "", 0, session, 1 if cancel_on_disconnect else 0, grace_ms, dead_man_ms)


def close_session(account: str, session: str) -> Command:
    """Its client ends it."""
    return (CLOSE_SESSION, account, "", 0, "", 0, session)


def expire_session(account: str, session: str) -> Command:
    """The leader ends it: connection lost beyond its grace, or dead-man timer run out."""
    return (EXPIRE_SESSION, account, "", 0, "", 0, session)


def activate_rules(operator: str, version: int) -> Command:
    """Rules of this version hold from the next command on: the present version or the next one."""
    return (ACTIVATE_RULES, operator, "", 0, "", 0, version)


def hash_book(market: int) -> Command:
    """Publish the hash of a market's book."""
    return (HASH_BOOK, "", "", 0, "", 0, market)


def tick() -> Command:
    """Nothing but time: expiries that are due, stop orders that wait."""
    return (TICK, "", "", 0, "", 0)


def set_retention(operator: str, max_ids: int, max_id_age_ns: int, max_finished_orders: int) -> Command:
    """How many ids, for how long, and how many finished orders the engine remembers."""
    return (SET_RETENTION, operator, "", 0, "", 0, max_ids, max_id_age_ns, max_finished_orders)

"""What operators set: assets, markets and their rules, switches, limits, retention, sessions, rules versions."""

from __future__ import annotations

from typing import Any, Final

from exchange.trading.core import admission, book
from exchange.trading.core.commands import C_BODY, C_SESSION, Command
from exchange.trading.core.constants import (
    CANCEL_DISCONNECTED,
    CANCEL_ONLY,
    HALTED,
    MAX_AMOUNT,
    MAX_ASSETS,
    MAX_FEE_PPM,
    MAX_LOTS,
    MAX_MARKETS,
    MAX_SESSIONS_PER_ACCOUNT,
    MAX_TICKS,
    OPEN,
    PPM,
    RULES_VERSION,
    SESSION_ATTACHED,
    SESSION_CLOSED,
    SESSION_EXPIRED,
    STP_CANCEL_BOTH,
    STP_NONE,
    SWITCH_ACCEPT_NEW_ORDERS,
    SWITCH_CIRCUIT_BREAKER,
    SWITCH_MAINTENANCE,
)
from exchange.trading.core.events import (
    ASSET_CREATED,
    BOOK_HASHED,
    LIMITS_CHANGED,
    MARKET_CHANGED,
    RULES_ACTIVATED,
    SESSION_CHANGED,
    SWITCHES_CHANGED,
    Event,
    Result,
)
from exchange.trading.core.funds import account_of, done
from exchange.trading.core.matching import cancel_open, forget_finished
from exchange.trading.core.model import Account, Asset, Market, Session, State
from exchange.trading.core.orders import reject_command
from exchange.trading.core.reasons import (
    ALREADY_EXISTS,
    DONE,
    INVALID_DEFINITION,
    RULES_NOT_SUPPORTED,
    SESSION_NOT_FOUND,
    TOO_MANY_OBJECTS,
    TOO_MANY_SESSIONS,
    UNKNOWN_ASSET,
    UNKNOWN_SYMBOL,
)

# A market's definition: positions of its values.
D_SYMBOL: Final = 0
D_BASE: Final = 1  # asset number
D_QUOTE: Final = 2  # asset number
D_TICK: Final = 3  # tick size in units of 10^-price_decimals
D_PRICE_DECIMALS: Final = 4
D_LOT: Final = 5  # lot size in smallest units of the base asset
D_MIN_LOTS: Final = 6
D_MAX_LOTS: Final = 7  # 0: the engine's bound
D_MIN_NOTIONAL: Final = 8
D_MAKER_PPM: Final = 9
D_TAKER_PPM: Final = 10
D_BAND_PPM: Final = 11
D_PROTECTION_PPM: Final = 12
D_DEFAULT_STP: Final = 13
D_REFERENCE: Final = 14  # ticks, 0: none

Definition = tuple[Any, ...]

MAX_ASSET_DECIMALS: Final = 12


def definition_of(market: Market) -> Definition:
    """A market's rules as they stand."""
    return (
        market.symbol,
        market.base,
        market.quote,
        market.tick,
        market.price_decimals,
        market.base_per_lot,
        market.min_lots,
        market.max_lots,
        market.min_notional,
        market.maker_ppm,
        market.taker_ppm,
        market.band_ppm,
        market.protection_ppm,
        market.default_stp,
        market.reference_price,
    )


def quote_units(state: State, definition: Definition) -> int:
    """Quote units of one lot at one tick; 0 if that is not a whole number."""
    base: Asset = state.assets[definition[D_BASE]]
    quote: Asset = state.assets[definition[D_QUOTE]]
    product: int = definition[D_TICK] * definition[D_LOT] * 10**quote.decimals
    divisor: int = 10 ** (definition[D_PRICE_DECIMALS] + base.decimals)
    return product // divisor if product % divisor == 0 else 0


def create_asset(state: State, command: Command, events: list[Event]) -> Result:
    """A new asset, numbered by the engine."""
    code: str = command[C_BODY]
    decimals: int = command[C_BODY + 1]
    reason = DONE
    if code in state.asset_index:
        reason = ALREADY_EXISTS
    elif not 0 <= decimals <= MAX_ASSET_DECIMALS or not code:
        reason = INVALID_DEFINITION
    elif len(state.assets) >= MAX_ASSETS:
        reason = TOO_MANY_OBJECTS
    if reason != DONE:
        return reject_command(state, command, reason, events, code)
    index = len(state.assets)
    state.assets.append(Asset(index, code, decimals))
    state.asset_index[code] = index
    events.append((ASSET_CREATED, index, code, decimals))
    return done(state, command, index)


def build_market(state: State, index: int, definition: Definition) -> Market:
    """A market of this definition, which has been checked."""
    market = Market(
        index,
        definition[D_SYMBOL],
        definition[D_BASE],
        definition[D_QUOTE],
        definition[D_LOT],
        quote_units(state, definition),
    )
    market.tick = definition[D_TICK]
    market.price_decimals = definition[D_PRICE_DECIMALS]
    _set_rules(market, definition)
    return market


def _set_rules(market: Market, definition: Definition) -> None:
    market.min_lots = definition[D_MIN_LOTS]
    market.max_lots = definition[D_MAX_LOTS]
    market.most_lots = min(market.max_lots or MAX_LOTS, MAX_AMOUNT // market.base_per_lot)
    market.min_notional = definition[D_MIN_NOTIONAL]
    market.maker_ppm = definition[D_MAKER_PPM]
    market.taker_ppm = definition[D_TAKER_PPM]
    market.band_ppm = definition[D_BAND_PPM]
    market.protection_ppm = definition[D_PROTECTION_PPM]
    market.default_stp = definition[D_DEFAULT_STP]
    market.reference_price = definition[D_REFERENCE]
    market.hold_ppm = max(market.maker_ppm, market.taker_ppm)
    admission.set_band(market)


def _definition_refusal(state: State, definition: Definition) -> int:
    """Whether a definition breaks a rule of money or of bounds."""
    for position in (D_BASE, D_QUOTE):
        if not 0 <= definition[position] < len(state.assets):
            return UNKNOWN_ASSET
    whole = (
        definition[D_BASE] != definition[D_QUOTE]
        and 0 < definition[D_TICK] <= MAX_AMOUNT
        and 0 < definition[D_LOT] <= MAX_AMOUNT
        and 0 <= definition[D_PRICE_DECIMALS] <= MAX_ASSET_DECIMALS
        and 0 < definition[D_MIN_LOTS] <= MAX_LOTS
        and (definition[D_MAX_LOTS] == 0 or definition[D_MIN_LOTS] <= definition[D_MAX_LOTS] <= MAX_LOTS)
        and 0 <= definition[D_MIN_NOTIONAL] <= MAX_AMOUNT
        and 0 <= definition[D_MAKER_PPM] <= MAX_FEE_PPM
        and 0 <= definition[D_TAKER_PPM] <= MAX_FEE_PPM
        and 0 <= definition[D_BAND_PPM] <= PPM
        and 0 <= definition[D_PROTECTION_PPM] <= PPM
        and STP_NONE <= definition[D_DEFAULT_STP] <= STP_CANCEL_BOTH
        and 0 <= definition[D_REFERENCE] <= MAX_TICKS
    )
    if not whole or not 0 < quote_units(state, definition) <= MAX_AMOUNT:
        return INVALID_DEFINITION
    return DONE


def create_market(state: State, command: Command, events: list[Event]) -> Result:
    """A new market, open at once, numbered by the engine."""
    definition: Definition = command[C_BODY:]
    symbol: str = definition[D_SYMBOL]
    reason = DONE
    if symbol in state.market_index:
        reason = ALREADY_EXISTS
    elif len(state.markets) >= MAX_MARKETS:
        reason = TOO_MANY_OBJECTS
    else:
        reason = _definition_refusal(state, definition)
    if reason != DONE:
        return reject_command(state, command, reason, events, symbol)
    index = len(state.markets)
    state.markets.append(build_market(state, index, definition))
    state.market_index[symbol] = index
    admission.set_entry(state)
    events.append((MARKET_CHANGED, index, OPEN, definition))
    return done(state, command, index)


def update_market(state: State, command: Command, events: list[Event]) -> Result:
    """New values for fees, limits, bands, protection, default self-trade prevention; tick and lot stay for ever."""
    index: int = command[C_BODY]
    if not 0 <= index < len(state.markets):
        return reject_command(state, command, UNKNOWN_SYMBOL, events)
    market = state.markets[index]
    values = list(definition_of(market))
    for at in range(C_BODY + 1, len(command) - 1, 2):
        position: int = command[at]
        if not D_MIN_LOTS <= position <= D_DEFAULT_STP:
            return reject_command(state, command, INVALID_DEFINITION, events, market.symbol)
        values[position] = command[at + 1]
    definition = tuple(values)
    reason = _definition_refusal(state, definition)
    if reason != DONE:
        return reject_command(state, command, reason, events, market.symbol)
    _set_rules(market, definition)
    events.append((MARKET_CHANGED, index, market.mode, definition))
    return done(state, command, index)


def set_market_mode(state: State, command: Command, events: list[Event]) -> Result:
    """Open, cancel-only or halted; said again even if it was so already."""
    index: int = command[C_BODY]
    mode: int = command[C_BODY + 1]
    if not 0 <= index < len(state.markets):
        return reject_command(state, command, UNKNOWN_SYMBOL, events)
    market = state.markets[index]
    if mode not in (OPEN, CANCEL_ONLY, HALTED):
        return reject_command(state, command, INVALID_DEFINITION, events, market.symbol)
    market.mode = mode
    admission.set_entry(state)
    events.append((MARKET_CHANGED, index, mode, definition_of(market)))
    return done(state, command, index)


def set_switch(state: State, command: Command, events: list[Event]) -> Result:
    """Turn a switch of the whole exchange."""
    switch: int = command[C_BODY]
    on = command[C_BODY + 1] == 1
    if switch == SWITCH_ACCEPT_NEW_ORDERS:
        state.accept_new_orders = on
    elif switch == SWITCH_MAINTENANCE:
        state.maintenance = on
    elif switch == SWITCH_CIRCUIT_BREAKER:
        state.circuit_breaker = on
    else:
        return reject_command(state, command, INVALID_DEFINITION, events)
    admission.set_entry(state)
    events.append((SWITCHES_CHANGED, state.accept_new_orders, state.maintenance, state.circuit_breaker))
    return done(state, command)


def set_account_limits(state: State, command: Command, events: list[Event]) -> Result:
    """How many open orders an account may have; 0: no limit."""
    name: str = command[C_BODY]
    limit: int = command[C_BODY + 1]
    if limit < 0:
        return reject_command(state, command, INVALID_DEFINITION, events, name)
    account_of(state, name).max_open_orders = limit
    events.append((LIMITS_CHANGED, name, limit))
    return done(state, command)


def set_retention(state: State, command: Command, events: list[Event]) -> Result:
    """How much the engine remembers; ids beyond it go as new ones come."""
    max_ids, max_age, max_finished = command[C_BODY], command[C_BODY + 1], command[C_BODY + 2]
    if max_ids <= 0 or max_age <= 0 or max_finished <= 0:
        return reject_command(state, command, INVALID_DEFINITION, events)
    state.max_ids = max_ids
    state.max_id_age_ns = max_age
    state.max_finished_orders = max_finished
    forget_finished(state)
    return done(state, command)


def activate_rules(state: State, command: Command, events: list[Event]) -> Result:
    """Rules of this version from the next command on: one version at a time, and never back.

    What is refused here must be the same in every build that will ever replay the journal, so it cannot depend on what
    this build knows. The service refuses versions that some replica does not know before they are journaled; a command
    that comes here all the same was accepted by a newer build, and this one must stop.
    """
    version: int = command[C_BODY]
    if not state.rules_version <= version <= state.rules_version + 1:
        return reject_command(state, command, RULES_NOT_SUPPORTED, events)
    assert version <= RULES_VERSION, f"rules {version} were activated, this build knows 1 to {RULES_VERSION}"
    state.rules_version = version
    events.append((RULES_ACTIVATED, version))
    return done(state, command)


def hash_book(state: State, command: Command, events: list[Event]) -> Result:
    """Publish the hash of a market's book."""
    index: int = command[C_BODY]
    if not 0 <= index < len(state.markets):
        return reject_command(state, command, UNKNOWN_SYMBOL, events)
    events.append((BOOK_HASHED, index, book.book_hash(state.markets[index])))
    return done(state, command)


# --- sessions ---


def open_session(state: State, account: Account, command: Command, events: list[Event]) -> Result:
    """Open a session, or attach to it again with new settings; the count of the result is its last number."""
    name: str = command[C_BODY]
    session = account.sessions.get(name)
    if session is None:
        if len(account.sessions) >= MAX_SESSIONS_PER_ACCOUNT:
            return reject_command(state, command, TOO_MANY_SESSIONS, events, name)
        session = account.sessions[name] = Session(name, 0, 0, cancel_on_disconnect=False)
    session.cancel_on_disconnect = command[C_BODY + 1] == 1
    session.grace_ms = command[C_BODY + 2]
    session.dead_man_ms = command[C_BODY + 3]
    events.append((SESSION_CHANGED, account.name, name, SESSION_ATTACHED))
    return done(state, command, session.last_number)


def end_session(state: State, account: Account, command: Command, events: list[Event], *, expired: bool) -> Result:
    """End a session for good; with cancel-on-disconnect or a dead-man timer its open orders are cancelled. The count of
    the result says how many.
    """
    name: str = command[C_BODY]
    session = account.sessions.pop(name, None)
    if session is None:
        return reject_command(state, command, SESSION_NOT_FOUND, events, name)
    count = 0
    if session.cancel_on_disconnect or (expired and session.dead_man_ms):
        for order in list(account.orders.values()):
            if order.command[C_SESSION] == name:
                cancel_open(state, order, CANCEL_DISCONNECTED, events)
                count += 1
    events.append((SESSION_CHANGED, account.name, name, SESSION_EXPIRED if expired else SESSION_CLOSED))
    return done(state, command, count)

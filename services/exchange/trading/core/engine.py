"""The engine: one command in, its events and its result out."""

from __future__ import annotations

from typing import Any

from exchange.trading.core import book, funds, memory, orders, registry, snapshot, stops, timers
from exchange.trading.core.commands import (
    ACTIVATE_RULES,
    C_ACCOUNT,
    C_KIND,
    C_REQUEST_ID,
    C_SESSION,
    CANCEL,
    CANCEL_ALL,
    CLOSE_SESSION,
    CREATE_ASSET,
    CREATE_MARKET,
    CREDIT,
    EXPIRE_SESSION,
    HASH_BOOK,
    HOLD,
    MASS_CANCEL,
    OPEN_SESSION,
    PLACE,
    REDUCE,
    RELEASE_HOLD,
    REPLACE,
    SET_ACCOUNT_LIMITS,
    SET_MARKET_MODE,
    SET_RETENTION,
    SET_SWITCH,
    SETTLE_HOLD,
    TICK,
    TRANSFER,
    UPDATE_MARKET,
    Command,
)
from exchange.trading.core.constants import CANCEL_EXPIRED, FEE_ACCOUNT, MAX_ACCOUNTS
from exchange.trading.core.events import Event, Result
from exchange.trading.core.matching import cancel_open
from exchange.trading.core.model import Account, State
from exchange.trading.core.reasons import TOO_MANY_OBJECTS


class Engine:
    """A pure state machine: the same commands give the same events, results and hashes, everywhere and always."""

    def __init__(self) -> None:
        self.state = State()
        self.result: Result = ()

    def recall(self, command: Command) -> Result | None:
        """The answer to a command that must not be applied: a repeat, or one that ids and sessions forbid."""
        return memory.recall(self.state, command)

    def apply(self, sequence: int, time_ns: int, command: Command) -> list[Event]:
        """Apply one command; `self.result` is then what its caller is told.

        `sequence` is the one after the last; `time_ns` before the last time counts as the last time. The caller has
        asked `recall` first. Raises AssertionError for a broken invariant, after which the state must not be used.
        """
        state = self.state
        assert sequence == state.sequence + 1, "commands come in sequence"
        state.sequence = sequence
        if time_ns > state.time_ns:  # noqa: PLR1730 - `max` takes three times as long
            state.time_ns = time_ns
        events: list[Event] = []
        if state.timers and state.timers[0][0] <= state.time_ns:
            self._expire(events)
        kind: int = command[C_KIND]
        name: str = command[C_ACCOUNT]
        account = state.accounts.get(name)
        if account is None:
            # Nobody ticks: the exchange's own account stands in.
            if name and len(state.accounts) >= MAX_ACCOUNTS:
                self.result = orders.reject_command(state, command, TOO_MANY_OBJECTS, events)
                return events
            account = funds.account_of(state, name or FEE_ACCOUNT)
        if kind == PLACE:
            result = orders.place(state, account, command, events)
        elif kind == CANCEL:
            result = orders.cancel(state, account, command, events)
        elif kind == REDUCE:
            result = orders.reduce(state, account, command, events)
        elif kind == REPLACE:
            result = orders.replace(state, account, command, events)
        else:
            result = self._apply_rare(kind, account, command, events)
        if state.stirred:
            self._wake(events)
        self.result = result
        request_id: str = command[C_REQUEST_ID]
        session: str = command[C_SESSION]
        if request_id or session:
            memory.remember(state, account, command, result)
        return events

    def _apply_rare(self, kind: int, account: Account, command: Command, events: list[Event]) -> Result:
        state = self.state
        if kind == CANCEL_ALL:
            return orders.cancel_all(state, account, command, events)
        if kind == MASS_CANCEL:
            return orders.mass_cancel(state, command, events)
        if kind == CREDIT:
            return funds.credit(state, account, command, events)
        if kind == HOLD:
            return funds.hold(state, account, command, events)
        if kind == SETTLE_HOLD:
            return funds.settle_hold(state, account, command, events)
        if kind == RELEASE_HOLD:
            return funds.release_hold(state, account, command, events)
        if kind == TRANSFER:
            return funds.transfer(state, account, command, events)
        if kind == OPEN_SESSION:
            return registry.open_session(state, account, command, events)
        if kind == CLOSE_SESSION:
            return registry.end_session(state, account, command, events, expired=False)
        if kind == EXPIRE_SESSION:
            return registry.end_session(state, account, command, events, expired=True)
        if kind == CREATE_ASSET:
            return registry.create_asset(state, command, events)
        if kind == CREATE_MARKET:
            return registry.create_market(state, command, events)
        if kind == UPDATE_MARKET:
            return registry.update_market(state, command, events)
        if kind == SET_MARKET_MODE:
            return registry.set_market_mode(state, command, events)
        if kind == SET_SWITCH:
            return registry.set_switch(state, command, events)
        if kind == SET_ACCOUNT_LIMITS:
            return registry.set_account_limits(state, command, events)
        if kind == SET_RETENTION:
            return registry.set_retention(state, command, events)
        if kind == ACTIVATE_RULES:
            return registry.activate_rules(state, command, events)
        if kind == HASH_BOOK:
            return registry.hash_book(state, command, events)
        assert kind == TICK, f"unknown command kind {kind}"
        return funds.done(state, command)

    def _expire(self, events: list[Event]) -> None:
        """Cancel the GTD orders whose time has come, before the command."""
        order = timers.next_due(self.state)
        while order is not None:
            cancel_open(self.state, order, CANCEL_EXPIRED, events)
            order = timers.next_due(self.state)

    def _wake(self, events: list[Event]) -> None:
        """Stop orders behind a command that has traded, or while some wait their turn."""
        state = self.state
        if state.traded is not None:
            stops.collect(state, state.traded)
            state.traded = None
        if state.triggered and stops.may_run(state):
            stops.run(state, events)
        state.stirred = bool(state.triggered)
        state.trades = 0

    def due_ns(self) -> int:
        """Engine time at which a tick has something to do; 0: now; -1: never."""
        state = self.state
        if state.triggered and stops.may_run(state):
            return 0
        return timers.next_ns(state)

    def snapshot(self) -> list[Any]:
        """The whole state as nested lists and tuples of integers, strings and booleans."""
        return snapshot.dump(self.state)

    def state_hash(self) -> str:
        """SHA-256 over the whole canonical state: equal states and only equal states have equal hashes."""
        return snapshot.hash_of(snapshot.dump(self.state))

    def book_hash(self, symbol: str) -> str:
        """Hash of one market's book. Raises KeyError for an unknown symbol."""
        return book.book_hash(self.state.markets[self.state.market_index[symbol]])

    @staticmethod
    def restore(dumped: list[Any]) -> Engine:
        """An engine in the state that `snapshot` dumped, a round trip through msgpack included."""
        engine = Engine()
        engine.state = snapshot.load(dumped)
        return engine

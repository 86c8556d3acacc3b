"""The core and the naive exchange side by side: one pair takes each command, and every difference is an error."""

from __future__ import annotations

from typing import Any

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core import events as ev
from exchange.trading.core.book import book_hash, hash_orders
from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import Event, Result
from exchange.trading.core.invariants import check_market, check_money
from tests.reference.naive_exchange import Happening, NaiveExchange
from tests.reference.naive_rules import Definition

OPERATOR = "operator"


def meaning(event: Event) -> Happening | None:
    """A core event as the naive exchange tells it; None for those that it does not tell."""
    kind = event[ev.E_KIND]
    if kind == ev.ORDER_ACCEPTED:
        return ("accepted", event[ev.O_ORDER_ID], event[ev.O_PRICE], event[ev.OA_HELD])
    if kind == ev.ORDER_REJECTED:
        return ("refused", event[ev.OR_REASON])
    if kind == ev.COMMAND_REJECTED:
        return ("refused", event[ev.CR_REASON])
    if kind == ev.TRADE:
        ids = (event[ev.T_MAKER_ORDER], event[ev.T_TAKER_ORDER])
        return ("trade", *ids, event[ev.T_PRICE], event[ev.T_LOTS], event[ev.T_MAKER_FEE], event[ev.T_TAKER_FEE])
    if kind == ev.ORDER_CANCELLED:
        return ("cancelled", event[ev.O_ORDER_ID], event[ev.OC_LOTS], event[ev.OC_REASON])
    if kind == ev.ORDER_REDUCED:
        return ("reduced", event[ev.O_ORDER_ID], event[ev.OD_REDUCED], event[ev.OD_OPEN])
    if kind == ev.ORDER_REPLACED:
        return ("replaced", event[ev.O_ORDER_ID], event[ev.O_PRICE], event[ev.OP_OPEN])
    if kind == ev.ORDER_TRIGGERED:
        return ("triggered", event[ev.O_ORDER_ID])
    return None


class Pair:
    """Both exchanges with the same assets and markets. `send` is the only way in, and compares after each command."""

    def __init__(self, definitions: list[Definition], assets: int = 3) -> None:
        self.engine = Engine()
        self.naive = NaiveExchange(definitions, assets)
        self.sequence = 0
        self.time = 1_000_000
        for number in range(assets):
            self._both_operate(cmd.create_asset(OPERATOR, f"A{number}A", 0))
        for number, definition in enumerate(definitions):
            self._both_operate(cmd.create_market(OPERATOR, core_definition(f"M{number}M", definition)))

    def _both_operate(self, command: Command) -> None:
        """What the naive exchange is told at its making."""
        self.sequence += 1
        self.engine.apply(self.sequence, self.time, command)
        assert self.engine.result[ev.R_REASON] == 0, self.engine.result

    def activate(self, rules: int) -> None:
        """Have both go on under these rules; they are activated one version at a time."""
        for version in range(1, rules + 1):
            assert self.send(cmd.activate_rules(OPERATOR, version))[ev.R_REASON] == 0

    def send(self, command: Command) -> Result:
        """Give both a command; they must answer, tell and stand alike."""
        known = self.engine.recall(command)
        assert known == self.naive.recall(command)
        if known is not None:
            return known
        self.sequence += 1
        events = self.engine.apply(self.sequence, self.time, command)
        happened = self.naive.apply(self.sequence, self.time, command)
        assert [told for told in map(meaning, events) if told] == happened
        assert self.engine.result == self.naive.result
        self.check()
        return self.engine.result

    def check(self) -> None:
        """Books, stop orders and balances are equal, and every invariant holds."""
        state, naive = self.engine.state, self.naive
        for market in state.markets:
            assert book_hash(market) == hash_orders(naive.rows(market.index))
            assert market.stop_buys == naive.sleepers(market.index, c.BUY)
            assert market.stop_sells == naive.sleepers(market.index, c.SELL)
            assert_holds(check_market(state, market))
        assert [order.order_id for order in state.triggered] == [order.order_id for order in naive.queue]
        assert [asset.supply for asset in state.assets] == naive.supply
        for name, account in state.accounts.items():
            for asset in range(len(state.assets)):
                balance = account.balances.get(asset)
                stands = (balance.available, balance.held) if balance is not None else (0, 0)
                assert stands == (naive.available(name, asset), naive.held(name, asset)), (name, asset)
        assert_holds(check_money(state))

    def restart(self) -> None:
        """Go on from a snapshot."""
        before = self.engine.state_hash()
        self.engine = Engine.restore(self.engine.snapshot())
        assert self.engine.state_hash() == before


def assert_holds(findings: list[tuple[str, bool, str]]) -> None:
    """Every invariant holds."""
    assert [finding for finding in findings if not finding[1]] == []


def core_definition(symbol: str, definition: Definition) -> tuple[Any, ...]:
    """A naive definition as CREATE_MARKET takes it, of assets without decimals: tick x lot is `unit`."""
    tick, rest = divmod(definition.unit, definition.lot)
    assert rest == 0, "a whole tick, please"
    d = definition
    rules = (d.min_lots, d.max_lots, d.min_notional, d.maker_ppm, d.taker_ppm, d.band_ppm, d.protection_ppm)
    return (symbol, d.base, d.quote, tick, 0, d.lot, *rules, d.stp, d.reference)

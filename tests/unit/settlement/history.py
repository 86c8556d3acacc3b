"""Random histories of a small exchange: the core makes them, settlement's books take their events off the wire."""

from __future__ import annotations

import random
from typing import Any

from exchange.settlement.ledger import chart
from exchange.settlement.ledger.books import Books
from exchange.settlement.service.intake import Intake
from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core import events as ev
from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine
from exchange.trading.feeds.balances import moves
from exchange.trading.service.event_messages import EventTranslator
from exchange.trading.service.units import MarketUnits
from pincex.journal.v1 import event_service_pb2 as pb

ACCOUNTS = ("ann", "bob", "cy", "$desk")
ASSETS = (("BTC", 8), ("USD", 2), ("ETH", 6))
# BTC and ETH against USD, ETH against BTC: lots and ticks of several scales, fees both ways of rounding.
MARKETS = (
    ("BTCUSD", 0, 1, 1, 2, 100_000_000, 1, 0, 0, 1_000, 2_500, 0, 100_000, c.STP_CANCEL_NEWEST, 0),
    ("ETHUSD", 2, 1, 5, 1, 100_000, 1, 0, 0, 0, 700, 0, 100_000, c.STP_NONE, 0),
    ("ETHBTC", 2, 0, 1, 4, 10_000, 1, 0, 0, 100, 100, 0, 100_000, c.STP_NONE, 0),
)


class Wire:
    """Stands for the desk that a translator asks for scales."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def state(self) -> Any:
        return self.engine.state

    def units(self, index: int) -> MarketUnits:
        return MarketUnits(self.engine.state, self.engine.state.markets[index])

    def market(self, symbol: str) -> tuple[Any, MarketUnits]:
        index = self.engine.state.market_index[symbol]
        return self.engine.state.markets[index], self.units(index)


class History:
    """An engine, and the books that follow it frame by frame. `moved` sums `balances.moves` by (account, asset)."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.engine = Engine()
        self.books = Books()
        self.intake = Intake(self.books)
        self.translator = EventTranslator(Wire(self.engine))  # type: ignore[arg-type]
        self.moved: dict[tuple[str, str], list[int]] = {}
        self.time_ns = 1_700_000_000 * 10**9
        self.trades = 0
        self.holds: list[tuple[str, str]] = []
        for code, decimals in ASSETS:
            self.send(cmd.create_asset("operator", code, decimals))
        for market in MARKETS:
            self.send(cmd.create_market("operator", market))
        for account in ACCOUNTS:
            for asset in range(len(ASSETS)):
                self.send(cmd.credit(account, asset, 10**12, request_id=f"deposit:sim:{account}-{asset}"))

    def send(self, *commands: Command) -> pb.EventBatch:
        """One frame of these commands; the books take it."""
        self.time_ns += self.random.randrange(0, 3_000_000)
        engine, frame = self.engine, pb.EventBatch(prev_sequence=self.engine.state.sequence)
        for command in commands:
            if engine.recall(command) is not None:
                continue
            sequence = engine.state.sequence + 1
            for index, event in enumerate(engine.apply(sequence, self.time_ns, command)):
                self.translator.fill(frame.events.add(), event, sequence, index, self.time_ns)
                self.trades += event[ev.E_KIND] == ev.TRADE
                for account, asset, available, held in moves(event, engine.state.markets):
                    pair = self.moved.setdefault((account, engine.state.assets[asset].code), [0, 0])
                    pair[0] += available
                    pair[1] += held
        frame.first_sequence, frame.last_sequence = frame.prev_sequence + 1, engine.state.sequence
        self.intake.take(frame)
        return frame

    def play(self, frames: int) -> None:
        """Random frames of 1 to 4 commands."""
        for _ in range(frames):
            self.send(*(self.command() for _ in range(self.random.randint(1, 4))))

    def command(self) -> Command:
        """Any that moves money, often one that is refused."""
        pick, account = self.random, self.random.choice(ACCOUNTS)
        number = f"r{pick.randrange(10**9)}"
        kind = pick.random()
        if kind < 0.55:
            return self._order(account)
        if kind < 0.8 and self.engine.state.orders:
            return self._change(account)
        asset, amount = pick.randrange(len(ASSETS)), pick.choice((1, 99, 10**6, 10**11, 10**13))
        if kind < 0.85:
            return cmd.credit(account, asset, amount, request_id=pick.choice((number, f"deposit:sim:{number}")))
        if kind < 0.9:
            name = pick.choice((number, f"withdrawal:sim:{number}"))
            self.holds.append((account, name))
            return cmd.hold(account, asset, amount, request_id=name)
        if kind < 0.95 and self.holds:
            holder, name = pick.choice(self.holds)
            end = pick.choice((cmd.settle_hold, cmd.release_hold))
            return end(holder, name, request_id=number)
        taker = pick.choice([other for other in (*ACCOUNTS, "$suspense", "$fees") if other != account])
        return cmd.transfer(account, taker, asset, amount, request_id=number)

    def _order(self, account: str) -> Command:
        pick, market = self.random, self.random.randrange(len(MARKETS))
        kind = pick.choices((c.LIMIT, c.MARKET, c.STOP, c.STOP_LIMIT), (8, 1, 1, 1))[0]
        price = pick.randint(95, 105) if kind in (c.LIMIT, c.STOP_LIMIT) else 0
        stop = pick.randint(90, 110) if kind in (c.STOP, c.STOP_LIMIT) else 0
        tif = pick.choice((c.GTC, c.GTC, c.IOC, c.FOK)) if kind == c.LIMIT else c.GTC if price else c.IOC
        side, lots = pick.choice((c.BUY, c.SELL)), pick.choice((1, 3, 7, 10**5))
        return cmd.place(account, market, side, kind, lots, price, tif=tif, stop=stop, stp=pick.choice((0, 1, 2, 3, 4)))

    def _change(self, account: str) -> Command:
        pick = self.random
        order = pick.choice(list(self.engine.state.orders.values())[-40:])
        number = f"c{pick.randrange(10**9)}"
        kind = pick.random()
        if kind < 0.4:
            return cmd.cancel(order.account.name, order_id=order.order_id, request_id=number)
        if kind < 0.6:
            return cmd.reduce(order.account.name, pick.choice((1, 2)), order_id=order.order_id, request_id=number)
        if kind < 0.95:
            lots, price = pick.choice((1, 4, 9)), pick.randint(95, 105)
            return cmd.replace(order.account.name, lots, price, order_id=order.order_id, request_id=number)
        return cmd.cancel_all(account, request_id=number)

    def engine_balances(self) -> dict[tuple[str, str], tuple[int, int]]:
        """What is not zero, as the engine has it."""
        state = self.engine.state
        return {
            (name, state.assets[asset].code): (balance.available, balance.held)
            for name, account in state.accounts.items()
            for asset, balance in account.balances.items()
            if balance.available or balance.held
        }

    def ledger_balances(self) -> dict[tuple[str, str], tuple[int, int]]:
        """The same of the books."""
        names = {number: name for name, number in self.books.accounts.items()}
        found: dict[tuple[str, str], list[int]] = {}
        for (number, asset, kind), amount in self.books.balances.items():
            if kind not in chart.DEBIT_KINDS:
                found.setdefault((names[number], asset), [0, 0])[kind == chart.HELD] += amount
        return {place: (pair[0], pair[1]) for place, pair in found.items() if any(pair)}

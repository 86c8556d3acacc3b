"""A second, simple implementation of the exchange's rules, to compare the core with.

Nothing here is fast or clever: one list of orders, sorted whenever an order is looked for; fees and holds worked out from
the list of fills each time somebody asks; balances are what came in and traded, less what open orders need. It shares
with the core the command tuples, the result tuples and the numbers of `constants` and `reasons`, and no code.

`apply` answers what happened, as short tuples (see `meaning` in `tests/reference/compare.py`, which reads the core's
events as the same).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import Any

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core import reasons as r
from tests.reference import naive_rules as rules
from tests.reference.naive_rules import Definition

Happening = tuple[Any, ...]


@dataclass(eq=False)
class NaiveOrder:
    """One order. `fills` holds (notional, fee rate) of each."""

    order_id: int
    account: str
    market: int
    command: tuple[Any, ...]
    side: int
    price: int
    open: int
    rates: tuple[int, int]
    place: str = "new"  # new, resting, asleep, waiting, gone
    arrival: int = 0
    filled: int = 0
    status: int = c.PENDING
    reason: int = 0
    fills: list[tuple[int, int]] = field(default_factory=list)

    @property
    def notional(self) -> int:
        return sum(notional for notional, _ in self.fills)

    @property
    def exact_fee(self) -> Fraction:
        return sum((Fraction(notional * rate, c.PPM) for notional, rate in self.fills), Fraction(0))

    @property
    def fee(self) -> int:
        return ceil(self.exact_fee)

    def needs(self, definition: Definition, price: int, lots: int) -> int:
        """What the order must hold to trade `lots` at `price`."""
        if self.side == c.SELL:
            return lots * definition.lot
        notional = price * lots * definition.unit
        return notional + ceil(self.exact_fee + Fraction(notional * max(self.rates), c.PPM)) - self.fee


def asked(command: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a command asks for, whoever sends it and by which key."""
    return (command[0], *command[cmd.C_BODY : cmd.P_KEY if command[0] == cmd.PLACE else None])


class NaiveExchange:
    """Takes the commands of the core, one after another."""

    def __init__(self, definitions: list[Definition], assets: int) -> None:
        self.markets = definitions
        self.assets = assets
        self.sequence = 0
        self.time = 0
        self.total: dict[tuple[str, int], int] = {}
        self.supply = [0] * assets
        self.holds: dict[tuple[str, str], tuple[int, int]] = {}
        self.orders: dict[int, NaiveOrder] = {}
        self.gone: list[int] = []
        self.queue: list[NaiveOrder] = []
        self.known: dict[tuple[str, bool, str], tuple[Any, ...]] = {}
        self.switches = {"accept": True, "maintenance": False, "breaker": False}
        self.rules = 1
        self.limits: dict[str, int] = {}
        self.max_gone = 200_000
        self.arrivals = 0
        self.traded = -1
        self.happened: list[Happening] = []
        self.result: tuple[Any, ...] = ()

    # --- what can be asked ---

    def open_orders(self, market: int = -1, account: str = "") -> list[NaiveOrder]:
        return [
            order
            for order in self.orders.values()
            if order.open and market in (-1, order.market) and account in ("", order.account)
        ]

    def resting(self, market: int, side: int) -> list[NaiveOrder]:
        """One side of a book in priority."""
        found = [order for order in self.open_orders(market) if order.side == side and order.place == "resting"]
        sign = -1 if side == c.BUY else 1
        return sorted(found, key=lambda order: (sign * order.price, order.arrival))

    def rows(self, market: int) -> list[tuple[int, int, int, int]]:
        """The book as `hash_orders` takes it."""
        return [
            (side, order.price, order.order_id, order.open)
            for side in (c.BUY, c.SELL)
            for order in self.resting(market, side)
        ]

    def sleepers(self, market: int, side: int) -> list[tuple[int, int]]:
        """(trigger, order id) of sleeping stop orders, the next to wake first."""
        sign = 1 if side == c.BUY else -1
        asleep = [order for order in self.open_orders(market) if order.place == "asleep" and order.side == side]
        return sorted((sign * order.command[cmd.P_STOP], order.order_id) for order in asleep)

    def held(self, account: str, asset: int) -> int:
        held = sum(amount for (owner, _), (kind, amount) in self.holds.items() if (owner, kind) == (account, asset))
        for order in self.open_orders(account=account):
            definition = self.markets[order.market]
            if asset == (definition.quote if order.side == c.BUY else definition.base):
                held += order.needs(definition, order.price, order.open)
        return held

    def available(self, account: str, asset: int) -> int:
        return self.total.get((account, asset), 0) - self.held(account, asset)

    def recall(self, command: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The answer to a repeat."""
        first = self.known.get((command[cmd.C_ACCOUNT], command[0] == cmd.PLACE, command[cmd.C_REQUEST_ID]))
        if first is None or not command[cmd.C_REQUEST_ID]:
            return None
        if asked(first[12]) == asked(command):
            return first
        return self._plain(command, r.DUPLICATE_ID)

    # --- commands ---

    def apply(self, sequence: int, time: int, command: tuple[Any, ...]) -> list[Happening]:
        self.sequence = sequence
        self.time = max(self.time, time)
        self.happened = []
        self.traded = -1
        self._expire()
        handler = {
            cmd.PLACE: self._place,
            cmd.CANCEL: self._cancel,
            cmd.REDUCE: self._reduce,
            cmd.REPLACE: self._replace,
            cmd.CANCEL_ALL: self._cancel_all,
            cmd.MASS_CANCEL: self._mass_cancel,
            cmd.CREDIT: self._move_money,
            cmd.HOLD: self._move_money,
            cmd.TRANSFER: self._move_money,
            cmd.SETTLE_HOLD: self._end_hold,
            cmd.RELEASE_HOLD: self._end_hold,
        }.get(command[0], self._operate)
        self.result = handler(command)
        self._wake()
        if command[cmd.C_REQUEST_ID]:
            key = (command[cmd.C_ACCOUNT], command[0] == cmd.PLACE, command[cmd.C_REQUEST_ID])
            self.known[key] = self.result
        return self.happened

    def _plain(self, command: tuple[Any, ...], reason: int = 0, count: int = 0) -> tuple[Any, ...]:
        return (self.sequence, self.time, reason, 0, 0, 0, 0, 0, 0, 0, 0, count, command)

    def _standing(self, order: NaiveOrder, command: tuple[Any, ...]) -> tuple[Any, ...]:
        stands = (order.order_id, order.status, order.open, order.filled, order.notional, order.fee, order.price)
        return (self.sequence, self.time, r.DONE, *stands, order.reason, 0, command)

    def _refused(self, command: tuple[Any, ...], reason: int) -> tuple[Any, ...]:
        self.happened.append(("refused", reason))
        return self._plain(command, reason)

    def _place(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        reason, price = rules.place_refusal(self, command)
        if reason:
            return self._refused(command, reason)
        market, side, lots = command[cmd.P_MARKET], command[cmd.P_SIDE], command[cmd.P_LOTS]
        definition = self.markets[market]
        account = command[cmd.C_ACCOUNT]
        order = NaiveOrder(self.sequence, account, market, command, side, price, lots, definition.rates)
        asset = definition.quote if side == c.BUY else definition.base
        if order.needs(definition, price, lots) > self.available(account, asset):
            return self._refused(command, r.INSUFFICIENT_FUNDS)
        self.orders[order.order_id] = order
        self.happened.append(("accepted", order.order_id, price, order.needs(definition, price, lots)))
        if command[cmd.P_STOP]:
            order.place = "asleep"
        else:
            self._execute(order)
        return self._standing(order, command)

    def _execute(self, taker: NaiveOrder) -> None:
        """Match, then rest or end."""
        taker.place = "new"
        stopped = False
        definition = self.markets[taker.market]
        stp = taker.command[cmd.P_STP] or definition.stp
        while taker.open and not stopped:
            facing = self.resting(taker.market, 3 - taker.side)
            if not facing or not rules.meets(taker.side, taker.price, facing[0].price):
                break
            maker = facing[0]
            if stp != c.STP_NONE and maker.account == taker.account:
                if stp in (c.STP_CANCEL_OLDEST, c.STP_CANCEL_BOTH):
                    self._end(maker, c.CANCEL_SELF_TRADE)
                stopped = stp in (c.STP_CANCEL_NEWEST, c.STP_CANCEL_BOTH)
            else:
                self._trade(maker, taker)
        if taker.open == 0:
            return
        taker.status = c.PARTIAL if taker.filled else c.PENDING
        rests = taker.command[cmd.P_TIF] in (c.GTC, c.GTD) and taker.command[cmd.P_TYPE] in (c.LIMIT, c.STOP_LIMIT)
        if stopped:
            self._end(taker, c.CANCEL_SELF_TRADE)
        elif rests:
            self.arrivals += 1
            taker.arrival = self.arrivals
            taker.place = "resting"
        else:
            self._end(taker, c.CANCEL_REMAINDER)

    def _trade(self, maker: NaiveOrder, taker: NaiveOrder) -> None:
        definition = self.markets[taker.market]
        lots = min(maker.open, taker.open)
        notional = maker.price * lots * definition.unit
        fees = []
        for order, rate in ((maker, maker.rates[0]), (taker, taker.rates[1])):
            before = order.fee
            order.fills.append((notional, rate))
            fees.append(order.fee - before)
            order.open -= lots
            order.filled += lots
            order.status = c.PARTIAL if order.open else c.FILLED
            to_buyer = 1 if order.side == c.BUY else -1
            self._pay(order.account, definition.base, to_buyer * lots * definition.lot)
            self._pay(order.account, definition.quote, -to_buyer * notional - fees[-1])
        self._pay(c.FEE_ACCOUNT, definition.quote, sum(fees))
        definition.last = maker.price
        self.traded = taker.market
        self.happened.append(("trade", maker.order_id, taker.order_id, maker.price, lots, *fees))
        for order in (maker, taker):
            if order.open == 0:
                self._bury(order)

    def _pay(self, account: str, asset: int, amount: int) -> None:
        self.total[account, asset] = self.total.get((account, asset), 0) + amount

    def _end(self, order: NaiveOrder, reason: int) -> None:
        """Cancel an open order."""
        self.happened.append(("cancelled", order.order_id, order.open, reason))
        if order in self.queue:
            self.queue.remove(order)
        order.open = 0
        order.status = c.CANCELLED
        order.reason = reason
        self._bury(order)

    def _bury(self, order: NaiveOrder) -> None:
        order.place = "gone"
        self.gone.append(order.order_id)
        while len(self.gone) > self.max_gone:
            del self.orders[self.gone.pop(0)]

    def find(self, command: tuple[Any, ...]) -> NaiveOrder | None:
        order_id = command[cmd.X_ORDER_ID]
        if order_id == 0:
            placed = self.known.get((command[cmd.C_ACCOUNT], True, command[cmd.X_CLIENT_ORDER_ID]))
            order_id = placed[3] if placed else 0
        order = self.orders.get(order_id)
        return order if order and order.account == command[cmd.C_ACCOUNT] else None

    def _cancel(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        order = self.find(command)
        reason = rules.change_refusal(self, order)
        if reason or order is None:
            return self._refused(command, reason)
        self._end(order, c.CANCEL_REQUESTED)
        return self._standing(order, command)

    def _reduce(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        order = self.find(command)
        lots = command[cmd.X_LOTS]
        reason = rules.change_refusal(self, order)
        if not reason and order is not None:
            reason = r.QUANTITY_TOO_SMALL if lots <= 0 else r.REDUCE_EXCEEDS_OPEN if lots > order.open else 0
        if reason or order is None:
            return self._refused(command, reason)
        if lots == order.open:
            self._end(order, c.CANCEL_REDUCED)
        else:
            order.open -= lots
            self.happened.append(("reduced", order.order_id, lots, order.open))
        return self._standing(order, command)

    def _replace(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        order = self.find(command)
        reason = rules.replace_refusal(self, order, command)
        if reason or order is None:
            return self._refused(command, reason)
        price, lots = command[cmd.X_PRICE], command[cmd.X_LOTS]
        arrives_again = self.rules == 1 or price != order.price or lots > order.open
        order.price, order.open = price, lots
        self.happened.append(("replaced", order.order_id, price, lots))
        if arrives_again:
            self._execute(order)
        return self._standing(order, command)

    def _cancel_all(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        chosen = [
            order
            for order in self.open_orders(command[cmd.A_MARKET], command[cmd.C_ACCOUNT])
            if self.markets[order.market].mode != c.HALTED
        ]
        for order in chosen:
            self._end(order, c.CANCEL_REQUESTED)
        return self._plain(command, count=len(chosen))

    def _mass_cancel(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        chosen = self.open_orders(command[cmd.M_MARKET], command[cmd.M_ACCOUNT])
        if self.rules >= 3 and command[cmd.M_KEY :]:
            chosen = [order for order in chosen if order.command[cmd.P_KEY : cmd.P_KEY + 1] == command[cmd.M_KEY :]]
        order_of_accounts = list(dict.fromkeys(account for account, _ in self.total))
        for order in sorted(chosen, key=lambda order: (order_of_accounts.index(order.account), order.order_id)):
            self._end(order, c.CANCEL_OPERATOR)
        return self._plain(command, count=len(chosen))

    # --- money, operators, time ---

    def _move_money(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        kind, account, asset, amount = command[0], command[1], command[cmd.F_ASSET], command[cmd.F_AMOUNT]
        reason = rules.money_refusal(self, command)
        if reason:
            return self._refused(command, reason)
        if kind == cmd.CREDIT:
            self._pay(account, asset, amount)
            self.supply[asset] += amount
        elif kind == cmd.HOLD:
            self.holds[account, command[cmd.C_REQUEST_ID]] = (asset, amount)
        else:
            self._pay(account, asset, -amount)
            self._pay(command[cmd.F_TO], asset, amount)
        return self._plain(command)

    def _end_hold(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        held = self.holds.pop((command[1], command[cmd.H_HOLD_ID]), None)
        if held is None:
            return self._refused(command, r.HOLD_NOT_FOUND)
        if command[0] == cmd.SETTLE_HOLD:
            self._pay(command[1], held[0], -held[1])
            self.supply[held[0]] -= held[1]
        return self._plain(command)

    def _operate(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        kind, body = command[0], command[cmd.C_BODY :]
        count = 0
        if kind == cmd.SET_MARKET_MODE:
            self.markets[body[0]].mode = body[1]
            count = body[0]
        elif kind == cmd.SET_SWITCH:
            self.switches[("accept", "maintenance", "breaker")[body[0] - 1]] = body[1] == 1
        elif kind == cmd.SET_ACCOUNT_LIMITS:
            self.limits[body[0]] = body[1]
        elif kind == cmd.SET_RETENTION:
            self.max_gone = body[2]
            while len(self.gone) > self.max_gone:
                del self.orders[self.gone.pop(0)]
        elif kind == cmd.ACTIVATE_RULES:
            if body[0] not in (self.rules, self.rules + 1):
                return self._refused(command, r.RULES_NOT_SUPPORTED)
            self.rules = body[0]
        elif kind == cmd.UPDATE_MARKET:
            self.markets[body[0]].change(dict(zip(body[1::2], body[2::2], strict=True)))
            count = body[0]
        else:
            assert kind == cmd.TICK
        return self._plain(command, count=count)

    def _expire(self) -> None:
        due = [order for order in self.open_orders() if 0 < order.command[cmd.P_EXPIRE] <= self.time]
        for order in sorted(due, key=lambda order: (order.command[cmd.P_EXPIRE], order.order_id)):
            self._end(order, c.CANCEL_EXPIRED)

    def _wake(self) -> None:
        """Queue the stop orders that the last trade has reached, and match up to the limit of those that may trade."""
        self._collect(self.traded)
        if self.switches["maintenance"] or self.switches["breaker"]:
            return
        for _ in range(c.MAX_TRIGGERS_PER_COMMAND):
            ready = [order for order in self.queue if self.markets[order.market].mode == c.OPEN]
            if not ready:
                return
            order = ready[0]
            self.queue.remove(order)
            self.happened.append(("triggered", order.order_id))
            self._execute(order)
            self._collect(order.market)

    def _collect(self, market: int) -> None:
        last = self.markets[market].last if market >= 0 else 0
        if last == 0:
            return
        for side, limit in ((c.BUY, last), (c.SELL, -last)):
            for trigger, order_id in self.sleepers(market, side):
                if trigger <= limit:
                    self.orders[order_id].place = "waiting"
                    self.queue.append(self.orders[order_id])

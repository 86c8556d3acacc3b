"""The quoting itself: one round after another of looking at the exchange, deciding, and changing what must change."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import structlog

from exchange.market_maker.decision import (
    DISABLED,
    MARKET_CLOSED,
    NO_FUNDS,
    NO_ROOM,
    NOT_CONNECTED,
    QUOTING,
    View,
    decide,
)
from exchange.market_maker.exchange import Away, Cancel, Place
from exchange.market_maker.movement import Movement
from exchange.market_maker.orders import outside
from exchange.market_maker.quoting import BUY, SELL
from exchange.market_maker.store import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from exchange.market_maker.decision import Decision
    from exchange.market_maker.exchange import Follower, Markets, Reference, Result, Session
    from exchange.market_maker.metrics import MarketMakerMetrics
    from exchange.market_maker.rules import MarketRules
    from exchange.market_maker.store import Settings
    from exchange.runtime.clock import Clock

# How long a market is left alone after the exchange refused an order: a refusal is journaled like an order.
REFUSED_PAUSE_S: Final = 2.0
# How long the account's own events may take to tell of what was done.
REACH_S: Final = 2.0
# New orders are not taken at all, in this market or in any.
CLOSED: Final = frozenset(
    {"MARKET_HALTED", "MARKET_CANCEL_ONLY", "NEW_ORDERS_DISABLED", "MAINTENANCE", "CIRCUIT_BREAKER"}
)
# The book moved meanwhile: the next round sees it.
_PASSING: Final = frozenset({"POST_ONLY_WOULD_CROSS"})


@dataclass(slots=True)
class _Market:
    """What is remembered of a market from round to round. Times are on the monotonic clock."""

    movement: Movement
    # The last reference price that there was.
    price: Decimal | None = None
    paused_until: float = 0.0
    closed: bool = False

    def is_paused(self, now: float) -> bool:
        return now < self.paused_until


@dataclass(slots=True)
class _Turn:
    """One market in one round."""

    rules: MarketRules
    decision: Decision
    reference: Reference | None
    commands: list[Cancel | Place]
    results: list[Result] = field(default_factory=list)

    @property
    def is_stuck(self) -> bool:
        """Whether orders should go that the market does not let go of."""
        return not self.rules.takes_cancels and bool(self.decision.changes.cancels)

    def report(self, profit: Decimal) -> Report:
        """As it stands after the changes."""
        rules, price = self.rules, self.reference.price if self.reference is not None else None
        standing = [(order.side, rules.price(order.ticks)) for order in self.decision.changes.kept]
        standing += [
            (command.side, command.price)
            for command, result in zip(self.commands, self.results, strict=False)
            if isinstance(command, Place) and not result.reason
        ]
        state = self.decision.state
        if state == QUOTING and not standing:
            reasons = {result.reason for result in self.results}
            state = MARKET_CLOSED if reasons & CLOSED else NO_FUNDS if "INSUFFICIENT_FUNDS" in reasons else NO_ROOM
        return Report(
            symbol=rules.symbol,
            state=state,
            reference_price=price,
            bid_price=max((at for side, at in standing if side == BUY), default=None),
            ask_price=min((at for side, at in standing if side == SELL), default=None),
            open_orders=len(standing),
            profit_today=profit,
        )


class Quoter:
    """Quotes as one account, from when it is made until it is closed."""

    def __init__(
        self,
        markets: Markets,
        session: Session,
        follower: Follower,
        clock: Clock,
        metrics: MarketMakerMetrics,
        *,
        stale_after_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self._exchange = markets
        self._session = session
        self._follower = follower
        self._clock = clock
        self._metrics = metrics
        self._stale_after_s = stale_after_s
        self._now = now
        self._markets: dict[str, _Market] = {}
        # Problems that are in the log already, by market; "" for what concerns all.
        self._said: dict[str, str] = {}
        # The newest sequence at which an order of ours changed by our doing.
        self._done_sequence = 0
        self._ids = (f"mm-{secrets.token_hex(6)}-{number}" for number in itertools.count(1))
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("quoter")

    @property
    def connected(self) -> bool:
        """Whether its session is open."""
        return self._session.is_open

    async def close(self) -> None:
        """Take all orders back."""
        await self._session.close()

    async def round(self, settings: Settings) -> list[Report]:
        """Bring the quotes to where they should be; answers how the markets stand, those with settings.

        Never raises Away: without the exchange there is nothing to quote, and the end of the session takes the quotes back.
        """
        if not settings.enabled or not any(one.enabled for one in settings.markets.values()):
            await self._session.close()
            return self._idle(settings, DISABLED)
        try:
            with self._metrics.round_seconds.time():
                reports = await self._round(settings)
        except Away as error:
            self._metrics.failures.inc()
            self._say("", str(error))
            await self._session.close()
            return self._idle(settings, NOT_CONNECTED)
        self._said.pop("", None)
        return reports

    def _say(self, symbol: str, problem: str) -> None:
        """Once, not in every round in which it is so."""
        if self._said.get(symbol) != problem:
            self._said[symbol] = problem
            self._log.warning("not quoting", symbol=symbol, problem=problem)

    def _idle(self, settings: Settings, state: str) -> list[Report]:
        return [
            Report(
                symbol,
                state if one.enabled else DISABLED,
                None,
                None,
                None,
                self._count(symbol),
                self._profit(symbol),
            )
            for symbol, one in settings.markets.items()
        ]

    def _profit(self, symbol: str) -> Decimal:
        """Today's, at the last reference price that there was; 0 before the first."""
        known = self._markets.get(symbol)
        if known is None or known.price is None:
            return Decimal(0)
        return self._follower.book.position(symbol).profit_today(known.price)

    def _count(self, symbol: str) -> int:
        return self._follower.book.count(symbol)

    async def _round(self, settings: Settings) -> list[Report]:
        head = await self._session.ping()
        if not self._follower.is_current or not await self._follower.reach(self._done_sequence, REACH_S):
            raise Away("the account's own events do not come")
        rules, balances, references = await self._look(settings, head)
        free = dict(balances)
        turns: list[_Turn] = []
        for found in rules:
            reference = references[found.symbol]
            decision = await self._decide(found, settings, reference, free, head)
            free[found.base_asset], free[found.quote_asset] = decision.base_left, decision.quote_left
            turns.append(_Turn(found, decision, reference, self._commands(found, decision)))
        if any(turn.is_stuck for turn in turns):
            # What a halted market does not let go of, goes with the session; the others are quoted anew.
            await self._session.close()
            return [turn.report(self._profit(turn.rules.symbol)) for turn in turns]
        commands = [command for turn in turns for command in turn.commands]
        if commands:
            results = iter(await self._session.run(commands))
            for turn in turns:
                turn.results = list(itertools.islice(results, len(turn.commands)))
                self._done(turn)
        return [turn.report(self._profit(turn.rules.symbol)) for turn in turns]

    async def _look(
        self, settings: Settings, head: int
    ) -> tuple[list[MarketRules], Mapping[str, Decimal], Mapping[str, Reference | None]]:
        markets, balances = await asyncio.gather(self._exchange.markets(), self._exchange.balances(head))
        rules = [found for found in markets if found.symbol in settings.markets]
        references = await asyncio.gather(*(self._reference(found.symbol) for found in rules))
        return rules, balances, {found.symbol: price for found, price in zip(rules, references, strict=True)}

    async def _reference(self, symbol: str) -> Reference | None:
        """None where it is too old, too, or cannot be had."""
        try:
            found = await self._exchange.reference(symbol)
        except Away as error:
            self._say(symbol, str(error))
            return None
        if found is None or found.age_s > self._stale_after_s or found.price <= 0:
            self._say(symbol, "there is no reference price" if found is None else "the reference price is too old")
            return None
        self._said.pop(symbol, None)
        return found

    async def _decide(
        self,
        rules: MarketRules,
        settings: Settings,
        reference: Reference | None,
        free: Mapping[str, Decimal],
        head: int,
    ) -> Decision:
        symbol = rules.symbol
        known = self._markets.setdefault(symbol, _Market(Movement()))
        mine = settings.markets[symbol]
        account = self._follower.book
        book = await self._exchange.book(symbol, head)
        if reference is not None:
            known.price = reference.price
            known.movement.add(self._clock.monotonic(), reference.price)
            marked = account.position(symbol).marked(self._now().date(), reference.price, mine)
            if marked.stopped and not account.position(symbol).stopped:
                self._log.error("stops quoting: the loss limit is reached", symbol=symbol, position=str(marked))
            account.positions[symbol] = marked
        orders = account.orders(rules)
        view = View(
            rules=rules,
            settings=mine,
            position=account.position(symbol),
            orders=orders,
            reference=reference.price if reference is not None else None,
            movement=known.movement.range(),
            outside=outside(book, orders, rules),
            base=free.get(rules.base_asset, Decimal(0)),
            quote=free.get(rules.quote_asset, Decimal(0)),
            refused=known.closed and known.is_paused(self._clock.monotonic()),
        )
        return decide(view)

    def _commands(self, rules: MarketRules, decision: Decision) -> list[Cancel | Place]:
        """Cancels first. Nothing is placed while the exchange refuses, and nothing is done in a halted market."""
        changes = decision.changes
        if not rules.takes_cancels:
            return []
        commands: list[Cancel | Place] = [Cancel(order.order_id) for order in changes.cancels]
        if not self._markets[rules.symbol].is_paused(self._clock.monotonic()):
            commands += [
                Place(rules.symbol, side, rules.price(level.ticks), rules.quantity(level.lots), next(self._ids))
                for side, level in changes.places
            ]
        return commands

    def _done(self, turn: _Turn) -> None:
        for command, result in zip(turn.commands, turn.results, strict=True):
            if not result.reason:
                self._done_sequence = max(self._done_sequence, result.sequence)
                counter = self._metrics.placed if isinstance(command, Place) else self._metrics.cancelled
                counter.inc()
            elif isinstance(command, Place):
                self._metrics.refused.labels(result.reason).inc()
                if result.reason not in _PASSING:
                    self._pause(turn.rules.symbol, result.reason)

    def _pause(self, symbol: str, reason: str) -> None:
        known = self._markets[symbol]
        if not known.is_paused(self._clock.monotonic()):
            self._log.warning("an order was refused", symbol=symbol, reason=reason)
        known.paused_until = self._clock.monotonic() + REFUSED_PAUSE_S
        known.closed = reason in CLOSED

"""Traders who keep an account of all that they asked and of all that they were told."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Protocol

from pincex_client import CommandResult, ExchangeClient, ExchangeError, Order, OrderSession, RetryPolicy, requests

UNARY_ACCOUNTS = ("demo", "maker")
SESSION_ACCOUNT = "pipelined"
SESSION_WINDOW = 64
START_FUNDS = {"BTC": 1_000, "USD": 100_000_000}
ATTEMPT_S = 1.0
SYMBOL = "BTCUSD"


class Database(Protocol):
    """Where the journal can be read."""

    @property
    def trading_url(self) -> str: ...


class Target(Protocol):
    """What is loaded: one engine, or a whole exchange behind its edge."""

    @property
    def database(self) -> Database: ...

    def client(self, account: str = "demo", **policy: Any) -> ExchangeClient: ...


@dataclass(frozen=True, slots=True)
class Told:
    """An answer: the order right after the command, or the reason of a refusal that depends on the state."""

    order_id: str = ""
    status: str = ""
    filled: Decimal = Decimal(0)
    reason: str = ""


@dataclass(slots=True)
class Asked:
    """One mutation: how to ask it (again), and the first answer, if there was one. `request` is for the session."""

    account: str
    placed: bool
    name: str
    ask: Callable[[ExchangeClient], Awaitable[Told]]
    request: Any = None
    # Put on record in the database before it is carried out, so that it waits for the database of who takes it.
    audited: bool = False
    told: Told | None = None
    asked_at: float = field(default_factory=time.monotonic)
    told_at: float = 0.0


@dataclass
class Load:
    """Unary orders, pipelined sessions, cancels, replaces and credits, until stopped.

    Where `patient`, callers leave time-outs and repeats to the SDK, and any error that reaches one is a defect; else each
    call is made once, and left without an answer if that fails. `run` begins every id, so that a run can follow another on
    the same exchange; the accounts `pipelined`, `pipelined-2`, ... have one of the `sessions` each.
    """

    engine: Target
    seed: int
    pause_s: float = 0.0
    patient: bool = False
    run: str = ""
    sessions: int = 1
    asked: list[Asked] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    answered: int = 0
    answered_in_session: int = 0
    read_back: int = 0
    opened: list[OrderSession] = field(default_factory=list)
    credited: int = 0
    killed_at: float = 0.0
    resumed_at: float = 0.0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        """Fund the sessions' accounts, then trade."""
        async with self.engine.client() as exchange:
            for account in self.session_accounts:
                # In some minutes more rest than an account may have, and a change of an order that was refused for that is
                # refused before the journal: an answer that no record has.
                await exchange.admin.set_account_limits(account, max_open_orders=0)
                for asset, amount in START_FUNDS.items():
                    name = f"{self.run}start-{asset}"
                    await exchange.admin.credit_account(account, asset, amount, request_id=name)
        workers = [
            *map(self._unary, UNARY_ACCOUNTS),
            *map(self._pipelined, self.session_accounts),
            self._credits(),
        ]
        self._tasks = [asyncio.create_task(worker) for worker in workers]

    @property
    def session_accounts(self) -> list[str]:
        """The accounts that trade over sessions."""
        return [
            SESSION_ACCOUNT if number == 1 else f"{SESSION_ACCOUNT}-{number}" for number in range(1, self.sessions + 1)
        ]

    @property
    def session(self) -> OrderSession:
        """The first session."""
        return self.opened[0]

    async def stop(self) -> None:
        """Let each finish what it has begun; raises what a worker failed with."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    def check(self) -> None:
        """Raise what a worker has failed with so far."""
        for task in self._tasks:
            if task.done() and not self._stop.is_set():
                task.result()
                raise AssertionError("a worker ended early")

    @property
    def unanswered(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.told is None]

    def longest_wait(self, since: float, until: float, *, audited: bool = True) -> float:
        """The longest time that anybody waited for an answer between two moments, both monotonic; 0 for nobody. What was waited
        before the first one is not its fault; what has no answer yet counts up to the second. `audited=False` leaves out what
        an audit trail may keep waiting.
        """
        waits = [
            (asked.told_at or until) - max(asked.asked_at, since)
            for asked in self.asked
            if asked.asked_at <= until
            and (asked.told_at == 0.0 or asked.told_at >= since)
            and (audited or not asked.audited)
        ]
        return max(waits, default=0.0)

    async def settle(self) -> None:
        """Ask again, one by one, what has no answer; and everything once more: the answers must be the first ones."""
        async with self.engine.client() as exchange:
            clients = {"demo": exchange}
            for asked in self.asked:
                if asked.account not in clients:
                    clients[asked.account] = self.engine.client(asked.account)
            for asked in self.unanswered:
                asked.told = await asked.ask(clients[asked.account])
            for start in range(0, len(self.asked), 200):
                some = self.asked[start : start + 200]
                again = await asyncio.gather(*(asked.ask(clients[asked.account]) for asked in some))
                for asked, told in zip(some, again, strict=True):
                    assert told == asked.told, f"{asked.account} {asked.name}: first {asked.told}, then {told}"
            for client in clients.values():
                await client.close()

    def _answer(self, asked: Asked, told: Told) -> None:
        asked.told, asked.told_at = told, time.monotonic()
        self.answered += 1
        if self.resumed_at == 0.0 and asked.asked_at > self.killed_at:
            self.resumed_at = asked.told_at

    def note_kill(self) -> None:
        """From here on `resumed_at` waits for an answer to something that is asked later."""
        self.killed_at, self.resumed_at = time.monotonic(), 0.0

    # --- workers ---

    def _client(self, account: str = "demo") -> ExchangeClient:
        if self.patient:
            return self.engine.client(account)
        return self.engine.client(account, deadline=ATTEMPT_S, attempt_timeout=ATTEMPT_S)

    async def _unary(self, account: str) -> None:
        """One order, cancel or replace after the other."""
        rng = random.Random(f"{self.seed}-{account}")
        async with self._client(account) as exchange:
            mine: list[str] = []
            while not self._stop.is_set():
                choice = rng.random()
                if mine and choice < 0.3:
                    asked = self._cancel(account, rng.choice(mine[-50:]), f"{self.run}x{len(self.asked)}")
                elif mine and self.patient and choice < 0.4:
                    asked = self._replace(account, rng.choice(mine[-50:]), f"{self.run}z{len(self.asked)}", rng)
                else:
                    name = f"{self.run}{account}-{len(mine)}"
                    mine.append(name)
                    asked = self._place(account, name, rng)
                await self._ask(asked, exchange)
                if self.patient and asked.placed and choice > 0.9:
                    await self._read_back(asked, exchange)
                await asyncio.sleep(self.pause_s)

    async def _read_back(self, asked: Asked, exchange: ExchangeClient) -> None:
        """Who wrote reads what was written, whichever instance answers."""
        if asked.told is not None and asked.told.order_id:
            order = await exchange.get_order(asked.told.order_id)
            assert order.client_order_id == asked.name
            self.read_back += 1

    async def _credits(self) -> None:
        async with self._client() as exchange:
            while not self._stop.is_set():
                self.credited += 1
                name = f"{self.run}credit-{self.credited}"

                async def ask(client: ExchangeClient, name: str = name) -> Told:
                    await client.admin.credit_account("demo", "USD", "0.00000001", request_id=name)
                    return Told()

                await self._ask(Asked("demo", placed=False, name=name, ask=ask, audited=True), exchange)
                await asyncio.sleep(0.02 + self.pause_s)

    async def _ask(self, asked: Asked, exchange: ExchangeClient) -> None:
        self.asked.append(asked)
        try:
            self._answer(asked, await asked.ask(exchange))
        except ExchangeError as error:
            if self.patient or not error.transient:
                raise
            self.failures[error.reason] = self.failures.get(error.reason, 0) + 1

    async def _pipelined(self, account: str) -> None:
        """A session that rides through everything by itself."""
        rng = random.Random(f"{self.seed}-{account}")
        # It is back soon after each death, so that the next one finds it at work.
        options: dict[str, Any] = {"window": SESSION_WINDOW, "policy": RetryPolicy(max_delay=0.1)}
        async with self.engine.client(account) as exchange, exchange.session(**options) as session:
            self.opened.append(session)
            placed: list[str] = []
            number = 0
            while not self._stop.is_set():
                number += 1
                asked = self._session_command(account, rng, number, placed)
                self.asked.append(asked)
                future = await session.send(asked.request)
                future.add_done_callback(partial(self._session_told, asked))
                if number % 8 == 0:
                    await asyncio.sleep(self.pause_s)

    def _session_told(self, asked: Asked, done: asyncio.Future[CommandResult]) -> None:
        if not done.cancelled() and done.exception() is None:
            self._answer(asked, _told_of_result(done.result()))
            self.answered_in_session += 1

    def _session_command(self, account: str, rng: random.Random, number: int, placed: list[str]) -> Asked:
        choice = rng.random()
        if number > 5 and choice < 0.3:
            # Some of these numbers are no orders: such a cancel is refused, for ever.
            target = f"{self.run}{account}-{rng.randrange(max(1, number - 60), number)}"
            return self._cancel(account, target, f"{self.run}y{number}")
        if placed and choice < 0.4:
            return self._replace(account, rng.choice(placed[-50:]), f"{self.run}w{number}", rng)
        name = f"{self.run}{account}-{number}"
        placed.append(name)
        return self._place(account, name, rng)

    # --- what can be asked ---

    def _place(self, account: str, name: str, rng: random.Random) -> Asked:
        side = rng.choice(("BUY", "SELL"))
        price, quantity = _price_and_quantity(rng)
        request = requests.place_order(SYMBOL, side, quantity, price, client_order_id=name)

        async def ask(client: ExchangeClient) -> Told:
            return await _told(client.place_order(SYMBOL, side, quantity, price, client_order_id=name))

        return Asked(account, True, name, ask, request)

    def _cancel(self, account: str, target: str, name: str) -> Asked:
        request = requests.cancel_order(client_order_id=target, request_id=name)

        async def ask(client: ExchangeClient) -> Told:
            return await _told(client.cancel_order(client_order_id=target, request_id=name))

        return Asked(account, False, name, ask, request)

    def _replace(self, account: str, target: str, name: str, rng: random.Random) -> Asked:
        price, quantity = _price_and_quantity(rng)
        request = requests.replace_order(client_order_id=target, price=price, quantity=quantity, request_id=name)

        async def ask(client: ExchangeClient) -> Told:
            return await _told(
                client.replace_order(client_order_id=target, price=price, quantity=quantity, request_id=name)
            )

        return Asked(account, False, name, ask, request)


def _price_and_quantity(rng: random.Random) -> tuple[Decimal, Decimal]:
    """Near the touch, so that many orders trade."""
    return Decimal(5_000_000 + rng.randint(-400, 400)) / 100, Decimal(rng.randint(100, 2_000)) / 100_000


async def _told(answer: Awaitable[Order]) -> Told:
    """An answer, or the refusal that stands for ever. Raises ExchangeError while the outcome is unknown."""
    try:
        order = await answer
    except ExchangeError as error:
        if error.transient:
            raise
        return Told(reason=error.reason)
    return Told(order.order_id, order.status, order.filled_quantity)


def _told_of_result(result: CommandResult) -> Told:
    if result.refused:
        return Told(reason=result.reason)
    return Told(result.order_id, result.status, result.filled_quantity)

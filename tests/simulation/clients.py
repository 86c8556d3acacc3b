"""Clients: they trade, ask again where they heard nothing, read what they wrote, and follow streams."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

from exchange.runtime.errors import ServiceError
from exchange.runtime.feeds.tokens import Position, short_hash
from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core.commands import Command
from exchange.trading.core.events import R_ORDER_ID, R_REASON, R_SEQUENCE, Result
from exchange.trading.feeds.resume import same_history
from exchange.trading.journal.contract import GENESIS_HASH, JournalUnavailable
from exchange.trading.sequencer import Committed
from tests.simulation.nodes import INCARNATION, SHARD, START_NS, Gone, Life, Node

if TYPE_CHECKING:
    from tests.simulation.world import World

BTCUSD = 0
PATIENCE_S = 3.0
MIDDLE = 5_000_000
LOST = (Gone, TimeoutError, ServiceError)
# Who sends an order, in turn: a person, a key without a limit, one that may have few orders open.
SENDERS: tuple[dict[str, Any], ...] = (
    {},
    {"key": "ak_free"},
    {"key": "ak_few", "key_max_open": 4, "account_max_open": 30},
)
"""How a call may end without an answer; whether it was done is unknown."""


class Client:
    """One account's trader. One request, or one volley of a session, at a time."""

    def __init__(self, world: World, account: str, rng: Random) -> None:
        self.account = account
        self.idle = asyncio.Event()
        self._world = world
        self._rng = rng
        self._tag = 0
        self._orders: list[tuple[int, str]] = []
        self._written = 0
        self._session = ""
        self._number = 0
        self._sessions = 0
        self._holds: list[str] = []

    async def run(self) -> None:
        """Trade until the world says that it is enough; everything that was asked is asked to the end."""
        while not self._world.closing:
            await asyncio.sleep(self._rng.expovariate(self._world.plan.requests_per_s))
            if self._rng.random() < self._world.plan.reads:
                await self._read()
                continue
            kind = self._rng.random()
            if kind < 0.1:
                await self._once(self._place(with_id=False))
            elif kind < 0.4:
                await self._volley()
            else:
                await self._until_known([self._request()])
        self.idle.set()

    # --- asking ---

    def _node(self) -> Node:
        nodes = [node for node in self._world.nodes if node.ready] or self._world.nodes
        return self._rng.choice(nodes)

    async def _once(self, command: Command) -> None:
        """Without an id nobody asks again."""
        try:
            self._learn([command], await self._node().ask(lambda life: life.submit([command]), PATIENCE_S))
        except LOST:
            self._world.note("unknown", self.account)

    async def _until_known(self, commands: list[Command]) -> list[Result]:
        """Ask any instance until one says what became of it."""
        while True:
            try:
                results = await self._node().ask(lambda life: life.submit(commands), PATIENCE_S)
            except LOST as error:
                await self._wait(error)
            else:
                self._learn(commands, results)
                return results

    async def _wait(self, error: Exception) -> None:
        """Before asking again."""
        why = error.reason_name if isinstance(error, ServiceError) else type(error).__name__
        self._world.note("no answer", self.account, why)
        await asyncio.sleep(0.05 + 0.2 * self._rng.random())

    def _learn(self, commands: list[Command], results: list[Result]) -> None:
        self._world.auditor.told(commands, results)
        for result in results:
            self._world.note("done", self.account, result[R_SEQUENCE], result[R_REASON])
            self._written = max(self._written, result[R_SEQUENCE])
            if result[R_ORDER_ID] and result[R_REASON] == 0:
                self._orders.append((result[R_ORDER_ID], ""))
        del self._orders[:-12]

    async def _read(self) -> None:
        least = self._written if self._rng.random() < 0.5 else 0
        name = self.account if self._rng.random() < 0.7 else self._rng.choice(self._world.accounts)
        try:
            sequence, _ = await self._node().ask(lambda life: life.read(name, least), PATIENCE_S)
            self._world.note("read", self.account, sequence)
        except LOST:
            return

    # --- a session: numbered commands, several under way ---

    async def _volley(self) -> None:
        if not self._session or self._rng.random() < 0.05:
            await self._change_session()
        batches: list[list[Command]] = []
        for _ in range(self._rng.randint(1, 3)):
            batch = []
            for _ in range(self._rng.randint(1, 3)):
                self._number += 1
                batch.append(self._place(with_id=self._rng.random() < 0.5, session=self._session, number=self._number))
            batches.append(batch)
        gap_s = 0.004 * self._rng.random()
        while batches:
            try:
                results = await self._node().ask(lambda life: self._send(life, batches, gap_s), PATIENCE_S)
            except LOST as error:
                await self._wait(error)
            else:
                for batch, answers in zip(batches, results, strict=False):
                    self._learn(batch, answers)
                del batches[: len(results)]

    @staticmethod
    async def _send(life: Life, batches: list[list[Command]], gap_s: float) -> list[list[Result]]:
        """Have a volley applied in order; answers the results of those batches, from the first on, that were."""
        futures: list[tuple[list[Command], asyncio.Future[list[Result]]]] = []
        failed: ServiceError | None = None
        for batch in batches:
            if any(future.done() and future.exception() is not None for _, future in futures):
                # What follows something that failed must not overtake its repetition.
                break
            try:
                futures.append((batch, life.desk.enqueue(batch)))
            except ServiceError as error:
                failed = error
                break
            await asyncio.sleep(gap_s)
        known: list[list[Result]] = []
        for batch, future in futures:
            try:
                results = await life.desk.settled(future)
            except ServiceError as error:
                failed = error
                break
            life.check(batch, results)
            known.append(results)
        for _, future in futures[len(known) :]:
            future.cancel()
        if failed is not None and not known:
            raise failed
        return known

    async def _change_session(self) -> None:
        if self._session:
            await self._until_known([cmd.close_session(self.account, self._session)])
        self._sessions += 1
        self._session = f"s{self._sessions}"
        self._number = 0
        opening = cmd.open_session(
            self.account, self._session, cancel_on_disconnect=False, grace_ms=60_000, dead_man_ms=0
        )
        await self._until_known([opening])

    # --- requests ---

    def _now_ns(self) -> int:
        return START_NS + int(self._world.loop.time() * 1e9)

    def _next_tag(self) -> int:
        """A request time that no other request of the account has: by it the auditor knows the request again."""
        self._tag += 1
        return START_NS + 86_400_000_000_000 + self._tag

    def _place(self, *, with_id: bool, session: str = "", number: int = 0) -> Command:
        rng = self._rng
        tag = self._next_tag()
        tif, expire_ns, stop, kind = c.GTC, 0, 0, c.LIMIT
        side = rng.choice((c.BUY, c.SELL))
        price = MIDDLE + rng.randint(-12, 12)
        style = rng.random()
        if style < 0.15:
            tif = c.IOC
        elif style < 0.30:
            tif, expire_ns = c.GTD, self._now_ns() + rng.randint(200, 3_000) * 1_000_000
        elif style < 0.38:
            kind, stop = c.STOP_LIMIT, MIDDLE + (rng.randint(1, 10) if side == c.BUY else -rng.randint(1, 10))
        return cmd.place(
            self.account, BTCUSD, side, kind, rng.randint(1, 40) * 100, price, tif=tif, expire_ns=expire_ns, stop=stop,
            client_order_id=f"o{tag - START_NS}" if with_id else "", session=session, number=number, request_time_ns=tag,
            **SENDERS[tag % len(SENDERS)],
        )  # fmt: skip

    def _request(self) -> Command:
        rng, account = self._rng, self.account
        tag = self._next_tag()
        named: dict[str, Any] = {"request_id": f"r{tag - START_NS}", "request_time_ns": tag}
        style = rng.random()
        order_id = rng.choice(self._orders)[0] if self._orders else 0
        if style < 0.10:
            return cmd.transfer(
                account, rng.choice(self._world.accounts), 2, rng.randint(1, 10**9), request_id=f"r{tag}"
            )
        if style < 0.15:
            self._holds.append(f"h{tag}")
            return cmd.hold(account, 2, rng.randint(1, 10**9), request_id=f"h{tag}")
        if style < 0.20 and self._holds:
            hold = self._holds.pop()
            make = cmd.settle_hold if rng.random() < 0.5 else cmd.release_hold
            return make(account, hold, request_id=f"r{tag}")
        if style < 0.45 and order_id:
            return cmd.cancel(account, order_id=order_id, **named)
        if style < 0.55 and order_id:
            return cmd.reduce(account, rng.randint(1, 5) * 100, order_id=order_id, **named)
        if style < 0.70 and order_id:
            price = MIDDLE + rng.randint(-12, 12)
            return cmd.replace(account, rng.randint(1, 40) * 100, price, order_id=order_id, **named)
        if style < 0.73:
            return cmd.cancel_all(account, **named)
        return self._place(with_id=True)


class StreamReader:
    """Follows the stream of durable events, as `EventService.StreamEvents` gives it, from instance to instance."""

    def __init__(self, world: World, name: str, rng: Random) -> None:
        self.name = name
        self.position: tuple[int, bytes] = (0, GENESIS_HASH)
        self.reported = 0
        """How often it was told that the history has changed."""
        self._world = world
        self._rng = rng
        self._arrived: asyncio.Queue[Committed | None] = asyncio.Queue()

    async def run(self) -> None:
        world = self._world
        while True:
            node = self._rng.choice(world.nodes)
            life, process = node.life, node.process
            self._arrived = asyncio.Queue()
            if life is not None and not process.dead:
                world.loop.spawn(process, self._serve(life, self.position, self._arrived))
                end_at = world.loop.time() + self._rng.uniform(1.0, 6.0)
                await self._follow(process, end_at)
            await asyncio.sleep(0.1 * self._rng.random())

    async def _follow(self, process: Any, end_at: float) -> None:
        """Read what comes until the instance is gone, or the reader moves on by itself."""
        arrived = self._arrived
        while not process.dead and (self._world.loop.time() < end_at or self._world.closing):
            try:
                committed = await asyncio.wait_for(arrived.get(), 0.5)
            except TimeoutError:
                continue
            if committed is None:
                return
            self.position = self._world.auditor.streamed(self.name, self.position, committed)

    async def _serve(self, life: Life, position: tuple[int, bytes], to: asyncio.Queue[Committed | None]) -> None:
        """The instance's side of it."""
        hub, last, cores = life.hub, position[0], life.hub.cores
        try:
            if last:
                if not await hub.reaches(last, 1.0):
                    return
                place = Position(INCARNATION, SHARD, last, -1, short_hash(position[1]))
                if not await same_history(place, INCARNATION, SHARD, hub):
                    self.reported += 1
                    self.position = (0, GENESIS_HASH)
                    return
            while to is self._arrived and hub.cores == cores:
                async for committed in hub.read(last + 1):
                    last = committed.last_sequence
                    to.put_nowait(committed)
                await hub.wait_beyond(last, 1.0)
        except JournalUnavailable:
            return
        finally:
            to.put_nowait(None)

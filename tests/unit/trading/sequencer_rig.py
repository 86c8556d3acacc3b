"""A sequencer over a journal whose every append the test decides about."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from exchange.runtime.clock import ManualClock
from exchange.trading import recovery
from exchange.trading.bootstrap import development_commands
from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import R_REASON, Result
from exchange.trading.journal.contract import Frame
from exchange.trading.journal.memory import MemoryJournal, MemoryStore
from exchange.trading.sequencer import Committed, Sequencer, SequencerLimits

BTCUSD = 0
START_NS = 1_700_000_000_000_000_000
TURNS = 8
"""Turns of the loop within which everything that waits for nothing has happened."""


class ControlledJournal(MemoryJournal):
    """A memory journal. While `holding`, an append waits until the test commits it or lets it fail."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.holding = False
        self.begun: list[Frame] = []
        self.stalled_at: float | None = None
        self._held: deque[tuple[Frame, asyncio.Future[None]]] = deque()

    @property
    def stalled_since(self) -> float | None:
        return self.stalled_at

    async def append(self, frame: Frame) -> None:
        self.begun.append(frame)
        if self.holding:
            gate = asyncio.get_running_loop().create_future()
            self._held.append((frame, gate))
            await gate
        await super().append(frame)

    def commit(self) -> None:
        """Let the oldest append that waits become durable."""
        self._held.popleft()[1].set_result(None)

    def fail(self, error: Exception) -> None:
        """Let the oldest append fail with nothing stored."""
        self._held.popleft()[1].set_exception(error)

    async def land_and_fail(self, error: Exception) -> None:
        """Store the oldest frame and report a failure all the same: an unknown outcome that was a success."""
        frame, gate = self._held.popleft()
        await super().append(frame)
        gate.set_exception(error)


class FaultyEngine:
    """The engine, but that it breaks while applying a command of this account."""

    def __init__(self, engine: Engine, account: str, error: Exception) -> None:
        self._engine = engine
        self._account = account
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def apply(self, sequence: int, time_ns: int, command: Command) -> Any:
        events = self._engine.apply(sequence, time_ns, command)
        if command[cmd.C_ACCOUNT] == self._account:
            raise self._error
        return events


@dataclass
class Rig:
    """One sequencer with what it works on."""

    limits: SequencerLimits = field(default_factory=SequencerLimits)
    clock: ManualClock = field(default_factory=lambda: ManualClock(START_NS))
    store: MemoryStore = field(default_factory=MemoryStore)
    published: list[Committed] = field(default_factory=list)
    noise: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[asyncio.Future[list[Result]]] = field(default_factory=list)

    async def start(self, engine: Any = None) -> Rig:
        """Lead under a new epoch, from the journal; makes the markets if there are none."""
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.noise.append(context))
        self.store.epoch += 1
        self.journal = ControlledJournal(self.store)
        recovered = await recovery.recover(self.journal)
        self.engine = recovered.engine
        self.sequencer = Sequencer(
            recovered.engine if engine is None else engine(recovered.engine),
            self.journal,
            shard=0,
            epoch=self.store.epoch,
            head_hash=recovered.frame_hash,
            digest=recovered.digest,
            clock=self.clock,
            on_commit=self.publish,
            limits=self.limits,
        )
        if not self.engine.state.assets:
            results = await self.sequencer.submit(development_commands())
            assert all(result[R_REASON] == 0 for result in results)
        self.published.clear()
        self.journal.begun.clear()
        return self

    def publish(self, committed: Committed, _frame: Frame) -> None:
        self.published.append(committed)

    def place(self, client_order_id: str, **changes: Any) -> asyncio.Future[list[Result]]:
        """Submit one order, see `order`."""
        return self.sequencer.submit([order(client_order_id, **changes)])

    def appending(self) -> bool:
        """Whether an append has begun since the start."""
        return bool(self.journal.begun)

    @property
    def events(self) -> list[Any]:
        """All events that were let out, in order."""
        return [event for frame in self.published for events in frame.events for event in events]

    async def recovered(self) -> recovery.Recovered:
        """What the journal alone says."""
        return await recovery.recover(MemoryJournal(self.store), from_genesis=True)


def order(client_order_id: str, *, account: str = "demo", side: int = c.BUY, price: int = 4_000_000, lots: int = 100,
          expire_ns: int = 0) -> Command:  # fmt: skip
    """A resting limit order, GTD where it expires."""
    tif = c.GTD if expire_ns else c.GTC
    return cmd.place(
        account, BTCUSD, side, c.LIMIT, lots, price, tif=tif, expire_ns=expire_ns, client_order_id=client_order_id
    )


async def turns(count: int = TURNS) -> None:
    """Let the loop run what is ready: for saying that something did not happen."""
    for _ in range(count):
        await asyncio.sleep(0)

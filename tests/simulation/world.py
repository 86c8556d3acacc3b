"""A world of three instances, a database, clients and faults, all made by one seed."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
from collections.abc import Iterator
from random import Random
from typing import Any
from unittest.mock import patch

import structlog

from exchange.trading.journal import postgres_appender, postgres_lease
from exchange.trading.replication.parts import ReplicaTimes
from exchange.trading.sequencer import SequencerLimits
from tests.simulation.auditor import Auditor
from tests.simulation.clients import Client, StreamReader
from tests.simulation.faults import Faults, Plan
from tests.simulation.loop import SimLoop, new_loop
from tests.simulation.network import Network
from tests.simulation.nodes import Node
from tests.simulation.planted import Plant
from tests.simulation.store import Database

NODES = ("n1", "n2", "n3")
ACCOUNTS = ("alice", "bob", "carol")
STREAMS = ("stream-1", "stream-2")
DEFAULT_STEPS = 12_000
"""Callbacks that run while faults are made."""

PROGRESS_S = 30.0
"""Once faults have stopped everything asked is answered, and all instances are equal, within this simulated time."""


class SimulationFailed(AssertionError):
    """A promise is broken. The message says which, and the line that shows it again."""


class World:
    """See the module. `verbose` prints what happens; `planted` is a bug that the engine has in this world; `kinds`
    are the faults that are made, where the seed is not to choose.
    """

    def __init__(
        self,
        seed: int,
        steps: int = DEFAULT_STEPS,
        *,
        verbose: bool = False,
        planted: Plant | None = None,
        kinds: tuple[str, ...] = (),
    ) -> None:
        self.seed = seed
        self.steps = steps
        self.closing = False
        """Clients finish what they have begun."""
        self.loop = new_loop(self.rng("loop"))
        self.context = self.loop.context_of(self.loop.world)
        self.plan = Plan.draw(self.rng("plan"), kinds)
        self.weather = self.plan.weather
        self.times = ReplicaTimes()
        self.sequencer_limits = SequencerLimits()
        self.accounts = list(ACCOUNTS)
        self.network_rng = self.rng("network")
        self.network = Network(self.loop, self.network_rng)
        self.database = Database(self.loop.time)
        self.auditor = Auditor(lambda: self.database.durable, self.loop.time)
        self.database.on_frame = lambda frame: self.auditor.landed(frame, self.database.epoch)
        self.database.on_lost = self.auditor.lost
        self.nodes = [Node(self, name) for name in NODES]
        self.faults = Faults(self, self.rng("faults"))
        self.clients: list[Client] = []
        self.readers: list[StreamReader] = []
        self._verbose = verbose
        self._over = False
        self._planted = planted
        self._digest = hashlib.sha256()

    def rng(self, *names: str) -> Random:
        """Random numbers of one part of the world, which no other part disturbs."""
        return Random(f"{self.seed} {' '.join(names)}")

    def note(self, *what: Any) -> None:
        """Something has happened: it is part of the run's digest."""
        if self._over:
            return
        line = f"{self.loop.time():.6f} {' '.join(map(str, what))}"
        self._digest.update(line.encode())
        if self._verbose:
            print(line)

    @property
    def digest(self) -> str:
        """What happened so far, in one value."""
        return self._digest.hexdigest()

    @property
    def command(self) -> str:
        """The line that runs this world again."""
        return f"make sim SEED={self.seed} STEPS={self.steps}"

    def run(self) -> None:
        """Run it. Raises SimulationFailed."""
        planted = self._planted(self) if self._planted is not None else contextlib.nullcontext()
        with quiet(), simulated_time(self.loop), without_collector(), planted:
            try:
                self._run()
                for process, error in self.loop.died():
                    self.auditor.broken(f"a task of {process} died unheard: {error!r}")
                violation = self.auditor.violation
            finally:
                self._over = True
                self.loop.close_all()
        if violation:
            raise SimulationFailed(f"{violation}\n    {self.command}")

    def _run(self) -> None:
        loop, auditor = self.loop, self.auditor
        loop.run_now(self._begin)
        loop.run(lambda: loop.turns < self.steps and not auditor.violation)
        if auditor.violation:
            return
        loop.run_now(self._end_faults)
        until = loop.time() + PROGRESS_S
        loop.run(lambda: not auditor.violation and loop.time() < until and not self._at_rest())
        if auditor.violation:
            return
        auditor.final(
            {node.name: node.life.desk._seat if node.life is not None else None for node in self.nodes},
            {reader.name: reader.position for reader in self.readers},
        )
        for client in self.clients:
            if not client.idle.is_set():
                auditor.broken(f"{client.account} has no answer {PROGRESS_S} s after the last fault")
        self.note("end", *auditor.head, auditor.acknowledgements, auditor.reads)

    def _begin(self) -> None:
        for node in self.nodes:
            node.start()
        for name in self.accounts:
            client = Client(self, name, self.rng("client", name))
            self.clients.append(client)
            self.loop.spawn(self.loop.process(name), client.run())
        for name in STREAMS:
            reader = StreamReader(self, name, self.rng(name))
            self.readers.append(reader)
            self.loop.spawn(self.loop.process(name), reader.run())
        self._faults = self.loop.spawn(self.loop.world, self.faults.run())

    def _end_faults(self) -> None:
        self._faults.cancel()
        self.faults.heal()
        self.closing = True

    def _at_rest(self) -> bool:
        """Whether all is answered and everybody stands at the same place."""
        if not all(client.idle.is_set() for client in self.clients):
            return False
        head = self.auditor.head
        for node in self.nodes:
            seat = node.life.desk._seat if node.life is not None else None
            if not node.ready or seat is None or (seat.committed_sequence, seat.committed_hash) != head:
                return False
            if seat.engine.state.sequence != head[0]:
                return False
        return all(reader.position == head for reader in self.readers)


@contextlib.contextmanager
def simulated_time(loop: SimLoop) -> Iterator[None]:
    """The journal's own clock, which it reads from the standard library, is the loop's meanwhile."""

    class Time:
        monotonic = staticmethod(loop.time)

    with patch.object(postgres_appender, "time", Time), patch.object(postgres_lease, "time", Time):
        yield


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """When garbage is collected depends on the whole process, and what is collected may wake something."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Instances log what they do by the thousand lines; here only the verdict counts."""
    before = structlog.get_config()
    level = logging.root.manager.disable
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        structlog.configure(**before)
        logging.disable(level)

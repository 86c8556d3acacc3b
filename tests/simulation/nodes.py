"""Instances: the real replica, desk and hub in a simulated process, and what clients may ask of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from exchange.runtime.config import Secret
from exchange.runtime.errors import ServiceError
from exchange.trading.bootstrap import OPERATOR, development_commands
from exchange.trading.core import commands as cmd
from exchange.trading.core.commands import Command
from exchange.trading.core.constants import RULES_VERSION
from exchange.trading.core.events import R_REASON, Result
from exchange.trading.feeds.hub import Hub
from exchange.trading.inspection import Inspector
from exchange.trading.journal.postgres import PostgresJournal
from exchange.trading.journal.postgres_lease import PostgresLease
from exchange.trading.replication.messages import Attendance, LinkLost, ReplicaInfo
from exchange.trading.replication.parts import Parts
from exchange.trading.replication.replica import Replica
from exchange.trading.seat import Seat
from exchange.trading.sequencer import Committed, Sequencer
from exchange.trading.service.desk import Desk
from tests.simulation.loop import Process
from tests.simulation.network import Link, SimTransport
from tests.simulation.store import SimPool, SimSession, Wire

if TYPE_CHECKING:
    from tests.simulation.world import World

START_NS = 1_700_000_000_000_000_000
SHARD = 0
INCARNATION = "simulated"
SNAPSHOT_LOOK_S = 0.5
RESTART_S = 0.5

Answer = TypeVar("Answer")


class Gone(Exception):
    """The instance that was asked is gone, or its answer is: what was asked may have been done."""


class SimClock:
    """An instance's clock. Its wall clock may be set; what has passed is the same for all."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.offset_ns = 0
        self._now = now

    def time_ns(self) -> int:
        return START_NS + int(self._now() * 1e9) + self.offset_ns

    def monotonic(self) -> float:
        return self._now()


class Node:
    """A place where an instance runs, and the instance that runs there now, if one does."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.address = f"{name}:1"
        self.clock = SimClock(world.loop.time)
        self.wire = Wire(world.loop, world.database, world.rng("wire", name), world.weather, world.context)
        self.process: Process = world.loop.process(f"{name} before its first start")
        self.process.dead = True
        self.ready = False
        self.life: Life | None = None
        self._world = world
        self._starts = 0

    @property
    def runs(self) -> bool:
        return not self.process.dead

    def start(self) -> None:
        """Start an instance, with nothing but what the journal holds."""
        assert self.process.dead
        self._starts += 1
        world = self._world
        self.process = world.loop.process(f"{self.name}.{self._starts}")
        self.life = None
        self.ready = False
        self._calls: list[asyncio.Future[Any]] = []
        world.note("start", self.name)
        world.loop.spawn(self.process, self._main())

    async def _main(self) -> None:
        self.life = Life(self._world, self)
        self._world.network.listen(self.address, self)
        why = "stopped"
        try:
            await self.life.replica.run()
        except Exception as error:  # noqa: BLE001 - what ends an instance is the auditor's to judge
            why = f"{type(error).__name__}: {error}"
            self._world.auditor.instance_ended(self.name, error)
        self._world.note("ended", self.name, why)
        self._world.loop.call_soon(self._end, context=self._world.context)

    def _end(self) -> None:
        """The process has ended by itself: whoever supervises it starts it again."""
        self.kill()
        world = self._world
        world.network.at(world.loop.time() + RESTART_S, self.ensure_runs)

    def ensure_runs(self) -> None:
        """Start an instance if none runs."""
        if not self.runs:
            self.start()

    def kill(self) -> None:
        """SIGKILL, or the end of the process."""
        if self.process.dead:
            return
        world, process = self._world, self.process
        world.loop.kill(process)
        self.ready = False
        world.network.died(process)
        for call in self._calls:
            world.network.at(world.loop.time() + 0.001, lambda call=call: _fail(call))  # type: ignore[misc]

    def serve_link(self, link: Link) -> None:
        """A follower connects."""
        self._world.loop.spawn(self.process, self._serve_link(link))

    async def _serve_link(self, link: Link) -> None:
        """As `ReplicaService.Link` does."""
        life = self.life
        links = life.replica.downlinks if life is not None else None
        try:
            if links is None:
                return
            first = await link.up.receive()
            assert first.hello is not None
            down = links.open(first.hello)
            reader = asyncio.create_task(self._read_link(link, down))
            try:
                while True:
                    await link.down.send(await down.next())
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
                links.gone(down)
        except LinkLost:
            return
        finally:
            link.close_server()

    @staticmethod
    async def _read_link(link: Link, down: Any) -> None:
        try:
            while True:
                down.take(await link.up.receive())
        finally:
            down.close()

    async def ask(self, work: Callable[[Life], Awaitable[Answer]], patience_s: float) -> Answer:
        """A client's call. Raises Gone where the outcome is unknown, TimeoutError likewise, and ServiceError."""
        world = self._world
        answer: asyncio.Future[Answer] = world.loop.create_future()
        rng = world.network_rng
        process, life = self.process, self.life

        async def run() -> None:
            try:
                assert life is not None
                value = await work(life)
            except ServiceError as error:
                self._reply(answer, error)
            except Exception as error:  # noqa: BLE001 - no call may end in anything else
                world.auditor.broken(f"a call at {self.name} ended with {error!r}")
            else:
                self._reply(answer, value)

        def arrive() -> None:
            if process.dead or life is None:
                _fail(answer)
            else:
                self._calls.append(answer)
                world.loop.spawn(process, run())

        world.network.at(world.loop.time() + 0.0002 + 0.001 * rng.random(), arrive)
        async with asyncio.timeout(patience_s):
            return await answer

    def _reply(self, answer: asyncio.Future[Any], value: Any) -> None:
        world = self._world
        lost = world.network_rng.random() < world.plan.lost_answers
        delay = 0.0002 + 0.001 * world.network_rng.random()

        def settle() -> None:
            if answer in self._calls:
                self._calls.remove(answer)
            if answer.done():
                return
            if lost:
                _fail(answer)
            elif isinstance(value, Exception):
                answer.set_exception(value)
            else:
                answer.set_result(value)

        world.network.at(world.loop.time() + delay, settle)


def _fail(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(Gone())
        answer.exception()


class Life:
    """One instance: replica, desk and hub, and the `Watcher` between them."""

    def __init__(self, world: World, node: Node) -> None:
        self.node = node
        self._world = world
        session = SimSession(node.wire)
        self.journal = PostgresJournal(
            cast("Any", SimPool(node.wire)),
            cast("Any", session),
            dsn=Secret("simulated"),
            shard=SHARD,
            incarnation=INCARNATION,
            observe_append=None,
        )
        lease = PostgresLease("simulated", shard=SHARD)
        lease._session = cast("Any", SimSession(node.wire))
        self.desk = Desk(instance=node.name, journal=self.journal, clock=node.clock)
        self.hub = Hub(self.journal)
        me = ReplicaInfo(node.name, "", "", "", "simulated", "", 1)
        self.replica = Replica(
            Parts(
                me=me,
                address=node.address,
                shard=SHARD,
                journal=self.journal,
                lease=lease,
                transport=SimTransport(world.network, node.name, node.process),
                clock=node.clock,
                watcher=self,
                times=world.times,
                sequencer_limits=world.sequencer_limits,
                rng=world.rng("replica", node.process.name),
            )
        )

    # --- the watcher ---

    async def joined(self, seat: Seat, snapshot_sequence: int) -> None:
        self._world.auditor.joined(self.node.name, seat)
        self.hub.reset(seat.committed_sequence, seat.committed_hash)

    def seated(self, seat: Seat | None) -> None:
        self.desk.sit(seat)
        role = "none" if seat is None else "leader" if isinstance(seat, Sequencer) else "follower"
        self._world.note("seat", self.node.name, role, seat.committed_sequence if seat is not None else 0)

    def frame(self, committed: Committed) -> None:
        self._world.auditor.applied(self.node.name, self.desk.seat, committed)
        self.hub.publish(committed)

    async def leads(self, sequencer: Sequencer) -> bool:
        self._world.note("leads", self.node.name, sequencer.epoch)
        self._world.auditor.leads(self.node.name, sequencer.epoch)
        if self.desk.state.assets:
            return True
        # As `bootstrap.begin` does.
        commands = [cmd.activate_rules(OPERATOR, version) for version in range(2, RULES_VERSION + 1)]
        commands += development_commands()
        for name in self._world.accounts:
            commands.append(cmd.credit(name, 0, 10**12, request_id=f"first-{name}-0"))
            commands.append(cmd.credit(name, 2, 10**16, request_id=f"first-{name}-2"))
        commands.append(cmd.set_retention(OPERATOR, 100_000, 86_400_000_000_000, 1_000))
        try:
            results = await self.desk.submit(commands)
        except ServiceError:
            return False
        assert all(result[R_REASON] == 0 for result in results)
        return True

    async def while_leading(self, sequencer: Sequencer) -> None:
        """Snapshots, as `Instance` has them made; one that fails is tried again later."""
        inspector = Inspector(self.journal, SHARD)
        tried = sequencer.committed_sequence
        while True:
            await asyncio.sleep(SNAPSHOT_LOOK_S)
            if sequencer.committed_sequence - tried >= self._world.plan.snapshot_every:
                tried = sequencer.committed_sequence
                try:
                    sequence = await inspector.snapshot()
                except Exception as error:  # noqa: BLE001 - as `Instance` does
                    self._world.note("no snapshot", self.node.name, type(error).__name__)
                else:
                    self._world.note("snapshot", self.node.name, sequence)

    async def serving(self, ready: bool) -> None:  # noqa: FBT001 - as the protocol has it
        self.node.ready = ready

    def attended(self) -> Iterable[Attendance]:
        return ()

    def attendance(self, attendance: Attendance) -> None:
        """Sessions live for ever here."""

    def link_lost(self, sessions: set[tuple[str, str]]) -> None:
        """Sessions live for ever here."""

    # --- what clients ask ---

    async def submit(self, commands: list[Command]) -> list[Result]:
        """Apply commands durably; see `Desk.submit`."""
        results = await self.desk.submit(commands)
        self.check(commands, results)
        return results

    def check(self, commands: list[Command], results: list[Result]) -> None:
        """Have the auditor look at results before anybody gets them."""
        self._world.auditor.acknowledged(self.node.name, commands, results)

    async def read(self, account: str, min_sequence: int) -> tuple[int, Any]:
        """An account as of a durable sequence, as the services read: look, then settle."""
        asked = self._world.auditor.newest_acknowledged
        was_fresh = False
        if min_sequence:
            await self.desk.reach(min_sequence)
        else:
            was_fresh = await self.desk.fresh()
        sequence = self.desk.state.sequence
        view = self._world.auditor.view_of(self.desk.state, account)
        await self.desk.settle()
        self._world.auditor.read(self.node.name, account, sequence, view, max(min_sequence, asked if was_fresh else 0))
        return sequence, view

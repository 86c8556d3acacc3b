"""An instance that follows, where its links do not go as they should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from exchange.runtime.clock import SystemClock
from exchange.trading import recovery
from exchange.trading.journal.memory import MemoryJournal, MemoryLease, MemoryStore
from exchange.trading.replication.follower import Follower
from exchange.trading.replication.following import Following
from exchange.trading.replication.messages import (
    Attendance,
    Connection,
    FollowerBatch,
    LeaderBatch,
    LeaderHello,
    LinkLost,
    ReplicaInfo,
)
from exchange.trading.replication.parts import Parts
from exchange.trading.replication.uplink import Uplink, UplinkLimits
from exchange.trading.seat import Seat
from exchange.trading.sequencer import Committed, Sequencer
from tests.integration.journal.waiting import until

LEASE_S = 60.0
SOON_S = 5.0


class Silent:
    """A link to a process that is stopped: it takes everything and says nothing."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def send(self, batch: FollowerBatch) -> None:
        if self.closed.is_set():
            raise LinkLost("closed")

    async def receive(self) -> LeaderBatch:
        await self.closed.wait()
        raise LinkLost("closed")

    def close(self) -> None:
        self.closed.set()


class Answering(Silent):
    """A link to a leader of an empty exchange, until it is closed."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self._epoch = epoch
        self._answers: asyncio.Queue[LeaderBatch | None] = asyncio.Queue()

    async def send(self, batch: FollowerBatch) -> None:
        await super().send(batch)
        if batch.hello is not None:
            self._answers.put_nowait(LeaderBatch(hello=LeaderHello("one", self._epoch, 1)))
        self._answers.put_nowait(LeaderBatch(pong=batch.ping))

    async def receive(self) -> LeaderBatch:
        answer = await self._answers.get()
        if answer is None:
            raise LinkLost("closed")
        return answer

    def close(self) -> None:
        super().close()
        self._answers.put_nowait(None)


@dataclass
class Surroundings:
    """The transport, and the watcher: what was connected to, and whether clients are served."""

    connect_to: Callable[[str, int], Connection]
    addresses: list[str] = field(default_factory=list)
    is_serving: bool = False

    async def connect(self, address: str, epoch: int) -> Connection:
        self.addresses.append(address)
        return self.connect_to(address, epoch)

    async def joined(self, seat: Seat, snapshot_sequence: int) -> None: ...

    def seated(self, seat: Seat | None) -> None: ...

    def frame(self, committed: Committed) -> None: ...

    async def leads(self, sequencer: Sequencer) -> bool:
        return True

    async def while_leading(self, sequencer: Sequencer) -> None: ...

    async def serving(self, ready: bool) -> None:  # noqa: FBT001 - it is the state
        self.is_serving = ready

    def attended(self) -> Iterable[Attendance]:
        return ()

    def attendance(self, attendance: Attendance) -> None: ...

    def link_lost(self, sessions: set[tuple[str, str]]) -> None: ...


@asynccontextmanager
async def following(around: Surroundings, store: MemoryStore, limits: UplinkLimits) -> AsyncIterator[None]:
    """The instance "two" follows; its core is new."""
    journal = MemoryJournal(store)
    parts = Parts(
        me=ReplicaInfo("two", "FOLLOWER", "", "", "", "", 1),
        address="address of two",
        shard=0,
        journal=journal,
        lease=MemoryLease(store, ttl_seconds=LEASE_S),
        transport=around,
        clock=SystemClock(),
        watcher=around,
    )
    uplink = Uplink(parts.clock, attended=around.attended, limits=limits)
    follower = Follower(await recovery.recover(journal), journal, uplink, on_frame=around.frame)
    stopping = asyncio.Event()
    running = asyncio.create_task(Following(parts, follower).run(stopping))
    try:
        yield
        assert not running.done()
    finally:
        stopping.set()
        await running
        follower.stop()
        uplink.stop()


async def test_a_leader_that_says_nothing_is_left_as_soon_as_another_leads() -> None:
    silent = {name: Silent() for name in ("one", "three")}
    store = MemoryStore()
    around = Surroundings(lambda address, _: silent[address])
    epoch = await MemoryLease(store, ttl_seconds=LEASE_S).acquire("one", "one")
    assert epoch is not None
    async with following(around, store, UplinkLimits(silence_s=LEASE_S)):
        await until(lambda: around.addresses == ["one"], SOON_S)
        await MemoryLease(store, ttl_seconds=LEASE_S).acquire("three", "three", deposing=epoch)

        await until(lambda: around.addresses == ["one", "three"], SOON_S)
        assert silent["one"].closed.is_set()
        assert not silent["three"].closed.is_set()


async def test_clients_are_sent_elsewhere_while_others_have_a_leader_and_this_instance_has_no_link() -> None:
    links: list[Answering] = []
    reachable = True

    def connect_to(_: str, epoch: int) -> Connection:
        if not reachable:
            raise LinkLost("no way there")
        links.append(Answering(epoch))
        return links[-1]

    store = MemoryStore()
    around = Surroundings(connect_to)
    await MemoryLease(store, ttl_seconds=LEASE_S).acquire("one", "one")
    async with following(around, store, UplinkLimits(hold_s=0.2)):
        await until(lambda: around.is_serving, SOON_S)
        reachable = False
        links[-1].close()
        await until(lambda: not around.is_serving, SOON_S)
        reachable = True
        await until(lambda: around.is_serving, SOON_S)

"""Links between instances, as TCP gives them: in order, late, and gone at any moment, for one side before the other.

A partition holds back what is sent; it arrives when the partition ends, unless its receiver is gone. Connecting is
refused only where no process listens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from exchange.trading.replication.messages import FollowerBatch, LeaderBatch, LinkLost, Refused
from tests.simulation.loop import Process, SimLoop

CONNECT_TIMEOUT_S = 1.0
WINDOW = 64
"""Messages under way before a sender has to wait."""

Message = TypeVar("Message")


class Listener(Protocol):
    """What listens at an instance's address."""

    name: str
    process: Process

    def serve_link(self, link: Link) -> None:
        """Take a new link: start to serve it, in the process."""
        ...


class Pipe(Generic[Message]):
    """One direction of a link."""

    def __init__(self, network: Network, source: str, target: str, reader: Process) -> None:
        self._network = network
        self._route = (source, target)
        self._reader = reader
        self._arrived: deque[Message] = deque()
        self._under_way = 0
        self._last_arrival = 0.0
        self._waiting_readers: list[asyncio.Future[None]] = []
        self._waiting_writers: list[asyncio.Future[None]] = []
        self.reset_for_writer = False
        self.reset_for_reader = False

    async def send(self, message: Message) -> None:
        """Send, once there is room. Raises LinkLost."""
        while self._under_way + len(self._arrived) >= WINDOW and not self.reset_for_writer:
            await self._wait(self._waiting_writers)
        if self.reset_for_writer:
            raise LinkLost("the connection is gone")
        self._under_way += 1
        when = max(self._last_arrival, self._network.now() + self._network.delay(self._route))
        self._last_arrival = when
        self._network.at(when, lambda: self._network.through(self._route, lambda: self._arrive(message)))

    async def receive(self) -> Message:
        """The next message. Raises LinkLost."""
        while not self._arrived and not self.reset_for_reader:
            await self._wait(self._waiting_readers)
        if not self._arrived:
            raise LinkLost("the connection is gone")
        message = self._arrived.popleft()
        wake(self._waiting_writers)
        return message

    def reset_writer(self) -> None:
        """The writer learns that the connection is gone."""
        self.reset_for_writer = True
        wake(self._waiting_writers)

    def reset_reader(self, *, at_once: bool = False) -> None:
        """The reader learns it, after all that has arrived before."""
        self.reset_for_reader = True
        if at_once:
            self._arrived.clear()
        wake(self._waiting_readers)

    def _arrive(self, message: Message) -> None:
        self._under_way -= 1
        if self.reset_for_reader or self._reader.dead:
            return
        self._arrived.append(message)
        wake(self._waiting_readers)

    async def _wait(self, waiting: list[asyncio.Future[None]]) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        await future


class Link:
    """A connection from a follower (`client`) to a leader (`server`)."""

    def __init__(self, network: Network, client: str, client_process: Process, server: Listener) -> None:
        self.client = client
        self.server = server.name
        self.client_process = client_process
        self.server_process = server.process
        self._network = network
        self.up: Pipe[FollowerBatch] = Pipe(network, client, server.name, server.process)
        self.down: Pipe[LeaderBatch] = Pipe(network, server.name, client, client_process)

    def close_client(self) -> None:
        """The follower lets go; the leader hears of it as the network allows."""
        self.up.reset_writer()
        self.down.reset_reader(at_once=True)
        self._tell((self.client, self.server), self._reset_server)

    def close_server(self) -> None:
        """The leader ends the link, once what it has sent has gone."""
        self.up.reset_reader(at_once=True)
        self.down.reset_writer()
        self._tell((self.server, self.client), self._reset_client)

    def _reset_server(self) -> None:
        self.up.reset_reader()
        self.down.reset_writer()

    def _reset_client(self) -> None:
        self.up.reset_writer()
        self.down.reset_reader()

    def _tell(self, route: tuple[str, str], act: Callable[[], None]) -> None:
        network = self._network
        # Behind what was sent before: a stream ends in order.
        pipe: Pipe[Any] = self.up if route[0] == self.client else self.down
        when = max(pipe._last_arrival, network.now() + network.delay(route))
        pipe._last_arrival = when
        network.at(when, lambda: network.through(route, act))

    def cut(self, client_after_s: float, server_after_s: float) -> None:
        """The connection breaks: each side learns it in its own time."""
        now = self._network.now()
        self._network.at(now + client_after_s, self._reset_client)
        self._network.at(now + server_after_s, self._reset_server)

    def died(self, process: Process) -> None:
        """A process at one end is gone: its kernel tells the other."""
        if process is self.client_process:
            self._tell((self.client, self.server), self._reset_server)
        elif process is self.server_process:
            self._tell((self.server, self.client), self._reset_client)


class Network:
    """All links, and the addresses at which somebody listens."""

    def __init__(self, loop: SimLoop, rng: Random) -> None:
        self.slow_routes: dict[tuple[str, str], float] = {}
        """Routes on which a message takes up to so many seconds."""
        self.links: list[Link] = []
        self._loop = loop
        self._rng = rng
        self._context: Context = loop.context_of(loop.world)
        self._listening: dict[str, Listener] = {}
        self._parted: set[frozenset[str]] = set()
        self._held: list[tuple[tuple[str, str], Callable[[], None]]] = []

    def now(self) -> float:
        return self._loop.time()

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do something at a time, whatever becomes of who asked for it."""
        self._loop.call_at(when, act, context=self._context)

    def delay(self, route: tuple[str, str]) -> float:
        """Seconds that a message takes."""
        return 0.0001 + self._rng.random() * self.slow_routes.get(route, 0.001)

    # --- faults ---

    def part(self, one: str, other: str) -> None:
        """Nothing passes between two instances from now on."""
        self._parted.add(frozenset((one, other)))

    def mend(self) -> None:
        """All partitions end, and what they held back arrives."""
        self._parted.clear()
        self.slow_routes.clear()
        held, self._held = self._held, []
        for _, act in held:
            act()

    def through(self, route: tuple[str, str], act: Callable[[], None]) -> None:
        """What arrives at the end of a route, unless a partition holds it back."""
        if self._parted and frozenset(route) in self._parted:
            self._held.append((route, act))
        else:
            act()

    # --- instances ---

    def listen(self, address: str, listener: Listener) -> None:
        """A process listens at an address."""
        self._listening[address] = listener

    def died(self, process: Process) -> None:
        """A process is gone, and with it its ends of all links."""
        for address, listener in list(self._listening.items()):
            if listener.process is process:
                del self._listening[address]
        for link in self.links:
            link.died(process)
        self.links = [link for link in self.links if process not in (link.client_process, link.server_process)]

    async def connect(self, client: str, process: Process, address: str, server: str) -> Link:
        """Open a link. Raises Refused where nobody listens, LinkLost where nothing comes through."""
        await asyncio.sleep(self.delay((client, server)))
        if frozenset((client, server)) in self._parted:
            await asyncio.sleep(CONNECT_TIMEOUT_S)
            raise LinkLost("no connection in time")
        listener = self._listening.get(address)
        if listener is None:
            raise Refused(f"nobody listens at {address}")
        link = Link(self, client, process, listener)
        self.links = [known for known in self.links if not known.up.reset_for_writer or not known.down.reset_for_writer]
        self.links.append(link)
        listener.serve_link(link)
        return link


class SimConnection:
    """`Connection` over a link: the follower's end."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._closed = False

    async def send(self, batch: FollowerBatch) -> None:
        await self._link.up.send(batch)

    async def receive(self) -> LeaderBatch:
        return await self._link.down.receive()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._link.close_client()


class SimTransport:
    """`Transport` of one instance."""

    def __init__(self, network: Network, name: str, process: Process) -> None:
        self._network = network
        self._name = name
        self._process = process

    async def connect(self, address: str, epoch: int) -> SimConnection:
        server = address.partition(":")[0]
        return SimConnection(await self._network.connect(self._name, self._process, address, server))


def wake(waiting: list[asyncio.Future[None]]) -> None:
    """Let all who wait look again."""
    woken, waiting[:] = list(waiting), []
    for future in woken:
        if not future.done():
            future.set_result(None)

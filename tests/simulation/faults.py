"""What goes wrong, and when: decided by the seed. Each world has its own mixture, so that rare combinations meet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.store import Weather

if TYPE_CHECKING:
    from tests.simulation.nodes import Node
    from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class Plan:
    """The mixture of one world. Rates are chances for each call, frequencies events a second."""

    requests_per_s: float
    reads: float
    """The share of requests that are reads."""
    snapshot_every: int
    lost_answers: float
    faults_per_s: float
    kinds: tuple[str, ...]
    weather: Weather

    @classmethod
    def draw(cls, rng: Random, kinds: tuple[str, ...]) -> Plan:
        """A mixture; of faults of the given kinds, where there are any given."""
        drawn = [kind for kind in KINDS if rng.random() < 0.6] or ["crash"]
        return cls(
            requests_per_s=rng.choice((3.0, 8.0, 20.0)),
            reads=rng.choice((0.1, 0.2, 0.6)),
            snapshot_every=rng.choice((20, 60, 1_000_000)),
            lost_answers=rng.choice((0.0, 0.02, 0.1)),
            faults_per_s=rng.choice((0.7, 1.5, 3.0)),
            kinds=kinds or tuple(drawn),
            weather=Weather(
                lost_requests=rng.choice((0.0, 0.01, 0.03)),
                lost_replies=rng.choice((0.0, 0.01, 0.03)),
                late_requests=rng.choice((0.0, 0.01, 0.03)),
                slow=rng.choice((0.0, 0.02, 0.1)),
            ),
        )


class Faults:
    """Makes faults until it is told to stop; `heal` then ends all that still last."""

    def __init__(self, world: World, rng: Random) -> None:
        self.made: dict[str, int] = {}
        self._world = world
        self._rng = rng
        self._lasting: set[asyncio.Task[None]] = set()
        self._kinds: dict[str, Callable[[], None]] = {kind: getattr(self, f"_{kind}") for kind in KINDS}

    async def run(self) -> None:
        world, rng = self._world, self._rng
        while True:
            await asyncio.sleep(rng.expovariate(world.plan.faults_per_s))
            kind = rng.choice(world.plan.kinds)
            self.made[kind] = self.made.get(kind, 0) + 1
            self._kinds[kind]()

    def heal(self) -> None:
        """Everything works from now on: partitions end, processes wake or start, servers serve."""
        world = self._world
        for task in self._lasting:
            task.cancel()
        world.note("heal")
        world.network.mend()
        calm = Weather()
        for node in world.nodes:
            node.wire.weather = calm
            node.wire.mend()
            node.clock.offset_ns = 0
            world.loop.resume(node.process)
            node.ensure_runs()
        world.database.expose_next = ""
        world.database.replicate()
        world.database.start()

    # --- choosing ---

    def _victim(self) -> Node:
        """Most faults that matter befall the leader."""
        world = self._world
        leader = [node for node in world.nodes if node.name == world.database.holder]
        return leader[0] if leader and self._rng.random() < 0.6 else self._rng.choice(world.nodes)

    def _pair(self) -> tuple[str, str]:
        one, other = self._rng.sample([node.name for node in self._world.nodes], 2)
        return one, other

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            act()

        task = asyncio.create_task(wait())
        self._lasting.add(task)
        task.add_done_callback(self._lasting.discard)

    # --- processes ---

    def _crash(self) -> None:
        node = self._victim()
        self._world.note("kill", node.name)
        node.kill()
        self._after(self._rng.choice((0.0, 0.3, 3.0)) * self._rng.random(), node.ensure_runs)

    def _stop(self) -> None:
        """SIGTERM."""
        node = self._victim()
        if node.life is not None and node.runs:
            self._world.note("stop", node.name)
            self._world.loop.call_soon(node.life.replica.stop, context=self._world.loop.context_of(node.process))

    def _pause(self) -> None:
        node = self._victim()
        process = node.process
        self._world.note("pause", node.name)
        self._world.loop.pause(process)
        self._after(self._rng.choice((0.3, 1.5, 5.0)) * self._rng.random(), lambda: self._world.loop.resume(process))

    def _hand_over(self) -> None:
        node = self._victim()
        if node.life is not None and node.runs:
            self._world.note("hand over", node.name)
            self._world.loop.spawn(node.process, node.life.replica.hand_over())

    def _set_clock(self) -> None:
        node = self._rng.choice(self._world.nodes)
        jump_s = self._rng.choice((-1, 1)) * self._rng.choice((0.01, 2.0, 3_600.0)) * self._rng.random()
        self._world.note("clock", node.name, round(jump_s, 6))
        node.clock.offset_ns += int(jump_s * 1e9)

    # --- between instances ---

    def _cut(self) -> None:
        links = self._world.network.links
        if links:
            link = self._rng.choice(links)
            self._world.note("cut", link.client, link.server)
            late = self._rng.choice((0.0, 0.0, 3.0))
            link.cut(late * self._rng.random(), late * self._rng.random())

    def _partition(self) -> None:
        one, other = self._pair()
        self._world.note("partition", one, other)
        self._world.network.part(one, other)
        self._after(self._rng.choice((0.5, 4.0)) * self._rng.random(), self._world.network.mend)

    def _slow_route(self) -> None:
        route = self._pair()
        self._world.note("slow", *route)
        self._world.network.slow_routes[route] = self._rng.choice((0.02, 0.3))

    # --- the database ---

    def _part_from_database(self) -> None:
        node = self._victim()
        self._world.note("apart from the database", node.name)
        node.wire.broken = True
        self._after(self._rng.choice((0.4, 3.0, 8.0)) * self._rng.random(), node.wire.mend)

    def _database_away(self) -> None:
        database = self._world.database
        self._world.note("database away")
        database.stop()
        self._after(self._rng.choice((0.3, 3.5, 9.0)) * self._rng.random(), database.start)

    def _fail_over(self) -> None:
        """The primary dies; for a moment before that a commit may be seen that the standby does not have."""
        database = self._world.database
        database.expose_next = self._rng.choice(("", "break", "warn"))
        self._world.note("fail-over", database.expose_next)

        def dies() -> None:
            database.stop()
            self._after(self._rng.random(), database.fail_over)

        self._after(0.8 * self._rng.random(), dies)

    def _standby_lags(self) -> None:
        database = self._world.database
        database.expose_next = self._rng.choice(("break", "warn"))
        self._world.note("standby lags")
        self._after(1.5 * self._rng.random(), database.replicate)


KINDS = (
    "crash", "stop", "pause", "hand_over", "set_clock", "cut", "partition", "slow_route", "part_from_database",
    "database_away", "fail_over", "standby_lags",
)  # fmt: skip

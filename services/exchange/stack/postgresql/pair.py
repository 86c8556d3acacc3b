"""PostgreSQL as a primary and a synchronous standby: `pincex up --standby`. What it promises: docs/DATABASE.md."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from exchange.stack.edge.plan import LOOPBACK
from exchange.stack.errors import StackError
from exchange.stack.postgresql.cluster import Cluster
from exchange.stack.postgresql.controller import WENT_WRONG, Controller
from exchange.stack.postgresql.copy import rebuild
from exchange.stack.postgresql.node import Node
from exchange.stack.postgresql.place import FIRST_FOLDER, find_place
from exchange.stack.postgresql.probe import UNREACHABLE
from exchange.stack.postgresql.roles import ADMIN, DATABASE, password, provision
from exchange.stack.postgresql.server import (
    READY_TIMEOUT_S,
    STOP_RANK,
    STOP_SIGNAL,
    STOP_TIMEOUT_S,
    make_cluster,
)
from exchange.stack.postgresql.state import FIRST, NUMBERS, SECOND, STATE_FILE, PairState, Standby, load
from exchange.stack.service import Plain, Traits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from exchange.stack.postgresql.place import Place
    from exchange.stack.service import Launch

# How long `up` waits for the standby; the exchange then starts without one, and says so.
IN_SYNC_TIMEOUT_S = 30.0

_POLL_S = 0.02


def has_pair(home: Path) -> bool:
    """Whether this data folder has a standby, or has had one. Raises StackError."""
    return load(home) is not None or _place_of(home, SECOND).has_data


class PostgresPair(Plain):
    """Two instances, of which the state file says which is the primary. The first has the folder of a single server."""

    def __init__(
        self,
        home: Path,
        ports: Mapping[int, int],
        environment: Mapping[str, str],
        report: Callable[[dict[str, object]], None],
    ) -> None:
        """`home` is the stack's data folder; `report` gets what an operator must know, see `Cluster`."""
        super().__init__(
            Traits(
                name="postgres",
                role="standby",
                stop_rank=STOP_RANK,
                stop_signal=STOP_SIGNAL,
                stop_timeout_s=STOP_TIMEOUT_S,
                ready_timeout_s=READY_TIMEOUT_S,
                numbered=True,
                least_instances=len(NUMBERS),
                max_instances=len(NUMBERS),
            ),
        )
        self._home = home
        self._environment = environment
        self._port_of = ports
        nodes = {number: self._node(number) for number in NUMBERS}
        self._cluster = Cluster(home, nodes, report)
        self._started: set[int] = set()

    def url(self, role: str, database: str = DATABASE) -> str:
        """A libpq URL of both servers, for clients that take the one that accepts writes."""
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self._port_of.values())
        return f"postgresql://{role}:{password(self._home, role)}@{hosts}/{database}?target_session_attrs=read-write"

    def ports(self, number: int) -> Mapping[str, int]:
        """Its one port."""
        return {"postgres": self._port_of[number]}

    def describe(self) -> dict[str, object]:
        """For `pincex status`: epoch, primary, standby, degraded, fail_overs."""
        return self._cluster.describe()

    async def role(self, number: int) -> str:
        """`primary` or `standby`, by the state file."""
        return "primary" if number == self._cluster.state.primary else "standby"

    async def prepare(self) -> None:
        """Finds out who is the primary; makes its files at the first start. Raises StackError."""
        state = load(self._home)
        first = self._cluster.nodes[FIRST].place
        if state is None:
            if has_pair(self._home):
                raise StackError(f"{self._home / STATE_FILE} is gone: it says which PostgreSQL is the primary")
            # A folder of a single server becomes the primary of a pair.
            if not first.has_data:
                await make_cluster(first, password(self._home, ADMIN), self._environment)
            state = PairState(1, FIRST, Standby.ABSENT)
        elif not self._cluster.nodes[state.primary].place.has_data:
            # The disk of the primary is lost. What it acknowledged is on a standby in sync, and nowhere otherwise.
            if state.standby is not Standby.IN_SYNC or not self._cluster.nodes[state.other].place.has_data:
                data = self._cluster.nodes[state.primary].place.data
                raise StackError(f"the data of the primary are gone ({data}), and no standby was in sync")
            state = state.failed_over()
        self._cluster.begin(state)

    async def attend(self) -> None:
        """Runs the controller."""
        await Controller(self._cluster).run()

    async def before_start(self, number: int) -> None:
        """Waits until it is settled what this server is to be, and makes it that. Raises StackError."""
        cluster, node = self._cluster, self._cluster.nodes[number]
        if number in self._started:
            cluster.ended.add(number)
        self._started.add(number)
        # A primary that died is not simply started again while its standby can take its place.
        await cluster.until(lambda: not self._may_be_replaced(number))
        try:
            await self._make_ready(node)
        except OSError as error:
            raise StackError(f"the files of {node.name} cannot be written: {error}") from error

    async def _make_ready(self, node: Node) -> None:
        cluster = self._cluster
        await node.end_all()
        if node.number == cluster.state.primary:
            in_sync = cluster.state.standby is Standby.IN_SYNC
            node.write_primary_settings(cluster.standby if in_sync else None)
            return
        if cluster.state.standby is Standby.ABSENT:
            await self._rebuild(node)
        node.write_standby_settings(cluster.primary)
        node.make_standby()

    def launch(self, number: int) -> Launch:
        """The server process. Raises StackError rather than start a second primary."""
        node = self._cluster.nodes[number]
        if number != self._cluster.state.primary and not node.is_standby:
            raise StackError(f"{node.name} is not the primary and would not start as a standby")
        self._cluster.ended.discard(number)
        return node.launch()

    async def is_ready(self, number: int) -> bool:
        """The primary once it accepts writes, the standby once it can be asked."""
        try:
            connection = await self._cluster.nodes[number].connect()
        except UNREACHABLE:
            return False
        try:
            recovers: bool = await connection.fetchval("SELECT pg_is_in_recovery()")
        except UNREACHABLE:
            return False
        finally:
            connection.terminate()
        return not recovers or number != self._cluster.state.primary

    async def provision(self) -> None:
        """Makes database and roles, and waits for the standby to be in sync, for a bounded time. Raises StackError."""
        await self._provision()
        try:
            async with asyncio.timeout(IN_SYNC_TIMEOUT_S):
                await self._cluster.until(lambda: self._cluster.state.standby is Standby.IN_SYNC)
        except TimeoutError:
            self._cluster.say(
                f"DEGRADED: no standby is in sync after {IN_SYNC_TIMEOUT_S:g} s; the exchange starts anyway"
            )

    def _may_be_replaced(self, number: int) -> bool:
        cluster = self._cluster
        return (
            number in cluster.ended
            and number == cluster.state.primary
            and cluster.state.standby is Standby.IN_SYNC
            and not cluster.standby_lost
        )

    async def _rebuild(self, node: Node) -> None:
        """Makes the data of a standby from the primary, which may have to start first. Raises StackError."""
        cluster = self._cluster
        while not await self.is_ready(cluster.state.primary):  # noqa: ASYNC110  # a server has no event
            await asyncio.sleep(_POLL_S)
        # The role that streams must be there.
        await self._provision()
        try:
            how = await rebuild(node, cluster.primary)
        except WENT_WRONG as error:
            cluster.say(f"{node.name} could not be rebuilt as a standby: {error}")
            raise StackError(str(error)) from error
        await cluster.become(cluster.state.with_standby(Standby.FOLLOWING))
        cluster.say(f"{node.name} was {how} as a standby of {cluster.primary.name}")

    async def _provision(self) -> None:
        await provision(self._home, lambda database: self._cluster.primary.url(ADMIN, database))

    def _node(self, number: int) -> Node:
        return Node(
            number=number,
            home=self._home,
            place=_place_of(self._home, number),
            port=self._port_of[number],
            log=self._home / "logs" / f"postgres-{number}.log",
            environment=self._environment,
        )


def _place_of(home: Path, number: int) -> Place:
    """The first server's place is that of a single one."""
    return find_place(home, FIRST_FOLDER if number == FIRST else f"{FIRST_FOLDER}-{number}")

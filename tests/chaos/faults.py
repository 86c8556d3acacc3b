"""What the monkey does to a running exchange."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exchange.stack.errors import StackError
from tests.integration.journal.waiting import until
from tests.integration.recovery.edge import ENGINE, AtTheEdge

SHORTEST_STOP_S = 0.5
LONGEST_STOP_S = 5.0
MOST_ENGINES = 4
GONE_DEADLINE_S = 30.0


@dataclass
class Zoo:
    """The exchange under attack, and how many engines it is to have when all is well."""

    exchange: AtTheEdge
    engines: int
    rng: random.Random

    async def healed(self) -> bool:
        """Whether everything that is to run is ready, with one leader, and PostgreSQL's standby, if any, is in sync."""
        status = await asyncio.to_thread(self.exchange.stack.status)
        services = status["services"]
        engines = [one for one in services if one["service"] == ENGINE]
        return (
            {one["state"] for one in services} == {"ready"}
            and len(engines) == self.engines
            and sum(one["role"] == "leader" for one in engines) == 1
            and not status.get("database", {}).get("degraded", False)
        )

    async def entry(self, service: str, role: str = "") -> dict[str, Any]:
        """Any ready instance of a service, in a role if one is given; waits until there is one."""
        found: list[dict[str, Any]] = []

        async def there() -> bool:
            status = await asyncio.to_thread(self.exchange.stack.status)
            found[:] = [
                one
                for one in status["services"]
                if one["service"] == service and one["state"] == "ready" and role in {"", one["role"]}
            ]
            return bool(found)

        await until(there)
        return self.rng.choice(found)

    async def is_gone(self, entry: dict[str, Any]) -> bool:
        """Whether the process of a status entry runs no more."""
        status = await asyncio.to_thread(self.exchange.stack.status)
        return entry["pid"] not in {one["pid"] for one in status["services"]}


Strike = Callable[[Zoo], Awaitable[str]]
"""Does it, and answers to whom, in words."""


def _killing(service: str, role: str = "", signal_name: str = "KILL") -> Strike:
    async def strike(zoo: Zoo) -> str:
        entry = await zoo.entry(service, role)
        with suppress(StackError):  # it has just died of another fault
            zoo.exchange.stack.kill(entry["name"], signal_name)
        await until(lambda: zoo.is_gone(entry), GONE_DEADLINE_S)
        return str(entry["name"])

    return strike


def _stopping(service: str, role: str = "") -> Strike:
    async def strike(zoo: Zoo) -> str:
        entry = await zoo.entry(service, role)
        seconds = zoo.rng.uniform(SHORTEST_STOP_S, LONGEST_STOP_S)
        pids = [entry["pid"], *_children(entry["pid"])]
        _signal(pids, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            _signal(pids, signal.SIGCONT)
        return f"{entry['name']} for {seconds:.1f} s"

    return strike


async def _scale(zoo: Zoo) -> str:
    """To another number of engines, and back."""
    normal = zoo.engines
    other = zoo.rng.choice([number for number in range(1, MOST_ENGINES + 1) if number != normal])
    for zoo.engines in (other, normal):
        await zoo.exchange.scale(zoo.engines)
    return f"{normal} -> {other} -> {normal}"


def _children(pid: int) -> list[int]:
    """Processes whose parent this is: PostgreSQL serves each connection by one."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # After the name in parentheses: the state, then the parent.
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


FAULTS: dict[str, Strike] = {
    "kill the leader": _killing(ENGINE, "leader"),
    "kill a follower": _killing(ENGINE, "follower"),
    "stop the leader": _stopping(ENGINE, "leader"),
    "stop a follower": _stopping(ENGINE, "follower"),
    "restart the leader": _killing(ENGINE, "leader", "TERM"),
    "restart a follower": _killing(ENGINE, "follower", "TERM"),
    "scale": _scale,
    "kill Envoy": _killing("envoy"),
    "stop Envoy": _stopping("envoy"),
    "kill Valkey": _killing("valkey"),
    "stop Valkey": _stopping("valkey"),
    "kill PostgreSQL": _killing("postgres", "primary"),
    "stop PostgreSQL": _stopping("postgres", "primary"),
}
FOLLOWER_FAULTS = frozenset({"kill a follower", "stop a follower", "restart a follower"})

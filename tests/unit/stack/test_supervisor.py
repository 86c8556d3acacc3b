"""What the supervisor does for a service besides starting its instances."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from exchange.stack.errors import StackError
from exchange.stack.service import Launch, Plain, Traits
from exchange.stack.services import Stack
from exchange.stack.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEADLINE_S = 10.0


class Attended(Plain):
    """A process that sleeps, looked after by a task that notes what it sees."""

    def __init__(self, folder: Path, fault: Exception | None = None) -> None:
        super().__init__(Traits("s", "r", numbered=True, least_instances=2, max_instances=2))
        self.folder, self.fault = folder, fault
        self.noted: list[str] = []
        self.may_start = asyncio.Event()

    async def attend(self) -> None:
        self.noted.append("attend")
        if self.fault is not None:
            raise self.fault
        try:
            await asyncio.Event().wait()
        finally:
            self.noted.append("left alone")

    async def before_start(self, number: int) -> None:
        self.noted.append(f"before {number}")
        await self.may_start.wait()

    def launch(self, number: int) -> Launch:
        self.noted.append(f"launch {number}")
        return Launch([sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ), self.folder)

    async def is_ready(self, number: int) -> bool:
        return True

    def ports(self, number: int) -> Mapping[str, int]:
        return {}


class Edge:
    """Takes endpoints and does nothing with them."""

    def publish(self, endpoints: Mapping[str, list[int]]) -> None:
        del endpoints


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


def supervisor_of(service: Attended, home: Path) -> Supervisor:
    edge: Any = Edge()
    return Supervisor(Stack((service,), edge, 0, {"edge_url": None}), home, lambda _: None)


async def until(service: Attended, noted: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while noted not in service.noted:  # noqa: ASYNC110  # the supervisor has no event for every step
            await asyncio.sleep(0.005)


async def test_a_service_is_attended_from_before_its_first_start_until_its_stop(home: Path) -> None:
    service = Attended(home)
    supervisor = supervisor_of(service, home)
    running = asyncio.create_task(supervisor.run({"s": 1}, lambda: None))
    await until(service, "before 2")
    # As many as it needs at least, whatever was wanted last time; none is started before it may be.
    assert service.noted == ["attend", "before 1", "before 2"]
    service.may_start.set()
    await until(service, "launch 2")
    assert "left alone" not in service.noted

    supervisor.request_stop()
    await asyncio.wait_for(running, DEADLINE_S)

    assert service.noted[-1] == "left alone"


async def test_a_stop_does_not_wait_for_what_comes_before_a_start(home: Path) -> None:
    service = Attended(home)
    supervisor = supervisor_of(service, home)
    running = asyncio.create_task(supervisor.run({}, lambda: None))
    await until(service, "before 2")

    supervisor.request_stop()
    await asyncio.wait_for(running, DEADLINE_S)

    assert not [noted for noted in service.noted if noted.startswith("launch")]


async def test_nothing_goes_on_running_when_a_service_can_be_looked_after_no_more(home: Path) -> None:
    supervisor = supervisor_of(Attended(home, fault=AssertionError("a broken invariant")), home)

    with pytest.raises(StackError, match="s can be looked after no more: AssertionError"):
        await asyncio.wait_for(supervisor.run({}, lambda: None), DEADLINE_S)

    assert supervisor.phase == "stopped"

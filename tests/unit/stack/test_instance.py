"""One process is started, watched and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from exchange.stack import instance as instance_module
from exchange.stack.errors import StackError
from exchange.stack.instance import FIRST_DELAY_S, LONGEST_DELAY_S, Instance, State
from exchange.stack.service import Launch, Plain, Traits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

DEADLINE_S = 10.0
SLEEP = "import time; time.sleep(60)"


class Script(Plain):
    """Runs a line of Python; ready when `ready` says so."""

    def __init__(self, folder: Path, code: str, traits: Traits, ready: Callable[[], bool] = lambda: True) -> None:
        super().__init__(traits)
        self.folder, self.code, self.ready = folder, code, ready

    def launch(self, number: int) -> Launch:
        return Launch([sys.executable, "-c", self.code], dict(os.environ), self.folder)

    async def is_ready(self, number: int) -> bool:
        return self.ready()

    def ports(self, number: int) -> Mapping[str, int]:
        return {}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # the instance has no event for every change
            await asyncio.sleep(0.005)


async def running(one: Instance, during: Callable[[], Awaitable[None]]) -> None:
    """Runs the instance, then `during`, then stops it."""
    task = asyncio.create_task(one.run())
    try:
        await during()
    finally:
        await one.stop()
        await task


async def test_a_process_that_dies_is_started_again(tmp_path: Path) -> None:
    one = Instance(Script(tmp_path, SLEEP, Traits("s", "r")), 1, tmp_path, lambda _: None)

    async def kill_it() -> None:
        await until(lambda: one.state is State.READY)
        first = one.kill(signal.SIGKILL)
        await until(lambda: one.restarts == 1 and one.state is State.READY)
        assert one.pid != first

    await running(one, kill_it)
    assert one.state is State.STOPPED


async def test_the_delay_doubles_to_a_bound_and_an_operators_kill_does_not_count(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delays: list[float] = []

    async def note(_self: Instance, delay_s: float) -> None:
        delays.append(delay_s)

    monkeypatch.setattr(Instance, "_pause", note)
    monkeypatch.setattr(instance_module, "STEADY_S", 3600.0)
    # Dies as soon as it was ready once.
    one = Instance(Script(tmp_path, "pass", Traits("s", "r")), 1, tmp_path, lambda _: None)
    await running(one, lambda: until(lambda: len(delays) >= 9))

    assert delays[:7] == [FIRST_DELAY_S * 2**n for n in range(6)] + [LONGEST_DELAY_S]
    assert max(delays) == LONGEST_DELAY_S

    delays.clear()
    two = Instance(Script(tmp_path, SLEEP, Traits("s", "r")), 1, tmp_path, lambda _: None)

    async def kill_often() -> None:
        pids: set[int | None] = set()
        while len(pids) < 4:
            await until(lambda: two.state is State.READY and two.pid not in {None, *pids})
            pids.add(two.kill(signal.SIGKILL))
        await until(lambda: len(delays) == 4)

    await running(two, kill_often)
    assert delays == [FIRST_DELAY_S] * 4


async def test_a_first_start_that_fails_is_explained_with_the_end_of_its_log(tmp_path: Path) -> None:
    code = "import sys; print('port is taken'); sys.exit(3)"
    one = Instance(Script(tmp_path, code, Traits("s", "r"), lambda: False), 1, tmp_path, lambda _: None)

    with pytest.raises(StackError, match=r"s did not start \(exit status 3\); log: .*s\.log\n    port is taken"):
        await one.run()


async def test_a_first_start_that_never_becomes_ready_is_ended(tmp_path: Path) -> None:
    traits = Traits("s", "r", ready_timeout_s=0.2)
    one = Instance(Script(tmp_path, SLEEP, traits, lambda: False), 1, tmp_path, lambda _: None)

    with pytest.raises(StackError, match=r"not ready after 0\.2 s"):
        await one.run()
    assert one.pid is None


async def test_a_process_that_ignores_its_signal_is_killed(tmp_path: Path) -> None:
    code = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('on', 'w').close(); {SLEEP}"
    traits = Traits("s", "r", stop_timeout_s=0.1)
    ready = (tmp_path / "on").exists
    one = Instance(Script(tmp_path, code, traits, ready), 1, tmp_path, lambda _: None)

    await running(one, lambda: until(lambda: one.state is State.READY))

    assert one.pid is None
    assert one.state is State.STOPPED


async def test_a_stop_between_two_starts_starts_no_more(tmp_path: Path) -> None:
    states: list[State] = []
    one = Instance(Script(tmp_path, "pass", Traits("s", "r")), 1, tmp_path, lambda found: states.append(found.state))

    await running(one, lambda: until(lambda: State.RESTARTING in states))

    assert one.pid is None


async def test_a_restart_returns_once_the_next_process_is_ready(tmp_path: Path) -> None:
    states: list[State] = []
    one = Instance(Script(tmp_path, SLEEP, Traits("s", "r")), 1, tmp_path, lambda found: states.append(found.state))

    async def restart_it() -> None:
        await until(lambda: one.state is State.READY)
        first = one.pid
        states.clear()
        second = await one.restart()
        assert (second, one.state) == (one.pid, State.READY)
        assert second != first
        assert one.restarts == 1
        in_order = [state for index, state in enumerate(states) if index == 0 or states[index - 1] is not state]
        assert in_order == [State.STOPPING, State.RESTARTING, State.STARTING, State.READY]

    await running(one, restart_it)


async def test_a_restart_whose_next_process_fails_says_why_and_it_is_tried_again(tmp_path: Path) -> None:
    service = Script(tmp_path, SLEEP, Traits("s", "r"))
    one = Instance(service, 1, tmp_path, lambda _: None)

    async def restart_it() -> None:
        await until(lambda: one.state is State.READY)
        service.code, service.ready = "import sys; print('a broken build'); sys.exit(3)", lambda: False
        with pytest.raises(StackError, match=r"s did not start \(exit status 3\); log: .*s\.log\n    a broken build"):
            await one.restart()
        with pytest.raises(StackError, match="it can be restarted when it is ready"):
            await one.restart()
        service.code, service.ready = SLEEP, lambda: True
        await until(lambda: one.state is State.READY)

    await running(one, restart_it)


async def test_a_stop_ends_a_restart(tmp_path: Path) -> None:
    service = Script(tmp_path, SLEEP, Traits("s", "r"))
    one = Instance(service, 1, tmp_path, lambda _: None)

    async def restart_it() -> None:
        await until(lambda: one.state is State.READY)
        service.ready = lambda: False
        restarting = asyncio.create_task(one.restart())
        await until(lambda: one.restarts == 1)
        await one.stop()
        with pytest.raises(StackError, match="s was stopped"):
            await restarting

    await running(one, restart_it)

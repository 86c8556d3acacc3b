"""The simulated loop: time, order, death and sleep of processes."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import Any

from tests.simulation.loop import SimLoop, new_loop


def _run(loop: SimLoop, seconds: float) -> None:
    """Let simulated time pass."""
    until = loop.time() + seconds
    loop.spawn(loop.world, asyncio.sleep(seconds + 1))
    loop.run(lambda: loop.time() < until)


def test_an_hour_passes_at_once():
    loop = new_loop(Random(1))
    woken: list[float] = []

    async def sleeper() -> None:
        await asyncio.sleep(3_600)
        woken.append(loop.time())

    loop.spawn(loop.process("a"), sleeper())
    _run(loop, 3_601)
    loop.close_all()
    assert len(woken) == 1
    assert 3_600 <= woken[0] < 3_600.01
    assert loop.turns < 20


def test_a_killed_process_runs_no_finally():
    loop = new_loop(Random(1))
    seen: list[str] = []

    async def worker() -> None:
        try:
            await asyncio.sleep(2)
            seen.append("woke")
        finally:
            seen.append("finally")

    process = loop.process("a")
    loop.spawn(process, worker())
    _run(loop, 1)
    loop.kill(process)
    _run(loop, 5)
    assert seen == []
    loop.close_all()


def test_a_paused_process_goes_on_where_it_was_when_it_is_resumed():
    loop = new_loop(Random(1))
    seen: list[float] = []

    async def ticker() -> None:
        while True:
            await asyncio.sleep(1)
            seen.append(loop.time())

    process = loop.process("a")
    loop.spawn(process, ticker())
    _run(loop, 2.5)
    loop.pause(process)
    _run(loop, 10)
    assert len(seen) == 2
    loop.resume(process)
    _run(loop, 1.5)
    loop.close_all()
    assert len(seen) == 4
    assert seen[2] > 12.4, "its timer ran out while it slept, and is served when it wakes"


def test_callbacks_of_one_process_run_in_the_order_of_their_calls():
    loop = new_loop(Random(1))
    seen: list[int] = []

    async def caller() -> None:
        for number in range(50):
            asyncio.get_running_loop().call_soon(seen.append, number)
        await asyncio.sleep(0)

    loop.spawn(loop.process("a"), caller())
    _run(loop, 1)
    loop.close_all()
    assert seen == list(range(50))


def test_the_seed_decides_how_processes_take_turns():
    def order(seed: int) -> list[str]:
        loop = new_loop(Random(seed))
        seen: list[str] = []

        async def worker(name: str) -> None:
            for _ in range(10):
                seen.append(name)
                await asyncio.sleep(0)

        for name in "abc":
            loop.spawn(loop.process(name), worker(name))
        _run(loop, 1)
        loop.close_all()
        return seen

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_generator_that_is_dropped_is_closed_by_its_process():
    loop = new_loop(Random(1))
    seen: list[str] = []

    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            seen.append("closed")

    async def reader() -> None:
        async for _ in numbers():
            break

    loop.spawn(loop.process("a"), reader())
    _run(loop, 1)
    loop.close_all()
    assert seen == ["closed"]


def test_a_failure_that_nobody_hears_of_is_told_and_one_whose_hearer_was_killed_is_not():
    loop = new_loop(Random(1))

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def hears(task: asyncio.Task[None]) -> None:
        with contextlib.suppress(ValueError):
            await task

    unheard, cut_off = loop.process("unheard"), loop.process("cut off")
    loop.spawn(unheard, fails())
    failing = loop.spawn(cut_off, fails())
    loop.spawn(cut_off, hears(failing))

    loop.run(lambda: not failing.done())
    loop.kill(cut_off)
    _run(loop, 1)

    assert [(name, type(error)) for name, error in loop.died()] == [("unheard", ValueError)]
    loop.close_all()

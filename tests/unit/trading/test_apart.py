"""A child beside the serving process: it gets only what it needs, and nobody has to look after it."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing

import pytest

from exchange.runtime.config import Secret
from exchange.trading import apart

CHILD = "tests.unit.trading.apart_child"
DSN = Secret("postgresql://nowhere/x")


@pytest.fixture(autouse=True)
def _here(monkeypatch, repository):
    monkeypatch.chdir(repository)  # `python -m` looks there


async def test_a_child_has_the_journals_address_alone_and_idle_time_only():
    printed = [line async for line in apart.lines(CHILD, "tell", "a", "b", dsn=DSN)]
    assert printed == [b"True ['DATABASE_URL'] postgresql://nowhere/x a b\n"]


async def test_a_child_that_fails_is_an_error_with_the_end_of_what_it_said():
    printed = apart.lines(CHILD, "fail", dsn=DSN)
    assert await anext(printed) == b"half an answer\n"
    with pytest.raises(apart.ApartFailed, match=r"ended with 1: x+ out of luck$") as caught:
        await anext(printed)
    assert len(str(caught.value)) < apart.MAX_ERROR_BYTES + 100


async def test_a_child_dies_with_the_interest_in_it():
    async with aclosing(apart.lines(CHILD, "hang", dsn=DSN)) as printed:
        pid = int(await anext(printed))
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_child_dies_when_its_reader_is_cancelled():
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def read() -> None:
        async with aclosing(apart.lines(CHILD, "hang", dsn=DSN)) as printed:
            async for line in printed:
                started.set_result(int(line))

    reading = asyncio.create_task(read())
    pid = await asyncio.wait_for(started, 30)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)

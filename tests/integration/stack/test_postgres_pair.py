"""A primary and its standby: who may write, and what happens when either is away."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from exchange.stack.errors import StackError
from exchange.stack.files import make_home
from exchange.stack.instance import Instance, State
from exchange.stack.postgresql import actions, controller
from exchange.stack.postgresql.copy import need_copy
from exchange.stack.postgresql.pair import has_pair
from exchange.stack.postgresql.roles import ADMIN
from exchange.stack.postgresql.server import PostgresService
from exchange.stack.postgresql.state import NUMBERS, STATE_FILE, Standby
from tests.postgres_pair_fixture import RunningPair, running_pair
from tests.stack_fixture import temporary_home

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

# One event loop for all: the pair that most tests share lives in it.
pytestmark = pytest.mark.asyncio(loop_scope="module")

# Three looks at a standby that hangs, each as long as a look may take, and the reload.
COMMITS_BLOCK_S = 3.0
ANSWER_DEADLINE_S = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_pair() -> AsyncIterator[RunningPair]:
    async with running_pair() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def pair(shared_pair: RunningPair) -> RunningPair:
    """Whole when a test gets it, with nothing said yet; it may be left in any state that heals."""
    for number, instance in shared_pair.instances.items():
        if instance.state is State.STOPPED:
            shared_pair.restart(number)
    await shared_pair.until(lambda: shared_pair.in_sync, "the pair is whole")
    shared_pair.said.clear()
    return shared_pair


@pytest.fixture
def home() -> Iterator[Path]:
    with temporary_home() as found:
        make_home(found)
        yield found


@pytest.fixture
def ports(free_port: Callable[[], int]) -> dict[int, int]:
    return {number: free_port() for number in NUMBERS}


async def write(pair: RunningPair, n: int) -> None:
    """A commit that is acknowledged when this returns."""
    connection = await asyncpg.connect(pair.admin_url)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (n int PRIMARY KEY)")
        await connection.execute("INSERT INTO kept VALUES ($1) ON CONFLICT DO NOTHING", n)
    finally:
        await connection.close()


async def kept(pair: RunningPair) -> list[int]:
    connection = await asyncpg.connect(pair.admin_url)
    try:
        return [row["n"] for row in await connection.fetch("SELECT n FROM kept ORDER BY n")]
    finally:
        await connection.close()


async def accepting_writes(pair: RunningPair) -> list[int]:
    """The numbers of the servers that say they are a primary, once both answer: one may just have been started."""
    question = "SELECT pg_is_in_recovery()"
    return [number for number in NUMBERS if not await eventually_asked(pair.cluster.nodes[number].url(ADMIN), question)]


async def eventually_asked(url: str, question: str) -> Any:
    """The answer of a server, which may not take connections for a moment yet."""
    async with asyncio.timeout(ANSWER_DEADLINE_S):
        while True:
            try:
                connection = await asyncpg.connect(url)
                try:
                    return await connection.fetchval(question)
                finally:
                    await connection.close()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_standby_that_is_away_blocks_commits_for_a_bounded_time_and_comes_back(
    pair: RunningPair, number: signal.Signals
) -> None:
    await write(pair, 1)
    epoch = pair.cluster.state.epoch
    pair.signal_all(pair.standby, number)
    began = time.monotonic()
    await write(pair, 2)
    blocked = time.monotonic() - began
    print(f"{number.name}: commits blocked for {blocked:.2f} s")
    assert blocked < COMMITS_BLOCK_S
    await pair.until(lambda: any("DEGRADED" in said for said in pair.said), "the operator is told")
    await pair.until(lambda: pair.in_sync, "the standby is in sync again")
    assert pair.cluster.state.epoch == epoch


async def test_a_standby_whose_replication_hangs_does_not_block_commits_for_ever(pair: RunningPair) -> None:
    # It answers every question and writes nothing down.
    pair.signal_all(pair.standby, signal.SIGSTOP, "walreceiver")
    async with asyncio.timeout(10):
        await write(pair, 1)
    await pair.until(lambda: pair.in_sync, "the standby is in sync again")


async def test_a_standby_that_lacks_commits_is_not_promoted(pair: RunningPair) -> None:
    await pair.standby.stop()
    await pair.until(lambda: pair.cluster.state.standby is Standby.FOLLOWING, "the primary goes on alone")
    await write(pair, 1)
    struck, epoch, restarts = pair.primary, pair.cluster.state.epoch, pair.primary.restarts
    pair.signal_all(struck, signal.SIGKILL)

    await pair.until(lambda: struck.restarts > restarts and struck.state is State.READY, "the primary runs again")

    assert pair.primary is struck
    assert pair.cluster.state.epoch == epoch
    assert 1 in await kept(pair)


async def test_a_lone_primary_that_hangs_is_started_again(pair: RunningPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "HANGS_AFTER", 3)
    await pair.standby.stop()
    await pair.until(lambda: pair.cluster.state.standby is Standby.FOLLOWING, "the primary goes on alone")
    struck, restarts = pair.primary, pair.primary.restarts
    pair.signal_all(struck, signal.SIGSTOP)

    await pair.until(lambda: struck.restarts > restarts and struck.state is State.READY, "the primary runs again")

    assert pair.primary is struck


async def test_both_at_once_come_back_as_they_were(pair: RunningPair) -> None:
    await write(pair, 1)
    before = {one: one.restarts for one in pair.instances.values()}
    pair.signal_all(pair.standby, signal.SIGKILL)
    pair.signal_all(pair.primary, signal.SIGKILL)

    await pair.until(lambda: all(one.restarts > count for one, count in before.items()), "both are started again")
    await pair.until(lambda: pair.in_sync, "the pair is whole")

    assert await accepting_writes(pair) == [pair.cluster.state.primary]
    assert 1 in await kept(pair)


async def test_after_a_rewind_that_was_cut_off_the_data_are_copied(pair: RunningPair) -> None:
    first, second, epoch = pair.primary.name, pair.standby.name, pair.cluster.state.epoch
    need_copy(pair.cluster.primary)
    pair.signal_all(pair.primary, signal.SIGKILL)
    await pair.until(lambda: pair.cluster.state.epoch == epoch + 1 and pair.in_sync, "the pair is whole again")
    assert f"{first} was copied as a standby of {second}" in pair.said

    pair.signal_all(pair.primary, signal.SIGKILL)
    await pair.until(lambda: pair.cluster.state.epoch == epoch + 2 and pair.in_sync, "the pair is whole again")
    assert f"{second} was rewound as a standby of {first}" in pair.said


async def test_a_standby_too_far_behind_gets_a_new_copy(pair: RunningPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "CUT_OFF_AFTER_S", 1.0)
    await pair.standby.stop()
    await pair.until(lambda: pair.cluster.state.standby is Standby.FOLLOWING, "the primary goes on alone")
    connection = await asyncpg.connect(pair.cluster.primary.url(ADMIN))
    # What is kept for a standby is set on the command line, where no reload changes it: take the log away by hand.
    needed = await connection.fetchval("SELECT pg_walfile_name(pg_current_wal_lsn())")
    await connection.execute("SELECT pg_switch_wal()")
    await connection.execute("CHECKPOINT")
    await connection.close()
    (pair.cluster.primary.place.data / "pg_wal" / needed).unlink()
    pair.restart(pair.standby.number)

    await pair.until(lambda: pair.in_sync, "the standby is in sync again")

    assert any("cannot follow any more" in said for said in pair.said)


@pytest.mark.parametrize("cut_off_at", ["become", "_promote"])
async def test_a_crash_in_the_middle_of_a_fail_over_leaves_one_primary(
    home: Path, ports: dict[int, int], monkeypatch: pytest.MonkeyPatch, cut_off_at: str
) -> None:
    before = RunningPair(home, ports)
    await before.start()
    await write(before, 1)
    reached = asyncio.Event()

    async def never(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        if cut_off_at == "become":
            patched.setattr(before.cluster, "become", never)
        else:
            patched.setattr(actions, "_promote", never)
        before.signal_all(before.primary, signal.SIGKILL)
        await asyncio.wait_for(reached.wait(), 10)
        await before.crash()

    after = RunningPair(home, ports)
    try:
        await after.start()
        # Before the new state was durable nothing had happened; after it the fail-over is carried through.
        expected = 1 if cut_off_at == "become" else 2
        assert await accepting_writes(after) == [expected]
        assert await kept(after) == [1]
        await write(after, 2)
    finally:
        await after.stop()


async def test_a_lost_disk_is_made_good_by_a_standby_in_sync_and_by_no_other(home: Path, ports: dict[int, int]) -> None:
    before = RunningPair(home, ports)
    await before.start()
    await write(before, 1)
    await before.stop()
    shutil.rmtree(before.cluster.nodes[1].place.data)

    after = RunningPair(home, ports)
    await after.start()
    assert await accepting_writes(after) == [2]
    assert await kept(after) == [1]
    await after.stop()

    # Which of the two it was that led, nobody knows any more.
    text = (home / STATE_FILE).read_text()
    (home / STATE_FILE).unlink()
    assert has_pair(home)
    with pytest.raises(StackError, match="is gone: it says which"):
        await RunningPair(home, ports).pair.prepare()
    state = json.loads(text)
    (home / STATE_FILE).write_text(json.dumps({**state, "standby": "following"}))
    shutil.rmtree(after.cluster.nodes[2].place.data)
    assert has_pair(home)
    with pytest.raises(StackError, match="no standby was in sync"):
        await RunningPair(home, ports).pair.prepare()


async def test_a_single_server_s_folder_becomes_a_pair(home: Path, ports: dict[int, int]) -> None:
    single = PostgresService(home, ports[1], {})
    await single.prepare()
    instance = Instance(single, 1, home / "logs", lambda _: None)
    running = asyncio.create_task(instance.run())
    await asyncio.wait_for(instance.ready.wait(), 30)
    await single.provision()
    connection = await asyncpg.connect(single.url(ADMIN))
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    await connection.close()
    await instance.stop()
    await running

    pair = RunningPair(home, ports)
    try:
        await pair.start()
        assert await kept(pair) == [7]
        pair.signal_all(pair.primary, signal.SIGKILL)
        await pair.until(lambda: pair.cluster.state.primary == 2, "the standby is promoted")
        await pair.until(lambda: pair.in_sync, "the pair is whole again")
        assert await kept(pair) == [7]
    finally:
        await pair.stop()

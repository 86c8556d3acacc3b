"""The journal in PostgreSQL is proved, and its past shown, beside an engine that goes on serving."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from exchange.runtime.config import Secret
from exchange.trading.apart import ApartFailed
from exchange.trading.snapshotter import store_apart
from pincex_client import ExchangeClient, ExchangeError
from pincex_client.models import Book, JournalVerification
from tests.integration.journal.waiting import until
from tests.integration.recovery.engine_process import ONCE, EngineProcess, engine_on
from tests.postgres_fixture import Database

ORDERS = 8
"""Placed before the snapshot, and as many after it."""


@dataclass
class Serving:
    """An engine at work, the book as it answered after each order, and the owner's hand on its tables."""

    engine: EngineProcess
    exchange: ExchangeClient
    snapshot: int = 0
    books: dict[int, Book] = field(default_factory=dict)

    async def place(self) -> None:
        order = await self.exchange.place_order("BTCUSD", "BUY", "0.001", 45_000 + len(self.books))
        self.books[order.sequence] = await self.exchange.get_order_book("BTCUSD", min_sequence=order.sequence)

    async def verified(self, first: int = 0, last: int = 0) -> JournalVerification:
        steps = [progress async for progress in self.exchange.admin.verify_journal(first, last)]
        return steps[-1]

    def change(self, statement: str, *arguments: Any) -> None:
        with psycopg.connect(self.engine.database.admin_url, autocommit=True) as connection:
            assert connection.execute(statement, arguments).rowcount == 1

    def frame(self, sequence: int) -> tuple[int, int]:
        """First and last sequence of the frame that holds one."""
        with psycopg.connect(self.engine.database.admin_url) as connection:
            found = connection.execute(
                "SELECT first_sequence, last_sequence FROM journal_frames WHERE %s BETWEEN first_sequence AND last_sequence",
                (sequence,),
            ).fetchone()
        assert found is not None
        return int(found[0]), int(found[1])

    async def pincex(self, *arguments: str) -> tuple[int, str, str]:
        """Run the command line; exit status, stdout, stderr."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sys; from pincex_client.cli import main; sys.exit(main())",
            *("--target", self.exchange.target, "--ops-target", self.exchange.admin.target),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    def children(self) -> list[int]:
        """The processes that the engine has started."""
        threads = Path(f"/proc/{self.engine.process.pid}/task").iterdir()
        return [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]


def command_line(pid: int) -> str:
    """The words by which a process was started."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


@pytest_asyncio.fixture
async def serving(database: Database, free_port: Callable[[], int]) -> AsyncIterator[Serving]:
    async with engine_on(database, free_port) as engine, engine.client() as exchange:
        made = Serving(engine, exchange)
        for _ in range(ORDERS):
            await made.place()
        made.snapshot = (await exchange.admin.create_snapshot(reason="test")).snapshot_sequence
        for _ in range(ORDERS):
            await made.place()
        yield made


async def test_a_sound_journal_is_valid_and_its_past_is_what_was_answered_then(serving: Serving) -> None:
    found = await serving.verified()
    state = await serving.exchange.admin.engine_state()
    assert (found.valid, found.sequence, found.state_hash) == (True, state.sequence, state.state_hash)
    assert (found.command_count, found.snapshot_count) == (state.sequence, 1)
    tail = await serving.verified(serving.snapshot + 2)
    assert (tail.valid, tail.state_hash) == (True, state.state_hash)
    assert tail.command_count == state.sequence - serving.snapshot, "from the snapshot on"

    sequences = sorted(serving.books)
    for sequence in (sequences[0], sequences[ORDERS - 1], sequences[-1]):
        assert await serving.exchange.get_order_book("BTCUSD", as_of_sequence=sequence) == serving.books[sequence]
    assert serving.children() == [], "nothing is left running"

    status, out, _ = await serving.pincex("journal", "verify", "--json")
    assert (status, json.loads(out)["state_hash"]) == (0, state.state_hash)
    status, out, _ = await serving.pincex("book", "BTCUSD", "--at-sequence", f"{sequences[1]}", "--json")
    assert (status, json.loads(out)["bid_order_count"]) == (0, 2)


async def test_damage_is_found_with_its_place_while_the_engine_serves(serving: Serving) -> None:
    """An altered row and its repair, an altered snapshot and its repair, a removed row."""
    first, last = serving.frame(sorted(serving.books)[2])
    flip = "UPDATE journal_frames SET events = set_byte(events, 3, get_byte(events, 3) # 1) WHERE first_sequence = %s"
    serving.change(flip, first)
    found = await serving.verified()
    assert (found.done, found.valid, found.sequence) == (True, False, first - 1)
    assert f"shard 0, sequence {first}: the frame {first}..{last} hashes to" in found.difference
    status, out, err = await serving.pincex("journal", "verify")
    assert (status, f"NOT VALID: {found.difference}" in out) == (1, True), out + err
    assert "verified up to 0 of" in err
    with pytest.raises(ExchangeError, match=f"STATE_DIFFERS.*sequence {first}: "):
        await serving.exchange.get_order_book("BTCUSD", as_of_sequence=last)
    assert (await serving.verified(serving.snapshot + 1)).valid, "what lies behind the snapshot is sound"
    serving.change(flip, first)
    assert (await serving.verified()).valid

    shift = "UPDATE journal_snapshots SET state_hash = reverse(state_hash) WHERE sequence = %s"
    serving.change(shift, serving.snapshot)
    for start in (0, serving.snapshot + 1):
        found = await serving.verified(start)
        assert not found.valid
        assert f"shard 0, sequence {serving.snapshot}: the snapshot" in found.difference
    serving.change(shift, serving.snapshot)

    first, last = serving.frame(sorted(serving.books)[-2])
    serving.change("DELETE FROM journal_frames WHERE first_sequence = %s", first)
    for end in (0, last):
        found = await serving.verified(0, end)
        assert not found.valid
        assert f"sequences {first}..{last} are missing" in found.difference
    await serving.place()
    assert (await serving.exchange.health()).status == "SERVING"


@asynccontextmanager
async def standing_still(serving: Serving) -> AsyncIterator[tuple[int, asyncio.Future[JournalVerification]]]:
    """A child that waits for a lock which its verification needs, and the call that waits for the child."""
    with psycopg.connect(serving.engine.database.admin_url) as connection:
        connection.execute("LOCK TABLE journal_snapshots IN ACCESS EXCLUSIVE MODE")
        async with aclosing(serving.exchange.admin.verify_journal()) as steps:
            asking = asyncio.ensure_future(anext(steps))
            await until(lambda: bool(serving.children()))
            (child,) = serving.children()
            await until(lambda: os.sched_getscheduler(child) == os.SCHED_IDLE)
            yield child, asking
            asking.cancel()
            with suppress(asyncio.CancelledError, ExchangeError):
                await asking


async def test_a_child_runs_on_idle_time_and_dies_with_the_interest_in_it(serving: Serving) -> None:
    async with standing_still(serving) as (child, asking):
        assert "exchange.trading.past" in command_line(child)
        asking.cancel()
        await until(lambda: serving.children() == [])
    async with serving.engine.client(**ONCE) as exchange:
        assert (await exchange.health()).status == "SERVING"


async def test_an_engine_that_stops_leaves_no_child_behind(serving: Serving) -> None:
    async with standing_still(serving) as (child, _):
        assert await serving.engine.terminate() == 0
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


async def test_a_snapshot_is_stored_by_a_process_of_its_own(serving: Serving) -> None:
    state = await serving.exchange.admin.engine_state()
    assert await store_apart(Secret(serving.engine.database.trading_url)) == state.sequence
    assert (await serving.verified()).snapshot_count == 2
    with pytest.raises(ApartFailed, match=r"exchange.trading.snapshotter ended with 1: [^$]*JournalUnavailable"):
        await store_apart(Secret("postgresql://trading_user@127.0.0.1:1/nowhere"))

"""Recovery: how long a start takes after 1,000,000 journaled commands, from frame one and without a snapshot."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from exchange.trading import codec, recovery
from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine
from exchange.trading.journal.frame import GENESIS_HASH, Frame
from exchange.trading.journal.postgres import PostgresJournal
from exchange.trading.journal.postgres_lease import PostgresLease
from tests.bench.report import Report
from tests.bench.workload import ROOT, START_NS, STEP_NS, Workload
from tests.postgres_fixture import running_postgres

pytestmark = pytest.mark.bench

COMMANDS = 1_000_000
FRAME = 200


async def fill(url: str, count: int = COMMANDS, commands: list[Command] | None = None) -> str:
    """Write a journal of so many commands, those or of the full mix, in frames of FRAME; answers the state's hash."""
    journal = await PostgresJournal.open(url)
    lease = PostgresLease(url)
    epoch = await lease.acquire("bench")
    assert epoch is not None
    if commands is None:
        workload = Workload(seed=3, identified=True)
        commands = [*workload.setup]
        commands += workload.take(count - len(commands))
    engine = Engine()
    digest, previous = codec.GENESIS_DIGEST, GENESIS_HASH
    for first in range(0, count, FRAME):
        part = commands[first : first + FRAME]
        time_ns = START_NS + first * STEP_NS
        events = codec.encode_events([engine.apply(first + 1 + at, time_ns, one) for at, one in enumerate(part)])
        digest = codec.next_digest(digest, events)
        frame = Frame.seal(
            shard=0, first_sequence=first + 1, last_sequence=first + len(part), epoch=epoch, time_ns=time_ns,
            commands=codec.encode_commands(part), events=events, digest=digest, prev_hash=previous,
            format_version=codec.FORMAT_VERSION, rules_version=1,
        )  # fmt: skip
        previous = frame.hash
        await journal.append(frame)
    await lease.close()
    await journal.close()
    return engine.state_hash()


async def replay(url: str) -> None:
    """Recover in this process, and print seconds and the state's hash."""
    journal = await PostgresJournal.open(url)
    started = time.perf_counter()
    recovered = await recovery.recover(journal, from_genesis=True)
    seconds = time.perf_counter() - started
    await journal.close()
    sys.stdout.write(f"{seconds} {recovered.engine.state_hash()}\n")


def test_a_million_commands_are_recovered(report: Report) -> None:
    title = "Recovery of 1,000,000 commands from frame one (target: below 5 s)"
    with running_postgres() as server:
        url = server.create_database().trading_url
        expected = asyncio.run(fill(url))
        argv = [sys.executable, "-m", "tests.bench.test_recovery", url]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
        seconds, state_hash = done.stdout.split()
    assert state_hash == expected
    report.add(title, "read, verify, apply, compare", f"{float(seconds):.2f} s", f"frames of {FRAME}, equal state hash")
    report.keep("recovery_seconds", float(seconds))


if __name__ == "__main__":
    asyncio.run(replay(sys.argv[1]))

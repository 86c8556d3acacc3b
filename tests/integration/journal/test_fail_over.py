"""The journal on a primary with a synchronous standby: the primary dies in mid-append, again and again."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from exchange.runtime import migrate
from exchange.stack.instance import Instance
from exchange.trading.journal.contract import Frame, JournalUnavailable
from exchange.trading.journal.postgres import PostgresJournal
from exchange.trading.journal.postgres_lease import PostgresLease
from tests.postgres_pair_fixture import RunningPair, running_pair
from tests.unit.journal.contract_suite import everything
from tests.unit.journal.frames import next_frame

LEAST_BEFORE_S, MOST_BEFORE_S = 0.02, 0.3
# Appends by the hundred, if they did not wait for the standby.
CUT_OFF_S = 0.1
RENEW_S = 0.5
FAIL_OVER_S = 3.0
# Three looks that nobody answers, on a machine that is busy with other things.
HANG_NOTICED_S = 2.0


@dataclass
class Leader:
    """Holds the lease and appends one frame after the other, as the sequencer does; keeps what was acknowledged."""

    journal: PostgresJournal
    lease: PostgresLease
    epoch: int
    acknowledged: list[Frame] = field(default_factory=list)
    acknowledged_at: float = 0.0

    async def append(self) -> None:
        previous = None
        while True:
            frame = next_frame(previous, epoch=self.epoch, commands=3)
            await self.journal.append(frame)
            self.acknowledged.append(frame)
            self.acknowledged_at = time.monotonic()
            previous = frame

    async def renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                assert await self.lease.renew(), "the lease is lost"
            except JournalUnavailable:
                continue


@pytest.fixture
async def pair() -> AsyncIterator[RunningPair]:
    async with running_pair() as running:
        await asyncio.to_thread(migrate.run, running.admin_url)
        yield running


async def kill(pair: RunningPair, primary: Instance) -> None:
    """Every process at once, after a moment in which the log reached the primary's disk and no further."""
    pair.signal_all(primary, signal.SIGSTOP, "walsender")
    await asyncio.sleep(CUT_OFF_S)
    pair.signal_all(primary, signal.SIGKILL)


async def kill_postmaster(_pair: RunningPair, primary: Instance) -> None:
    """Its children notice by themselves."""
    primary.kill(signal.SIGKILL)


async def freeze(pair: RunningPair, primary: Instance) -> None:
    """The server hangs, its connections stay open."""
    pair.signal_all(primary, signal.SIGSTOP)


async def freeze_postmaster(_pair: RunningPair, primary: Instance) -> None:
    """Sessions go on, and no new one is made."""
    primary.kill(signal.SIGSTOP)


Strike = Callable[[RunningPair, Instance], Coroutine[Any, Any, None]]


def _promoted(pair: RunningPair, epoch: int) -> bool:
    return pair.cluster.state.epoch > epoch


def _acknowledged(leader: Leader, since: float) -> bool:
    return leader.acknowledged_at > since


async def strike_in_turn(pair: RunningPair, leader: Leader, strikes: list[Strike], rng: random.Random) -> list[float]:
    """Strikes the primary while appends are in flight; seconds from each strike to the first new acknowledgement."""
    took = []
    for strike in strikes:
        await pair.until(lambda: pair.in_sync, "the pair is whole")
        await asyncio.sleep(rng.uniform(LEAST_BEFORE_S, MOST_BEFORE_S))
        struck, epoch = pair.primary, pair.cluster.state.epoch
        at = time.monotonic()
        await strike(pair, struck)
        await pair.until(partial(_promoted, pair, epoch), "the standby is promoted")
        await pair.until(partial(_acknowledged, leader, time.monotonic()), "appends resume")
        took.append(leader.acknowledged_at - at)
        assert pair.primary is not struck
    await pair.until(lambda: pair.in_sync, "the pair is whole again")
    return took


async def struck_while_appending(pair: RunningPair, strikes: list[Strike], rng: random.Random) -> list[float]:
    """Strikes in turn; then what was acknowledged is compared with what the journal holds. Seconds as above."""
    lease = PostgresLease(pair.trading_url)
    epoch = await lease.acquire("leader")
    assert epoch is not None
    leader = Leader(await PostgresJournal.open(pair.trading_url), lease, epoch)
    working = [asyncio.create_task(leader.append()), asyncio.create_task(leader.renew())]
    try:
        took = await strike_in_turn(pair, leader, strikes, rng)
    finally:
        for task in working:
            task.cancel()
        failed = [error for error in await asyncio.gather(*working, return_exceptions=True) if error]
    assert [type(error) for error in failed] == [asyncio.CancelledError] * 2, failed
    await leader.journal.close()
    await lease.close()

    # A new reader: the whole chain is verified by hash, and each acknowledged frame stands in it once, in its order.
    reader = await PostgresJournal.open(pair.trading_url)
    found = await everything(reader.read(1))
    await reader.close()
    assert found[: len(leader.acknowledged)] == leader.acknowledged
    # The one that was in flight at the end was never acknowledged, and may have landed.
    assert len(found) - len(leader.acknowledged) in {0, 1}
    assert len(leader.acknowledged) > len(strikes)
    return took


async def test_an_append_survives_every_death_of_the_primary_exactly_once(pair: RunningPair, seed: int) -> None:
    strikes: list[Strike] = [kill, kill_postmaster, freeze, freeze_postmaster]
    took = await struck_while_appending(pair, strikes, random.Random(seed))
    for strike, seconds in zip(strikes, took, strict=True):
        print(f"{strike.__name__}: appends resumed after {seconds:.2f} s")
        assert seconds < FAIL_OVER_S + (HANG_NOTICED_S if strike in {freeze, freeze_postmaster} else 0.0)

"""Leaders that fight over one shard, and a server that is killed under them."""

import asyncio
import contextlib
import random
from dataclasses import dataclass, field

import pytest

from exchange.trading.journal.contract import Fenced, Frame, JournalUnavailable
from exchange.trading.journal.postgres import PostgresJournal
from exchange.trading.journal.postgres_lease import PostgresLease
from tests.integration.journal.waiting import DEADLINE_S, until
from tests.postgres_fixture import Database, PostgresServer, running_postgres
from tests.unit.journal.frames import next_frame

SHORT_LEASE_S = 0.03


@dataclass
class Leader:
    """Acquires, appends without minding its lease until it is fenced, and begins again."""

    name: str
    database: Database
    acknowledged: list[Frame] = field(default_factory=list)
    fenced: int = 0
    epochs: list[int] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        lease = PostgresLease(self.database.trading_url, ttl_seconds=SHORT_LEASE_S)
        journal = await PostgresJournal.open(self.database.trading_url)
        try:
            while not stop.is_set():
                with contextlib.suppress(JournalUnavailable):
                    epoch = await lease.acquire(self.name)
                    if epoch is not None:
                        self.epochs.append(epoch)
                        await self._lead(journal, epoch, stop)
        finally:
            await journal.close()
            await lease.close()

    async def _lead(self, journal: PostgresJournal, epoch: int, stop: asyncio.Event) -> None:
        place: Frame | tuple[int, bytes] = await journal.head()
        while not stop.is_set():
            frame = next_frame(place, epoch=epoch, commands=3, mark=self.name)
            try:
                await journal.append(frame)
            except Fenced:
                self.fenced += 1
                return
            self.acknowledged.append(frame)
            place = frame


async def read_all(database: Database) -> list[Frame]:
    journal = await PostgresJournal.open(database.trading_url)
    frames = [frame async for frame in journal.read(1)]
    assert await journal.head() == (frames[-1].last_sequence, frames[-1].hash)
    await journal.close()
    return frames


def check_history(frames: list[Frame], leaders: list[Leader]) -> None:
    """Each acknowledged frame is there once; epochs only grow; what is there beyond them was never refused twice."""
    acknowledged = [frame for leader in leaders for frame in leader.acknowledged]
    stored = {frame.first_sequence: frame for frame in frames}
    assert len(stored) == len(frames)
    assert all(stored.get(frame.first_sequence) == frame for frame in acknowledged)
    assert len({frame.first_sequence for frame in acknowledged}) == len(acknowledged)
    assert [frame.epoch for frame in frames] == sorted(frame.epoch for frame in frames)
    # A frame nobody was told about can only be one whose outcome stayed unknown until its leader was fenced.
    assert len(frames) - len(acknowledged) <= sum(leader.fenced for leader in leaders)


async def test_two_fighting_leaders_never_both_append(database: Database) -> None:
    leaders = [Leader("one", database), Leader("two", database)]
    stop = asyncio.Event()
    running = [asyncio.create_task(leader.run(stop)) for leader in leaders]
    try:
        await until(lambda: all(leader.fenced >= 15 for leader in leaders) or any(task.done() for task in running))
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(*running), DEADLINE_S)
    frames = await read_all(database)
    check_history(frames, leaders)
    # No connection broke here, so nothing was left unknown.
    assert len(frames) == sum(len(leader.acknowledged) for leader in leaders)
    assert not set(leaders[0].epochs) & set(leaders[1].epochs)


async def kill_rounds(server: PostgresServer, leaders: list[Leader], rounds: int, chance: random.Random) -> None:
    """Kill the server in mid-append, `rounds` times, each after a random number of further acknowledgements."""
    stop = asyncio.Event()
    running = [asyncio.create_task(leader.run(stop)) for leader in leaders]

    def acknowledged() -> int:
        return sum(len(leader.acknowledged) for leader in leaders)

    try:
        for _ in range(rounds):
            wanted = acknowledged() + chance.randrange(1, 120)
            await until(lambda wanted=wanted: acknowledged() >= wanted or any(task.done() for task in running))  # type: ignore[misc]
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        wanted = acknowledged() + 10
        await until(lambda: acknowledged() >= wanted or any(task.done() for task in running))
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(*running), DEADLINE_S)


async def survives_kills(server: PostgresServer, rounds: int, names: list[str], seed: int) -> None:
    database = server.create_database()
    leaders = [Leader(name, database) for name in names]
    await kill_rounds(server, leaders, rounds, random.Random(seed))
    frames = await read_all(database)
    check_history(frames, leaders)
    if len(names) == 1:
        # Alone it is never fenced: every append was resolved, and nothing is there that it was not told.
        assert leaders[0].fenced == 0
        assert frames == leaders[0].acknowledged


async def test_while_the_server_is_away_appends_wait_and_everything_else_says_so() -> None:
    with running_postgres() as server:
        database = server.create_database()
        lease = PostgresLease(database.trading_url, ttl_seconds=60.0)
        journal = await PostgresJournal.open(database.trading_url)
        assert await lease.acquire("me") == 1
        await asyncio.to_thread(server.kill)
        # The very first append: even its comparison with the head has to wait.
        appending = asyncio.create_task(journal.append(first := next_frame()))
        await until(lambda: journal.stalled_since is not None)
        with pytest.raises(JournalUnavailable):
            await lease.renew()
        with pytest.raises(JournalUnavailable):
            await journal.head()
        assert not appending.done()
        await asyncio.to_thread(server.start)
        await asyncio.wait_for(appending, DEADLINE_S)
        assert journal.stalled_since is None
        assert await lease.renew() is True
        assert await read_all(database) == [first]
        await journal.close()
        await lease.close()


@pytest.mark.parametrize("names", [["alone"], ["one", "two"]], ids=["one leader", "two leaders"])
async def test_no_acknowledged_frame_is_lost_or_doubled_when_the_server_is_killed(names: list[str], seed: int) -> None:
    with running_postgres() as server:
        await survives_kills(server, 6, names, seed)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("names", [["alone"], ["one", "two"]], ids=["one leader", "two leaders"])
async def test_a_hundred_kills_lose_nothing(names: list[str], seed: int) -> None:
    with running_postgres() as server:
        await survives_kills(server, 100, names, seed)

"""A connection that breaks around a commit: the append finds out what happened, and says so truly."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from exchange.trading.journal.contract import Fenced, JournalUnavailable
from exchange.trading.journal.postgres import PostgresJournal
from exchange.trading.journal.postgres_lease import PostgresLease
from tests.integration.journal.proxy import Cut, CuttingProxy
from tests.integration.journal.waiting import DEADLINE_S, until
from tests.postgres_fixture import Database
from tests.unit.journal.frames import next_frame


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[CuttingProxy]:
    async with CuttingProxy(database.trading_url).running() as running:
        yield running


@pytest.fixture
async def journal(proxy: CuttingProxy, database: Database) -> AsyncIterator[PostgresJournal]:
    lease = PostgresLease(database.trading_url)
    assert await lease.acquire("leader") == 1
    await lease.close()
    journal = await PostgresJournal.open(proxy.url)
    yield journal
    await journal.close()


def stored(database: Database) -> list[tuple[int, bytes]]:
    with psycopg.connect(database.admin_url) as connection:
        query = "SELECT first_sequence, hash FROM journal_frames ORDER BY first_sequence"
        return [(int(first), bytes(found)) for first, found in connection.execute(query)]


async def take_over(database: Database) -> int | None:
    lease = PostgresLease(database.trading_url)
    try:
        return await lease.acquire("leader")
    finally:
        await lease.close()


@pytest.mark.parametrize(("cut", "landed"), [(Cut.BEFORE_SERVER, False), (Cut.AFTER_COMMIT, True)])
async def test_an_append_cut_off_is_acknowledged_once_it_is_there_exactly_once(
    journal: PostgresJournal, proxy: CuttingProxy, database: Database, cut: Cut, *, landed: bool
) -> None:
    first = next_frame()
    await journal.append(first)
    second = next_frame(first, mark="cut here")
    proxy.watched, proxy.cut = b"cut here", cut
    appending = asyncio.create_task(journal.append(second))
    await asyncio.wait_for(proxy.was_cut.wait(), DEADLINE_S)
    assert (len(stored(database)) == 2) is landed
    assert not appending.done()
    await until(lambda: journal.stalled_since is not None)
    proxy.open.set()
    await asyncio.wait_for(appending, DEADLINE_S)
    assert journal.stalled_since is None
    assert stored(database) == [(1, first.hash), (2, second.hash)]
    await journal.append(next_frame(second))
    assert proxy.cuts == 1


@pytest.mark.parametrize("cut", [Cut.BEFORE_SERVER, Cut.AFTER_COMMIT])
async def test_an_append_cut_off_is_fenced_when_another_leads_by_then(
    journal: PostgresJournal, proxy: CuttingProxy, database: Database, cut: Cut
) -> None:
    first = next_frame()
    await journal.append(first)
    second = next_frame(first, mark="cut here")
    proxy.watched, proxy.cut = b"cut here", cut
    appending = asyncio.create_task(journal.append(second))
    await asyncio.wait_for(proxy.was_cut.wait(), DEADLINE_S)
    assert await take_over(database) == 2
    proxy.open.set()
    with pytest.raises(Fenced, match="epoch 1 is no longer ours, it is 2"):
        await asyncio.wait_for(appending, DEADLINE_S)


async def test_another_frame_in_the_place_of_an_unknown_one_means_fenced(
    journal: PostgresJournal, proxy: CuttingProxy, database: Database
) -> None:
    first = next_frame()
    await journal.append(first)
    proxy.watched, proxy.cut = b"cut here", Cut.BEFORE_SERVER
    appending = asyncio.create_task(journal.append(next_frame(first, mark="cut here")))
    await asyncio.wait_for(proxy.was_cut.wait(), DEADLINE_S)
    # The same epoch, as if two processes shared it against all rules: the hash still tells.
    rival = await PostgresJournal.open(database.trading_url)
    await rival.append(next_frame(first, mark="rival"))
    await rival.close()
    proxy.open.set()
    with pytest.raises(Fenced, match="stands at 2"):
        await asyncio.wait_for(appending, DEADLINE_S)


async def test_closing_while_the_server_is_away_ends_the_append_as_unavailable(
    journal: PostgresJournal, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.trading.journal.postgres_appender.CLOSE_GRACE_S", 0.05)
    first = next_frame()
    await journal.append(first)
    proxy.watched, proxy.cut = b"cut here", Cut.BEFORE_SERVER
    appending = asyncio.create_task(journal.append(next_frame(first, mark="cut here")))
    await asyncio.wait_for(proxy.was_cut.wait(), DEADLINE_S)
    await asyncio.wait_for(journal.close(), DEADLINE_S)
    with pytest.raises(JournalUnavailable, match="may have landed"):
        await appending


async def test_closing_lets_an_append_in_flight_finish(journal: PostgresJournal, database: Database) -> None:
    first = next_frame()
    await journal.append(first)
    second = next_frame(first)
    with psycopg.connect(database.admin_url) as blocker:
        # The fence row is locked, so the append waits for it; closing must not cancel it.
        blocker.execute("SELECT 1 FROM journal_fence FOR UPDATE")
        appending = asyncio.create_task(journal.append(second))
        await until(lambda: journal.stalled_since is not None)
        closing = asyncio.create_task(journal.close())
        await asyncio.sleep(0)
        blocker.rollback()
    await asyncio.wait_for(closing, DEADLINE_S)
    await appending
    assert stored(database) == [(1, first.hash), (2, second.hash)]


async def test_a_lease_call_that_cannot_be_answered_in_time_is_unavailable(
    proxy: CuttingProxy, database: Database
) -> None:
    lease = PostgresLease(proxy.url, ttl_seconds=0.2)
    assert await lease.acquire("leader") == 1
    proxy.watched, proxy.cut = b"UPDATE journal_lease", Cut.AFTER_COMMIT
    with pytest.raises(JournalUnavailable, match="lease cannot be reached"):
        await lease.renew()
    proxy.open.set()
    assert await lease.renew() is True
    with psycopg.connect(database.admin_url) as blocker:
        blocker.execute("SELECT 1 FROM journal_lease FOR UPDATE")
        with pytest.raises(JournalUnavailable, match="TimeoutError"):
            await lease.renew()
    assert await lease.renew() is True
    await lease.close()

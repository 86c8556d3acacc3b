"""An append that waits for the standby has the log flushed now and then, which wakes a walsender that fell asleep."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from exchange.trading.journal.postgres import PostgresJournal
from exchange.trading.journal.postgres_lease import PostgresLease
from tests.integration.journal.standby import NOBODY, wait_for
from tests.integration.journal.waiting import until
from tests.postgres_fixture import Database, PostgresServer, running_postgres
from tests.unit.journal.frames import next_frame


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server whose commits may be made to wait."""
    with running_postgres(durable=False) as server:
        yield server


@pytest.fixture
def own_database(own_server: PostgresServer) -> Database:
    return own_server.create_database()


@pytest.fixture
async def journal(own_server: PostgresServer, own_database: Database) -> AsyncIterator[PostgresJournal]:
    lease = PostgresLease(own_database.trading_url)
    assert await lease.acquire("leader") == 1
    await lease.close()
    journal = await PostgresJournal.open(own_database.trading_url)
    yield journal
    await wait_for(own_server, "")
    await journal.close()


def next_transaction(server: PostgresServer) -> int:
    """The number of the next transaction that writes."""
    with psycopg.connect(server.url("postgres", "postgres"), autocommit=True) as connection:
        row = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
    assert row is not None
    return int(row[0])


async def test_a_waiting_append_has_the_log_flushed_again_by_a_commit_that_does_not_wait(
    journal: PostgresJournal, own_server: PostgresServer
) -> None:
    nudger = journal._appender._nudger
    assert nudger is not None
    first = next_frame()
    await journal.append(first)
    await wait_for(own_server, NOBODY)
    waiting = asyncio.create_task(journal.append(next_frame(first)))
    await until(lambda: nudger.nudges >= 1)
    before = next_transaction(own_server)

    await until(lambda: nudger.nudges >= 3)

    assert not waiting.done()
    assert next_transaction(own_server) > before
    await wait_for(own_server, "")
    await asyncio.wait_for(waiting, 10)


async def test_without_a_standby_nothing_is_written(
    journal: PostgresJournal, own_server: PostgresServer, own_database: Database
) -> None:
    nudger = journal._appender._nudger
    assert nudger is not None
    first = next_frame()
    await journal.append(first)
    with psycopg.connect(own_database.admin_url) as blocker:
        blocker.execute("SELECT 1 FROM journal_fence FOR UPDATE")
        blocked = asyncio.create_task(journal.append(next_frame(first)))
        await until(lambda: nudger.nudges >= 1)
        before = next_transaction(own_server)
        await until(lambda: nudger.nudges >= 3)
        assert next_transaction(own_server) == before
        blocker.rollback()
    await asyncio.wait_for(blocked, 10)

"""The journal in a real PostgreSQL keeps the whole contract, and what only a database can break."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import psycopg
import pytest

from exchange.trading.journal import postgres_reader
from exchange.trading.journal.contract import (
    Fenced,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
)
from exchange.trading.journal.postgres import PostgresJournal
from exchange.trading.journal.postgres_lease import PostgresLease
from tests.integration.journal.standby import NOBODY, observing, wait_for
from tests.integration.journal.waiting import DEADLINE_S, until
from tests.postgres_fixture import Database, PostgresServer
from tests.unit.journal.contract_suite import WholeContract, everything, filled
from tests.unit.journal.frames import chain, next_frame, snapshot_at


class PostgresWorld:
    """A database, its journals and leases, and the owner's hand on its tables."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._open: list[PostgresJournal | PostgresLease] = []

    async def journal(self, **options: Any) -> PostgresJournal:
        journal = await PostgresJournal.open(self.database.trading_url, **options)
        self._open.append(journal)
        return journal

    def lease(self, ttl_seconds: float = 2.0) -> PostgresLease:
        lease = PostgresLease(self.database.trading_url, ttl_seconds=ttl_seconds)
        self._open.append(lease)
        return lease

    async def expire_lease(self) -> None:
        self.admin("UPDATE journal_lease SET expires_at = clock_timestamp()")

    async def overwrite(self, first_sequence: int, **fields: Any) -> None:
        assignments = ", ".join(f"{name} = %s" for name in fields)
        statement = f"UPDATE journal_frames SET {assignments} WHERE first_sequence = %s"
        assert self.admin(statement, *fields.values(), first_sequence) == 1

    async def remove(self, first_sequence: int) -> None:
        assert self.admin("DELETE FROM journal_frames WHERE first_sequence = %s", first_sequence) == 1

    async def archive_below(self, floor_sequence: int) -> None:
        self.admin(
            "WITH dropped AS (DELETE FROM journal_frames WHERE last_sequence < %s RETURNING last_sequence, hash) "
            "INSERT INTO journal_floor (shard, floor_sequence, prev_hash) "
            "SELECT 0, last_sequence + 1, hash FROM dropped ORDER BY last_sequence DESC LIMIT 1",
            floor_sequence,
        )

    def admin(self, statement: str, *values: object) -> int:
        """Run a statement as the owner of the tables; the number of rows it touched."""
        with psycopg.connect(self.database.admin_url, autocommit=True) as connection:
            return connection.execute(statement.encode(), values).rowcount

    async def close(self) -> None:
        for each in self._open:
            await each.close()


@pytest.fixture
async def world(database: Database) -> AsyncIterator[PostgresWorld]:
    made = PostgresWorld(database)
    yield made
    await made.close()


@pytest.fixture(scope="module")
def one_database(postgres_server: PostgresServer) -> Iterator[Database]:
    made = postgres_server.create_database()
    yield made
    postgres_server.drop_database(made.name)


class TestPostgresJournal(WholeContract):
    """The contract, on one database that is emptied for each test: to make one takes longer than to test."""

    @pytest.fixture
    async def world(self, one_database: Database) -> AsyncIterator[PostgresWorld]:
        made = PostgresWorld(one_database)
        with psycopg.connect(one_database.admin_url) as connection:
            for table in ("frames", "snapshots", "fence", "lease", "floor"):
                connection.execute(f"DELETE FROM journal_{table}")
        yield made
        await made.close()


async def test_a_long_journal_is_read_in_pages_bounded_by_rows_and_bytes(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = chain(40, size=4000)
    journal = await filled(world, frames)
    one = len(frames[0].commands) + len(frames[0].events)
    # By rows: 40 frames are four pages of 9, and one of 4. By bytes: three frames fit a page, or not even one.
    for page_frames, page_bytes in ((9, 10**9), (40, 10**9), (41, 10**9), (512, one * 3), (512, one // 2), (1, 1)):
        monkeypatch.setattr(postgres_reader, "PAGE_FRAMES", page_frames)
        monkeypatch.setattr(postgres_reader, "PAGE_BYTES", page_bytes)
        assert await everything(journal.read(1)) == frames
        assert await everything(journal.read(21, to_sequence=60)) == frames[10:30]
    # Corruption on a later page, verified in a thread.
    monkeypatch.setattr(postgres_reader, "THREAD_FROM_BYTES", 1)
    await world.overwrite(61, time_ns=0)
    with pytest.raises(JournalCorrupt, match="shard 0, sequence 61"):
        await everything(journal.read(1))


async def test_a_page_holds_no_more_bytes_than_its_bound(world: PostgresWorld) -> None:
    frames = chain(30, size=4000)
    await filled(world, frames)
    journal = await world.journal()
    one = len(frames[-1].commands) + len(frames[-1].events)
    rows = await journal._reader.fetch(postgres_reader._PAGE, 0, 0, 10**6, 512, one * 10)
    assert 9 <= len(rows) <= 11


async def test_partitions_are_made_ahead_and_frames_cross_into_them(world: PostgresWorld) -> None:
    journal = await filled(world, [])
    previous = next_frame(commands=1, size=1)
    await journal.append(previous)
    for commands in (9_999_998, 1, 1, 25_000_000, 4_000_000, 55_000_000, 1):
        previous = next_frame(previous, commands=commands, size=0)
        await journal.append(previous)
    assert (await journal.head())[0] == 1 + 9_999_998 + 1 + 1 + 25_000_000 + 4_000_000 + 55_000_000 + 1
    frames = await everything(journal.read(1))
    assert len(frames) == 8
    # Inside and after frames longer than the reader first looks back.
    assert await everything(journal.read(30_000_000)) == frames[4:]
    assert await everything(journal.read(frames[6].last_sequence + 1)) == frames[7:]
    # The ones ahead are made in the background: close() waits for that.
    await journal.close()
    with psycopg.connect(world.database.admin_url) as connection:
        query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'journal_frames'::regclass"
        partitions = {name for (name,) in connection.execute(query)}
        assert {f"journal_frames_{slot:012}0000000" for slot in (0, 1, 2, 3, 9, 10, 11)} <= partitions
        stored = connection.execute("SELECT tableoid::regclass::text FROM journal_frames ORDER BY first_sequence")
        assert [name for (name,) in stored][:3] == [
            "journal_frames_0000000000000000000",
            "journal_frames_0000000000000000000",
            "journal_frames_0000000000010000000",
        ]


async def test_partitions_are_made_before_an_append_needs_them(world: PostgresWorld) -> None:
    journal = await filled(world, [])
    # The first append has partitions up to 30,000,000; half way there it is time for more.
    for half_way in (frame := next_frame(commands=14_000_000, size=0)), next_frame(frame, commands=2_000_000, size=0):
        await journal.append(half_way)
    await journal.close()
    with psycopg.connect(world.database.admin_url) as connection:
        assert connection.execute(
            "SELECT to_regclass('journal_frames_0000000000030000000') IS NOT NULL"
        ).fetchone() == (True,)


async def test_the_payload_is_stored_uncompressed(world: PostgresWorld) -> None:
    journal = await filled(world, chain(1, size=100_000))
    with psycopg.connect(world.database.admin_url) as connection:
        rows = connection.execute("SELECT pg_column_compression(events), pg_column_size(events) FROM journal_frames")
        (compression, size) = rows.fetchall()[0]
    assert compression is None
    assert size >= 50_000
    assert await journal.floor() == 1


async def test_the_engines_role_can_append_but_not_rewrite(world: PostgresWorld) -> None:
    await filled(world, chain(2))
    connection = await asyncpg.connect(world.database.trading_url)
    partition = "journal_frames_0000000000000000000"
    for statement in (
        "DELETE FROM journal_frames",
        "UPDATE journal_frames SET events = ''",
        "TRUNCATE journal_frames",
        f"DELETE FROM {partition}",
        f"SELECT * FROM {partition}",
        f"DROP TABLE {partition}",
        "DELETE FROM journal_snapshots",
        "UPDATE journal_snapshots SET state = ''",
        "DELETE FROM journal_lease",
        "DELETE FROM journal_fence",
        "INSERT INTO journal_incarnation (reason) VALUES ('mine')",
        "INSERT INTO journal_floor VALUES (0, 3, decode(repeat('00', 32), 'hex'))",
        "ALTER TABLE journal_frames DISABLE TRIGGER ALL",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


async def test_other_roles_see_nothing(world: PostgresWorld) -> None:
    with psycopg.connect(world.database.server.url(world.database.name, "postgres"), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS stranger")
        connection.execute("CREATE ROLE stranger")
        for table in ("frames", "snapshots", "fence", "lease", "floor", "incarnation"):
            query = "SELECT has_table_privilege('stranger', %s, 'SELECT, INSERT, UPDATE, DELETE')"
            assert connection.execute(query, [f"journal_{table}"]).fetchone() == (False,)
        query = "SELECT has_function_privilege('stranger', 'journal_ensure_partitions(bigint)', 'EXECUTE')"
        assert connection.execute(query).fetchone() == (False,)
        connection.execute("DROP ROLE stranger")


async def test_damaged_snapshot_bytes_are_refused(world: PostgresWorld) -> None:
    frames = chain(2)
    journal = await filled(world, frames)
    await journal.save_snapshot(snapshot_at(frames[1], state=b"x" * 5000))
    world.admin("UPDATE journal_snapshots SET state = set_byte(state, 4999, 0)")
    with pytest.raises(JournalCorrupt, match="shard 0, sequence 4: the 5000 bytes of the snapshot were altered"):
        await journal.latest_snapshot()


async def test_a_restored_database_fences_a_leader_of_the_former_incarnation(world: PostgresWorld) -> None:
    frames = chain(2)
    journal = await filled(world, frames[:1])
    world.admin("INSERT INTO journal_incarnation (reason) VALUES ('restored to 12:00')")
    with psycopg.connect(world.database.server.url(world.database.name, "postgres"), autocommit=True) as superuser:
        superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pincex-journal-0-append'"
        )
    with pytest.raises(Fenced, match="incarnation"):
        await journal.append(frames[1])
    assert (await world.journal()).incarnation != journal.incarnation


async def test_every_append_reports_its_seconds(world: PostgresWorld) -> None:
    seconds: list[float] = []
    journal = await world.journal(observe_append=seconds.append)
    await world.lease().acquire("me")
    for frame in chain(3):
        await journal.append(frame)
    assert len(seconds) == 3
    assert all(0 < each < 10 for each in seconds)


async def test_without_the_migrations_the_journal_says_what_to_run(world: PostgresWorld) -> None:
    url = world.database.server.url("template1", "trading_user")
    with pytest.raises(JournalError, match="pincex migrate run"):
        await PostgresJournal.open(url)


async def test_no_server_is_unavailable_and_the_password_stays_secret(free_port: Any) -> None:
    with pytest.raises(JournalUnavailable, match="no connection to postgresql://someone@127") as caught:
        await PostgresJournal.open(f"postgresql://someone:secret-word@127.0.0.1:{free_port()}/pincex")
    assert "secret-word" not in str(caught.value)


@contextlib.asynccontextmanager
async def standby_away(database: Database) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """A synchronous standby that does not answer: commits wait, except those of the superuser's connection given."""
    async with observing(database.server, database.name) as observer:
        await wait_for(database.server, NOBODY)
        try:
            yield observer
        finally:
            await wait_for(database.server, "")


WAITING = "FROM pg_stat_activity WHERE application_name = 'pincex-journal-0-append' AND wait_event = 'SyncRep'"
BEHIND = f"SELECT count(*) = 1 {WAITING} AND query LIKE '%FOR SHARE' AND query NOT LIKE '%INSERT%'"


@pytest.mark.parametrize("blow", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_a_frame_that_is_visible_but_not_replicated_is_not_acknowledged(world: PostgresWorld, blow: str) -> None:
    frames = chain(2)
    journal = await filled(world, frames[:1])
    async with standby_away(world.database) as observer:
        appending = asyncio.create_task(journal.append(frames[1]))
        await until(lambda: observer.fetchval(f"SELECT count(*) = 1 {WAITING}"))
        # Cancelled, it answers "INSERT 0 1" with a warning; terminated, it just goes. The row is visible either way.
        await observer.execute(f"SELECT {blow}(pid) {WAITING}")
        await until(lambda: observer.fetchval("SELECT count(*) = 2 FROM journal_frames"))
        # The journal waits behind another commit, which the standby has not seen either.
        await until(lambda: observer.fetchval(BEHIND))
        await until(lambda: journal.stalled_since is not None)
        assert not appending.done()
    await asyncio.wait_for(appending, DEADLINE_S)
    assert await everything(journal.read(1)) == frames
    assert journal.stalled_since is None


async def test_an_epoch_that_is_not_replicated_is_not_given_out(world: PostgresWorld) -> None:
    lease = world.lease(ttl_seconds=20.0)
    assert await lease.acquire("me") == 1
    async with standby_away(world.database) as observer:
        acquiring = asyncio.create_task(lease.acquire("me"))
        waiting = WAITING.replace("journal-0-append", "lease-0")
        await until(lambda: observer.fetchval(f"SELECT count(*) = 1 {waiting}"))
        await observer.execute(f"SELECT pg_cancel_backend(pid) {waiting}")
        with pytest.raises(JournalUnavailable, match="may not have been replicated"):
            await acquiring
    assert await lease.acquire("me") == 3

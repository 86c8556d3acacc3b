"""A backup and the journal's tail give the exchange of the moment of the last frame; what does not fit is refused whole."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from exchange.market_data.history import History
from exchange.market_data.service.history_intake import frame_of
from exchange.runtime.event_feed import EventFeed, FeedError
from exchange.runtime.internal_client import InternalClient
from exchange.stack.errors import StackError
from exchange.stack.postgresql.backup import backup
from exchange.stack.postgresql.candles import rebuild
from exchange.stack.postgresql.restore import restore
from exchange.trading import recovery
from exchange.trading.journal.postgres import PostgresJournal
from pincex.settlement.v1 import settlement_service_pb2 as pb
from tests.integration.market_data.history_rig import candle_rows, market_data_url
from tests.integration.recovery.engine_process import EngineProcess, engine_on
from tests.integration.settlement.settlement_app import assert_whole, running_settlement
from tests.integration.trading.engine_app import ENVIRONMENT, eventually
from tests.postgres_fixture import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

FRAME = """
INSERT INTO journal_frames (shard, first_sequence, last_sequence, epoch, time_ns, commands, events, digest, prev_hash, hash,
    format_version, rules_version)
VALUES (0, %(at)s, %(at)s, %(epoch)s, 1, 'c', 'e', sha256('d'), sha256(%(before)s), sha256(%(name)s), 1, 1)
"""


@pytest.fixture
def url(database: Database) -> str:
    """As its superuser: `admin` is one in a stack."""
    return database.server.url(database.name, "postgres")


def append(url: str, *frames: tuple[int, str, str], epoch: int = 1) -> None:
    """Frames of one command: sequence, what the one before is called, its own name."""
    with psycopg.connect(url) as connection:
        for at, before, name in frames:
            connection.execute("SELECT journal_ensure_partitions(%s)", (at,))
            connection.execute(FRAME, {"at": at, "before": before.encode(), "name": name.encode(), "epoch": epoch})


def databases(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def file(url: str, tmp_path: Path) -> Path:
    """A backup whose journal has two frames."""
    append(url, (1, "", "a"), (2, "a", "b"))
    file = tmp_path / "exchange.dump"
    backup(url, file)
    return file


def test_the_tail_is_added_as_it_is_and_later_leaders_come_after_all_of_its(
    url: str, file: Path, database: Database
) -> None:
    name = f"{database.name}_restored"
    # Far enough to be in another partition.
    append(url, (3, "b", "c"), (30_000_001, "c", "d"), epoch=7)
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO journal_fence VALUES (0, 1) ON CONFLICT (shard) DO UPDATE SET epoch = 1")
    backup(url, file)
    append(url, (30_000_002, "d", "e"), (70_000_001, "e", "f"), epoch=9)
    try:
        found = restore(url, file, name, tail_url=url)
        assert (found.backup_sequence, found.sequence) == (30_000_001, 70_000_001)
        restored = database.server.url(name, "postgres")
        everything = "SELECT * FROM journal_frames ORDER BY first_sequence"
        assert rows(restored, everything) == rows(url, everything)
        assert rows(restored, "SELECT epoch FROM journal_fence") == [(9,)]
    finally:
        database.server.drop_database(name)


def test_without_a_tail_it_is_the_backup(url: str, file: Path, database: Database) -> None:
    name = f"{database.name}_restored"
    append(url, (3, "b", "c"))
    try:
        found = restore(url, file, name)
        assert (found.backup_sequence, found.sequence) == (2, 2)
        again = f"{database.name}_again"
        assert restore(url, file, again, tail_url=database.server.url(name, "postgres")).sequence == 2, "no tail at all"
        database.server.drop_database(again)
    finally:
        database.server.drop_database(name)


@pytest.mark.parametrize("tail", [(3, "another b", "c"), (4, "b", "d")])
def test_a_tail_that_does_not_continue_the_backup_is_refused_and_nothing_is_left(
    url: str, file: Path, database: Database, tail: tuple[int, str, str]
) -> None:
    append(url, tail)
    before = databases(url)
    with pytest.raises(StackError, match="does not continue the backup, which ends at sequence 2"):
        restore(url, file, f"{database.name}_restored", tail_url=url)
    assert databases(url) == before


def test_what_is_no_backup_or_would_be_overwritten_is_refused(url: str, file: Path, database: Database) -> None:
    with psycopg.connect(database.server.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty")
    empty = database.server.url("empty", "postgres")
    backup(empty, file.with_name("empty.dump"))
    database.server.drop_database("empty")
    before = databases(url)
    with pytest.raises(StackError, match="of no exchange"):
        restore(url, file.with_name("empty.dump"), f"{database.name}_restored")
    with pytest.raises(StackError, match="already"):
        restore(url, file, database.name)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StackError, match="not what was written"):
        restore(url, file, f"{database.name}_restored")
    with pytest.raises(StackError, match="cannot be read"):
        restore(url, file.with_name("nothing.dump"), f"{database.name}_restored")
    assert databases(url) == before


@asynccontextmanager
async def following(engine: EngineProcess, database: Database) -> AsyncIterator[History]:
    """Market data's candles on a database."""
    client = InternalClient(f"127.0.0.1:{engine._ops}", "market-data", None)
    feed = EventFeed(client, through_restores=True)
    history = History(market_data_url(database), "one", feed, frame_of, passing=(FeedError,))
    task = asyncio.create_task(history.run())
    try:
        yield history
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


async def trade(engine: EngineProcess, rounds: int) -> None:
    async with engine.client("demo") as buyer, engine.client("maker") as seller:
        for number in range(rounds):
            price = str(50_000 + number % 7)
            await seller.place_order("BTCUSD", "SELL", "0.3", price)
            await buyer.place_order("BTCUSD", "BUY", "0.2", price)


async def test_an_exchange_made_from_a_backup_and_the_tail_goes_on_where_the_old_one_was(
    monkeypatch: pytest.MonkeyPatch, url: str, database: Database, free_port: Callable[[], int], tmp_path: Path
) -> None:
    file, restored = tmp_path / "exchange.dump", Database(database.server, f"{database.name}_restored")
    async with engine_on(database, free_port, JWT_SECRET=ENVIRONMENT["JWT_SECRET"]) as engine:
        beside: Any = SimpleNamespace(app=SimpleNamespace(ops=SimpleNamespace(port=engine._ops)))
        async with (
            running_settlement(monkeypatch, beside, database) as settlement,
            following(engine, database) as history,
        ):
            await trade(engine, 10)
            await eventually(lambda: settlement.app.settler.offset.trade_count >= 10, "it settles")
            await eventually(lambda: history.written.sequence >= settlement.app.settler.offset.sequence, "and candles")
        backup(url, file)
        await trade(engine, 10)
        async with engine.client() as client:
            before = await client.admin.engine_state()
        engine.kill()
    try:
        assert restore(url, file, restored.name, tail_url=url).sequence >= before.sequence
        journal = await PostgresJournal.open(restored.trading_url)
        found = await recovery.recover(journal, to_sequence=before.sequence, exactly=True)
        await journal.close()
        # As after any restore, whether something was lost or not: tokens of before are refused, but by what follows the record.
        with psycopg.connect(restored.admin_url) as connection:
            connection.execute("INSERT INTO journal_incarnation (reason) VALUES ('restored')")
        assert (found.engine.state.sequence, found.engine.state_hash()) == (before.sequence, before.state_hash)
        async with engine_on(restored, free_port, JWT_SECRET=ENVIRONMENT["JWT_SECRET"]) as engine:
            beside.app.ops.port = engine._ops
            async with (
                running_settlement(monkeypatch, beside, restored) as settlement,
                following(engine, restored) as history,
            ):
                await trade(engine, 1)
                await eventually(lambda: settlement.app.settler.offset.trade_count >= 21, "it goes on from its offset")
                report = await settlement.ask("Reconcile", pb.ReconcileRequest(reason="restored"))
                assert report.whole, report
                await eventually(lambda: history.written.sequence >= report.sequence, "candles go on too")
                candles = candle_rows(restored)
                rebuild(restored.admin_url)
                assert candles == candle_rows(restored), "as the trades say"
        assert_whole(restored)
    finally:
        database.server.drop_database(restored.name)

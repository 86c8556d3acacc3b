"""Settlement writes what the engine did exactly once, whatever dies, and stops rather than skip."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from exchange.settlement import settler, store
from exchange.settlement.service.intake import Intake
from exchange.settlement.settler import State
from exchange.trading.journal.memory import MemoryStore
from pincex.settlement.v1 import settlement_service_pb2 as pb
from pincex.trading.v1 import types_pb2
from tests.integration.settlement.kills import kill_rounds
from tests.integration.settlement.settlement_app import (
    Settlement,
    as_superuser,
    assert_whole,
    environment,
    rows,
    running_settlement,
    tables,
    trade_some,
)
from tests.integration.trading.engine_app import Exchange, eventually, running_exchange

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres_fixture import Database, PostgresServer

KILLS = 10
LOSS = pb.RecordLossRequest(
    custody_account="custody:manual", asset="USD", amount="1", request_id="loss", reason="a test"
)


async def test_live_load_is_settled_and_orders_are_what_the_engine_says(
    exchange: Exchange, settlement: Settlement, database: Database
) -> None:
    await trade_some(exchange)
    await settlement.settled(exchange)

    assert_whole(database)
    for client in (exchange.demo, exchange.maker):
        for order in await client.listed(page_size=500, statuses=[1, 2, 3, 4]):
            (found,) = rows(
                database,
                "SELECT user_id, symbol, quantity::text, filled_quantity::text, open_quantity::text, status, price::text"
                " FROM orders WHERE id = %s",
                int(order.order_id),
            )
            assert found[0:2] == (client.account, order.symbol)
            assert [float(value) for value in (*found[2:5], found[6])] == [
                float(text) for text in (order.quantity, order.filled_quantity, order.open_quantity, order.price)
            ]
            assert found[5] == types_pb2.OrderStatus.Name(order.status)
        balances = rows(
            database, "SELECT asset, available::text, held::text FROM balances WHERE user_id = %s", client.account
        )
        assert {asset: (available, held) for asset, available, held in balances} == await client.balances()
    assert rows(database, "SELECT count(*) FROM trades")[0][0] > 0
    assert rows(database, "SELECT sum(quantity) FROM fills") == rows(
        database, "SELECT sum(filled_quantity) FROM orders"
    )


async def test_a_replay_from_zero_gives_the_same_tables(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, settlement: Settlement, postgres_server: PostgresServer
) -> None:
    await trade_some(exchange, 3)
    await settlement.settled(exchange)
    await trade_some(exchange, 3)
    await settlement.settled(exchange)
    other = postgres_server.create_database()
    # Other transactions than those before: each full after a few rows.
    monkeypatch.setattr(settler, "MAX_ROWS", 8)
    try:
        async with running_settlement(monkeypatch, exchange, other) as again:
            await again.settled(exchange)
        assert tables(other) == tables(settlement.database)
    finally:
        postgres_server.drop_database(other.name)


async def test_cancelled_anywhere_nothing_is_lost_and_nothing_doubled(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database
) -> None:
    """Each round ends after another number of the writer's statements, the one of that number having been sent or not."""
    write = store.write
    left = [0]

    async def cut(connection: Any, *rest: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            task = asyncio.ensure_future(write(connection, *rest))
            await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            raise ConnectionResetError("cut by the test")
        await write(connection, *rest)

    monkeypatch.setattr(store, "write", cut)
    async with running_settlement(monkeypatch, exchange, database) as settlement:
        restarts = settlement.app.settler.metrics
        assert restarts is not None
        for number in range(1, 6):
            left[0] = number
            await trade_some(exchange, 1)
            await settlement.settled(exchange)
    assert_whole(database)


async def test_what_comes_while_a_transaction_is_under_way_is_the_next_one(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, settlement: Settlement, database: Database
) -> None:
    """And a loss comes after all of it."""
    await settlement.settled(exchange)
    write, under_way, go_on, written = store.write, asyncio.Event(), asyncio.Event(), list[store.Offset]()

    async def slow(connection: Any, rows_: Any, old: store.Offset, new: store.Offset) -> None:
        under_way.set()
        await go_on.wait()
        await write(connection, rows_, old, new)
        written.append(new)

    monkeypatch.setattr(store, "write", slow)
    await exchange.demo.buy("0.1", "40000")
    await under_way.wait()
    await trade_some(exchange, 2)
    head, work = exchange.engine.state.sequence, settlement.app.settler

    def posted_ahead() -> bool:
        return work._posted is not None and work._posted.sequence >= head

    await eventually(posted_ahead, "all is posted")
    loss = asyncio.create_task(settlement.ask("RecordLoss", LOSS))
    await eventually(work._posting.locked, "the loss waits for what is posted")
    go_on.set()
    posting_id = (await loss).posting_id
    first, second, last = written
    assert first.sequence < head <= second.sequence == last.sequence, "two transactions, and the loss's own"
    assert second.posting_id < posting_id <= last.posting_id
    assert_whole(database)


async def test_killed_again_and_again_under_load_nothing_is_lost_and_nothing_doubled(
    exchange: Exchange, database: Database, tmp_path: Path, repository: Path, seed: int
) -> None:
    """`tests/long/test_settlement_kills.py` does it a hundred times, with an engine on PostgreSQL."""

    async def load() -> None:
        for number in itertools.count():
            await exchange.credit("demo", "USD", "100000", f"load-{number}")
            await exchange.credit("maker", "BTC", "1", f"load-{number}")
            await trade_some(exchange, 1)

    def goes_on() -> None:
        assert not loading.done(), "the load goes on"

    loading = asyncio.create_task(load())
    variables = environment(exchange, database, str(tmp_path))
    try:
        found = await kill_rounds(variables, database, repository, KILLS, random.Random(f"{seed}-kills"), goes_on)
    finally:
        loading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loading
    assert found.sequences == sorted(found.sequences)
    assert found.sequences[-1] > 0


async def test_of_two_instances_one_stands_by_and_takes_over(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database
) -> None:
    async with running_settlement(monkeypatch, exchange, database) as first:
        await first.settled(exchange)
        async with running_settlement(monkeypatch, exchange, database, PINCEX_INSTANCE="second") as second:
            await eventually(lambda: second.app.settler.state is State.STANDBY, "the second stands by")
            assert first.app.settler.is_writer
            session = first.app.settler._session
            assert session is not None
            as_superuser(database, "SELECT pg_terminate_backend(%s)", session.connection.get_server_pid())
            await trade_some(exchange, 2)
            await eventually(
                lambda: (
                    max(one.app.settler.offset.sequence for one in (first, second)) >= exchange.engine.state.sequence
                ),
                "one of them settles",
            )
            writers = [one.app.settler.is_writer for one in (first, second)]
            assert sorted(writers) == [False, True]
    assert_whole(database)


async def test_a_writer_that_was_overtaken_writes_nothing_and_reads_anew(
    exchange: Exchange, settlement: Settlement, database: Database
) -> None:
    """As if its lock had been lost without its session: another has written what it is about to write."""
    await settlement.settled(exchange)
    rows(database, "UPDATE settlement_offset SET sequence = sequence - 1")
    reads = settlement.app.settler.metrics
    assert reads is not None
    await exchange.demo.buy("0.1", "40000")
    await eventually(lambda: reads.restarts._value.get() > 0, "it reads the books anew")
    lines = "SELECT count(*) FROM ledger_lines WHERE transaction_id = %s"
    assert rows(database, lines, exchange.engine.state.sequence) == [(0,)]
    rows(database, "UPDATE settlement_offset SET sequence = sequence + 1")
    await settlement.settled(exchange)
    assert_whole(database)


async def test_a_database_that_comes_back_is_gone_on_with(
    exchange: Exchange, settlement: Settlement, database: Database
) -> None:
    await settlement.settled(exchange)
    as_superuser(
        database, f"ALTER ROLE settlement_user IN DATABASE {database.name} SET default_transaction_read_only = on"
    )
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'settlement_user' AND datname = %s"
    as_superuser(database, end, database.name)
    await trade_some(exchange, 1)
    await eventually(lambda: settlement.app.settler.state is State.WAITING_FOR_DATABASE, "it waits")
    as_superuser(
        database, f"ALTER ROLE settlement_user IN DATABASE {database.name} RESET default_transaction_read_only"
    )
    await settlement.settled(exchange)
    assert_whole(database)


async def test_another_history_stops_it_and_says_why(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    async with running_exchange(monkeypatch) as first, running_settlement(monkeypatch, first, database) as settlement:
        await settlement.settled(first)
    async with (
        running_exchange(monkeypatch, store=MemoryStore()) as second,
        running_settlement(monkeypatch, second, database) as settlement,
    ):
        await eventually(lambda: settlement.app.settler.state is State.STOPPED, "it stops")
        assert "HISTORY_CHANGED" in settlement.app.settler.problem


async def test_what_cannot_be_posted_stops_it_and_says_why(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, settlement: Settlement, database: Database
) -> None:
    await settlement.settled(exchange)
    before = tables(database)

    take = Intake.take

    def broken(intake: Intake, batch: Any) -> None:
        take(intake, batch)
        raise ValueError(f"frame {batch.last_sequence} cannot be read to its end")

    monkeypatch.setattr(Intake, "take", broken)
    await exchange.demo.buy("0.1", "40000")
    await eventually(lambda: settlement.app.settler.state is State.STOPPED, "it stops")
    assert "cannot be read" in settlement.app.settler.problem
    assert tables(database) == before


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        (
            """INSERT INTO ledger_lines VALUES (10000001, 10000001, 1, 'USD', 1, 5, 5, 5, 'x', 1),
            (10000002, 10000001, 2, 'USD', 4, 5, -4, 4, 'x', 1)""",
            "does not balance",
        ),
        ("INSERT INTO ledger_lines VALUES (10000001, 10000001, 1, 'USD', 1, 5, 0, 5, 'x', 1)", "check constraint"),
        ("UPDATE ledger_lines SET amount = 1", "append-only"),
        ("DELETE FROM ledger_lines", "append-only"),
        ("TRUNCATE ledger_lines", "append-only"),
    ],
)
async def test_the_database_itself_refuses_what_breaks_the_ledger(
    exchange: Exchange, settlement: Settlement, database: Database, statement: str, why: str
) -> None:
    await settlement.settled(exchange)
    with pytest.raises(psycopg.Error, match=why):
        rows(database, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_lines SET amount = 1",
        "DELETE FROM ledger_lines",
        "DELETE FROM trades",
        "UPDATE trades SET price = 1",
        "DELETE FROM settlement_incidents",
        "UPDATE settlement_incidents SET sequence = 1",
        "UPDATE settlement_corrections SET amount = 1",
        "DELETE FROM ledger_losses",
    ],
)
def test_the_service_has_no_right_to_rewrite(database: Database, statement: str) -> None:
    with (
        psycopg.connect(database.settlement_url) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_the_engine_has_no_right_to_the_ledger(database: Database) -> None:
    for table in ("ledger_lines", "ledger_balances", "trades", "orders", "settlement_corrections"):
        with (
            psycopg.connect(database.trading_url) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(f"SELECT * FROM {table}")

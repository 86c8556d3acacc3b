"""Snapshots are made by themselves, beside the leader, and a start uses the newest."""

from __future__ import annotations

import psycopg

from exchange.trading import recovery
from exchange.trading.journal.postgres import PostgresJournal
from pincex_client import requests
from tests.integration.journal.waiting import until
from tests.integration.recovery.engine_process import EngineProcess, engine_on

EVERY = 1_000


async def trade(engine: EngineProcess, name: str, count: int) -> None:
    """Orders of 1 lot, pipelined."""
    async with engine.client("maker") as exchange, exchange.session() as session:
        futures = [
            await session.send(
                requests.place_order("BTCUSD", "BUY", "0.0001", "45000", client_order_id=f"{name}{number}")
            )
            for number in range(count)
        ]
        for future in futures:
            (await future).raise_if_refused()


def snapshots(engine: EngineProcess) -> list[int]:
    with psycopg.connect(engine.database.admin_url) as connection:
        return [row[0] for row in connection.execute("SELECT sequence FROM journal_snapshots ORDER BY sequence")]


async def test_snapshots_are_made_while_leading_and_used_at_the_next_start(database, free_port):
    async with engine_on(database, free_port, PINCEX_SNAPSHOT_EVERY=str(EVERY)) as engine:
        await trade(engine, "a", EVERY + 100)
        await until(lambda: snapshots(engine) != [])
        await until(lambda: "snapshot stored" in engine.log)
        newest = snapshots(engine)[-1]
        assert newest > EVERY
        await trade(engine, "b", 50)
        engine.kill()
        await engine.start()
        async with engine.client() as exchange:
            state = await exchange.admin.engine_state()
        assert state.snapshot_sequence == newest
        assert f'"snapshot_sequence":{newest},"replayed_commands":{state.sequence - newest}' in engine.log
        journal = await PostgresJournal.open(database.trading_url)
        replayed = await recovery.recover(journal, to_sequence=state.sequence, from_genesis=True)
        await journal.close()
        assert replayed.engine.state_hash() == state.state_hash


async def test_a_snapshot_that_cannot_be_stored_stops_no_trading(database, free_port):
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("REVOKE INSERT ON journal_snapshots FROM trading_user")
    async with engine_on(database, free_port, PINCEX_SNAPSHOT_EVERY=str(EVERY)) as engine:
        await trade(engine, "a", EVERY + 100)
        await until(lambda: "no snapshot was made" in engine.log)
        await trade(engine, "b", 10)
        assert snapshots(engine) == []

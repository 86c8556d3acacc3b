"""Backing up a running exchange, as docs/RUNBOOKS.md prints it."""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from exchange.trading import recovery
from exchange.trading.journal.postgres import PostgresJournal
from pincex_client import ExchangeClient
from tests.document_shell import DocumentShell
from tests.e2e.rest_client import RestClient
from tests.unit.docs.examples import examples
from tests.unit.docs.tables import document

if TYPE_CHECKING:
    from exchange.trading.recovery import Recovered
    from tests.stack_fixture import ExchangeStack

STEPS = {example.name: example for example in examples(document("docs/RUNBOOKS.md"))}


def test_a_backup_of_an_exchange_that_trades_restores_to_what_it_was(exchange_stack: ExchangeStack) -> None:
    client, done = RestClient(exchange_stack), threading.Event()
    placed: list[str] = []

    def trade() -> None:
        while not done.wait(0.02):
            order = client.placed()
            assert client.call("DELETE", f"/api/v1/orders/{order['order_id']}").status == 200
            placed.append(str(order["order_id"]))

    trading = threading.Thread(target=trade)
    trading.start()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shell = DocumentShell(exchange_stack.folder, exchange_stack.home.parent, {"PATH": path})
    try:
        shell.type(STEPS["database-backup"])
    finally:
        done.set()
        trading.join()

    assert len(placed) > 10
    manifest = json.loads((exchange_stack.home.parent / "backup_pincex.dump.json").read_text())
    rows = {name: count for name, (count, _) in manifest["tables"].items()}
    assert {"public.orders", "public.ledger_lines", "public.audit_records"} <= rows.keys()
    status = exchange_stack.folder.command("db", "verify", str(exchange_stack.home.parent / "nothing.dump"))
    assert status.returncode == 1
    assert "cannot be read" in status.stderr


async def recovered(url: str, sequence: int) -> Recovered:
    """The state that a database's journal gives at a sequence."""
    journal = await PostgresJournal.open(url)
    try:
        return await recovery.recover(journal, to_sequence=sequence, exactly=True)
    finally:
        await journal.close()


async def test_a_backup_and_the_journal_since_give_the_hash_of_the_running_exchange(
    exchange_stack: ExchangeStack,
) -> None:
    client, name = RestClient(exchange_stack), f"restored_{uuid.uuid4().hex[:8]}"
    file = str(exchange_stack.home.parent / f"{name}.dump")
    url = exchange_stack.admin_database_url
    assert url is not None
    client.placed()
    assert exchange_stack.folder.command("db", "backup", file).returncode == 0
    client.placed()
    async with ExchangeClient(exchange_stack.edge_address, ops_target=exchange_stack.ops_address) as exchange:
        before = await exchange.admin.engine_state()
    done = exchange_stack.folder.command("db", "restore", file, name, "--tail")
    assert done.returncode == 0, done.stderr
    try:
        found = await recovered(url.rpartition("/")[0] + f"/{name}", before.sequence)
        assert (found.engine.state.sequence, found.engine.state_hash()) == (before.sequence, before.state_hash)
        again = exchange_stack.folder.command("db", "restore", file, name)
        assert again.returncode == 1
        assert "already" in again.stderr
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

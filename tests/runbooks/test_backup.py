"""Backing up a running exchange, as docs/RUNBOOKS.md prints it."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.document_shell import DocumentShell
from tests.e2e.rest_client import RestClient
from tests.unit.docs.examples import examples
from tests.unit.docs.tables import document

if TYPE_CHECKING:
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

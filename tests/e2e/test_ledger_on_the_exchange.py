"""The books of the whole running exchange: what the engine did stands in the ledger, and the command line shows it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.edge_http import call
from tests.stack_fixture import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stack_fixture import ExchangeStack

    Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def account() -> str:
    """An account that no other test uses."""
    return f"books-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def pincex(exchange_stack: ExchangeStack, account: str) -> Run:
    """Runs `pincex ARGUMENTS` as this account."""
    environment = {**exchange_stack.folder.environment, "PINCEX_ACCOUNT": account}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "import sys; from pincex_client.cli import main; sys.exit(main())", *arguments],
            env=environment,
            cwd=exchange_stack.home.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def parsed(done: subprocess.CompletedProcess[str], status: int = 0) -> Any:
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def credited(exchange_stack: ExchangeStack, pincex: Run, account: str) -> str:
    """The account with 1,000.50 USD, in the ledger too."""
    parsed(pincex("credit", account, "USD", "1000.50", "--json"))
    url = f"{exchange_stack.ops_url}/admin/ledger/accounts/{account}"
    eventually(lambda: bool(call(url).json().get("balances")), "the credit is settled")
    return account


def balances(pincex: Run, account: str) -> dict[tuple[str, str], Decimal]:
    found = parsed(pincex("ledger", "account", account, "--json"))
    return {(one["asset"], one["kind"]): Decimal(one["amount"]) for one in found["balances"] if Decimal(one["amount"])}


def test_a_balance_is_explained_by_its_postings(pincex: Run, credited: str) -> None:
    asset = f"A{uuid.uuid4().hex[:6].upper()}"
    parsed(pincex("admin", "create-asset", asset, "2", "--json"))
    market = parsed(pincex("admin", "create-market", asset, "USD", "--tick", "0.01", "--lot", "1", "--json"))
    order = parsed(pincex("place", market["symbol"], "buy", "3", "100.10", "--json"))
    eventually(lambda: ("USD", "held") in balances(pincex, credited), "the hold is settled")

    found = balances(pincex, credited)
    postings = parsed(pincex("ledger", "postings", credited, "--json"))

    assert sum(found.values()) == Decimal("1000.50")
    for (asset, kind), amount in found.items():
        lines = [one for one in postings if (one["asset"], one["kind"]) == (asset, kind)]
        assert sum(Decimal(one["amount"]) for one in lines) == amount
        assert Decimal(lines[0]["balance_after"]) == amount, "the newest first"
    assert order["order_id"] in {one["reference"] for one in postings}
    assert "held" in pincex("ledger", "account", credited).stdout
    parsed(pincex("cancel", order["order_id"], "--json"))


def test_a_statement_adds_up_as_table_json_and_csv(exchange_stack: ExchangeStack, pincex: Run, credited: str) -> None:
    shown = pincex("statement", "USD")
    found = parsed(pincex("statement", "USD", "--json"))
    rows = list(csv.reader(io.StringIO(pincex("statement", "USD", "--csv").stdout)))

    assert shown.returncode == 0, shown.stderr
    assert "closing balance 1000.5" in shown.stdout
    assert [one["cause"] for one in found["lines"]] == ["deposit"]
    opening, change, closing = (Decimal(found[f"{name}"]) for name in ("opening_balance", "change", "closing_balance"))
    assert (opening + change, closing) == (closing, Decimal("1000.50"))
    assert len(rows) >= 2
    assert {len(row) for row in rows} == {len(rows[0])}
    asked = {"x-pincex-account": credited}
    export = call(f"{exchange_stack.edge_url}/api/v1/statements/export?asset=USD", headers=asked)
    assert export.headers["content-type"].startswith("text/csv")
    assert [row[1:5] for row in csv.reader(io.StringIO(export.body.decode()))] == [row[1:5] for row in rows]
    before = parsed(pincex("statement", "USD", "--to", "2020-01-01", "--json"))
    assert (before["lines"], Decimal(before["closing_balance"])) == ([], Decimal(0))
    assert pincex("statement", "USD", "--from", "yesterday").returncode == 2
    assert parsed(pincex("fees", "--json"))["lines"] == []


def test_engine_and_ledger_agree_and_the_command_says_so(pincex: Run, credited: str) -> None:
    told = pincex("admin", "settlement", "reconcile")
    status = parsed(pincex("admin", "settlement", "status", "--json"))

    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.startswith("whole at sequence ")
    assert status["state"] in {"RUNNING", "CATCHING_UP"}
    assert status["open_incidents"] == 0
    assert parsed(pincex("admin", "settlement", "incidents", "--open", "--json")) == []


def test_a_correction_needs_two_people_and_reaches_engine_and_ledger(pincex: Run, credited: str) -> None:
    def operator(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return pincex("--account", name, "--json", "admin", "settlement", *arguments)

    proposed = parsed(operator("anna", "propose", credited, "USD", "-0.50", "--reason", "credited too much"))
    number = proposed["correction_id"]
    own = parsed(operator("anna", "approve", number), 1)
    done = parsed(operator("ben", "approve", number, "--reason", "seen the bank's letter"))

    assert own["error"]["reason"] == "FOUR_EYES"
    assert (done["status"], done["proposed_by"], done["decided_by"]) == ("CARRIED_OUT", "anna", "ben")
    eventually(lambda: balances(pincex, credited) == {("USD", "available"): Decimal(1000)}, "it is settled")
    listed = parsed(pincex("admin", "settlement", "corrections", "--json"))
    assert [one["status"] for one in listed if one["correction_id"] == number] == ["CARRIED_OUT"]
    refused = parsed(operator("ben", "reject", number, "--reason", "too late"), 1)
    assert refused["error"]["reason"] == "RECORD_STATE"


def test_settlement_is_killed_and_scaled_as_other_services_and_catches_up(
    exchange_stack: ExchangeStack, pincex: Run, credited: str
) -> None:
    folder = exchange_stack.folder
    assert folder.command("scale", "settlement=2").returncode == 0
    try:
        roles = {exchange_stack.instance(f"settlement-{number}")["role"] for number in (1, 2)}
        assert roles == {"writer", "standby"}
        exchange_stack.restart("settlement-1")
        parsed(pincex("credit", credited, "USD", "1", "--json"))
        eventually(lambda: balances(pincex, credited) == {("USD", "available"): Decimal("1001.50")}, "it is settled")
    finally:
        assert folder.command("scale", "settlement=1").returncode == 0
    assert folder.command("logs", "settlement-1").returncode == 0

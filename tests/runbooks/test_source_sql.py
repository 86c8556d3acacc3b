"""Every SQL statement that the two source runbooks print runs as it is printed, on the running exchange, as the role admin."""

from __future__ import annotations

import csv
import subprocess
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest

from exchange.stack.postgresql.place import wheel_binaries
from tests.e2e.rest_client import RestClient
from tests.runbooks.source_sql import PrintedSql, printed_sql
from tests.stack_fixture import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres_fixture import Database
    from tests.stack_fixture import ExchangeStack

OPERATIONAL, PLATFORM = "pincex-operational-runbooks.md", "exchange-platform-runbook.md"
COUNTS = {OPERATIONAL: 18, PLATFORM: 5}


@pytest.fixture(scope="module")
def statements(shared_folder: Path) -> dict[str, list[PrintedSql]]:
    """By runbook. Skips where these are not beside the repository."""
    folder = shared_folder / "source-runbooks"
    if not folder.is_dir():
        pytest.skip(f"no source runbooks at {folder} (set PINCEX_SHARED)")
    return {name: printed_sql((folder / name).read_text(encoding="utf-8")) for name in COUNTS}


def typed(url: str, sql: str) -> list[dict[str, str]]:
    """What psql prints, by column; fails with what it says for an error."""
    command = [str(wheel_binaries() / "psql"), "--no-psqlrc", "--csv", "-v", "ON_ERROR_STOP=1", url, "-c", sql]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), f"{sql}\n{done.stderr}"
    return list(csv.DictReader(done.stdout.splitlines()))


def unchanged(one: PrintedSql) -> str:
    """The statement; of the name of the database, the one thing that may differ, only the name inside it."""
    assert one.role in {"admin", "user"}
    assert one.database in {"pincex", "exchange"}
    return one.sql.replace("'exchange'", "'pincex'") if one.database == "exchange" else one.sql


@pytest.fixture(scope="module")
def admin_url(exchange_stack: ExchangeStack) -> str:
    """The database of an exchange with orders and trades in it."""
    url = exchange_stack.admin_database_url
    assert url is not None
    assert (urlsplit(url).username, urlsplit(url).path) == ("admin", "/pincex")
    client = RestClient(exchange_stack)
    client.placed()
    eventually(
        lambda: typed(url, f"SELECT count(*) FROM orders WHERE user_id = '{client.account}'") == [{"count": "1"}],
        "the order is settled",
    )
    return url


def test_every_printed_statement_is_found(statements: dict[str, list[PrintedSql]]) -> None:
    assert {name: len(found) for name, found in statements.items()} == COUNTS


@pytest.mark.parametrize(("runbook", "number"), [(name, n) for name, count in COUNTS.items() for n in range(count)])
def test_a_printed_statement_runs_unchanged(
    request: pytest.FixtureRequest,
    statements: dict[str, list[PrintedSql]],
    admin_url: str,
    runbook: str,
    number: int,
) -> None:
    one = statements[runbook][number]
    # The orders of the exchange are in use: what deletes them has a database of its own, here and below.
    deletes = "DELETE FROM orders" in one.sql
    url = request.getfixturevalue("database").admin_url if deletes else admin_url

    rows = typed(url, unchanged(one))

    if "pg_stat_user" in one.sql:
        assert all(row["tablename"] for row in rows)
    if "pg_tables" in one.sql:
        assert {"orders", "trades", "ledger_lines"} <= {row["tablename"] for row in rows}


def test_names_of_the_runbooks_hide_nothing_that_postgresql_has(admin_url: str) -> None:
    (row,) = typed(
        admin_url,
        "SELECT s.relname, s.tablename, p.relname AS plain FROM pg_stat_user_tables s JOIN pg_catalog.pg_stat_user_tables p"
        " USING (relid) WHERE s.tablename = 'orders'",
    )
    assert set(row.values()) == {"orders"}


def test_what_a_migration_makes_lands_in_public(database: Database) -> None:
    with psycopg.connect(database.admin_url) as connection:
        connection.execute("CREATE TABLE later (number integer)")
        found = connection.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'later'").fetchall()
        path = connection.execute("SHOW search_path").fetchone()
    assert found == [("public",)]
    assert path == ('"$user", public, runbook, pg_catalog',)


@pytest.mark.parametrize("role", ["trading_user", "auth_user", "settlement_user"])
def test_services_see_neither_the_views_nor_the_prices(database: Database, role: str) -> None:
    with psycopg.connect(database.server.url(database.name, role)) as connection:
        for table in ("runbook.pg_stat_user_tables", "latest_prices"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT * FROM {table}")
            connection.rollback()


ORDER = """INSERT INTO orders (id, user_id, client_order_id, symbol, side, order_type, time_in_force, quantity, price,
    open_quantity, status, created_at, updated_at, updated_sequence)
    VALUES (%s, 'demo', %s, 'BTCUSD', 'BUY', 'LIMIT', 'GTC', 1, %s, 1, 'PENDING', %s, %s, %s)"""


def test_deleting_orders_as_printed_deletes_those_since_the_backup(
    statements: dict[str, list[PrintedSql]], database: Database
) -> None:
    (one,) = [found for found in statements[OPERATIONAL] if "DELETE FROM orders" in found.sql]
    assert "'2025-06-02 10:00:00'" in one.sql
    before, after = datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 6, 3, tzinfo=UTC)
    with psycopg.connect(database.admin_url) as connection:
        for number, moment in ((1, before), (2, after)):
            connection.execute(ORDER, (number, str(number), 100, moment, moment, number))

    typed(database.admin_url, unchanged(one))

    with psycopg.connect(database.admin_url) as connection:
        assert connection.execute("SELECT id FROM orders").fetchall() == [(1,)]


def test_the_query_for_corrupt_orders_counts_those_that_make_no_sense(
    statements: dict[str, list[PrintedSql]], database: Database
) -> None:
    (one,) = [found for found in statements[OPERATIONAL] if "invalid_quantity" in found.sql]
    now = datetime.now(UTC)
    with psycopg.connect(database.admin_url) as connection:
        for number, price in ((1, Decimal(100)), (2, Decimal(-100))):
            connection.execute(ORDER, (number, str(number), price, now - timedelta(minutes=1), now, number))

    rows = typed(database.admin_url, unchanged(one))

    assert rows == [{"total_orders": "2", "invalid_quantity": "0", "invalid_price": "1", "invalid_status": "0"}]


def test_an_order_is_followed_from_its_placement_to_its_settlement(
    exchange_stack: ExchangeStack, admin_url: str, statements: dict[str, list[PrintedSql]]
) -> None:
    """ "Order placement to settlement" and "wallet debit/credit consistency" of the runbooks' testing procedures."""
    buyer, seller = RestClient(exchange_stack), RestClient(exchange_stack)
    asset = f"R{uuid4().hex[:6].upper()}"
    for path, body in (
        ("/admin/assets", {"code": asset, "decimals": 2}),
        ("/admin/markets", {"base_asset": asset, "quote_asset": "USD", "tick_size": "0.01", "lot_size": "1"}),
        (f"/admin/accounts/{seller.account}/credits", {"asset": asset, "amount": "5"}),
    ):
        answer = buyer.operator("POST", path, {**body, "request_id": f"{asset}-{path.split('/')[2]}"})
        assert answer.status == 200, answer.text
    market = {"symbol": f"{asset}USD", "price": "10.00"}
    sold = seller.placed(**market, side="Sell", quantity="5")
    bought = buyer.placed(**market, side="Buy", quantity="3")

    orders = f"SELECT user_id, status FROM orders WHERE symbol = '{asset}USD' ORDER BY id"
    settled = [{"user_id": seller.account, "status": "PARTIAL"}, {"user_id": buyer.account, "status": "FILLED"}]
    eventually(lambda: typed(admin_url, orders) == settled, "the trade is settled")

    (trade,) = typed(admin_url, f"SELECT * FROM trades WHERE symbol = '{asset}USD'")
    assert (trade["maker_order_id"], trade["taker_order_id"]) == (str(sold["order_id"]), str(bought["order_id"]))
    lines = typed(
        admin_url,
        "SELECT asset, count(*), sum(amount) FROM ledger_lines WHERE transaction_id = "
        f"(SELECT sequence FROM trades WHERE symbol = '{asset}USD') GROUP BY asset",
    )
    assert {row["asset"] for row in lines} == {asset, "USD"}
    assert all(int(row["count"]) >= 2 and row["sum"] == "0" for row in lines), "what one gives another gets"
    for client in (buyer, seller):
        engine = {
            one["asset"]: (Decimal(one["available"]), Decimal(one["held"]))
            for one in client.call("GET", "/api/v1/balances").json()["balances"]
        }
        rows = typed(admin_url, f"SELECT asset, available, held FROM balances WHERE user_id = '{client.account}'")
        ledger = {row["asset"]: (Decimal(row["available"]), Decimal(row["held"])) for row in rows}
        assert ledger == engine
    (corrupt,) = [one for one in statements[OPERATIONAL] if "invalid_quantity" in one.sql]
    (found,) = typed(admin_url, corrupt.sql)
    assert int(found.pop("total_orders")) >= 3
    assert set(found.values()) == {"0"}
    seller.call("DELETE", f"/api/v1/orders/{sold['order_id']}")

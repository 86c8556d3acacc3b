"""The command line on the whole running exchange: through Envoy, with the real engine."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stack_fixture import ExchangeStack

DEADLINE_S = 60.0


@pytest.fixture
def account() -> str:
    """An account that no other test uses."""
    return f"cli-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def pincex(exchange_stack: ExchangeStack, account: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `pincex ARGUMENTS`; only PINCEX_HOME tells it where the exchange is."""
    environment = {**exchange_stack.folder.environment, "PINCEX_ACCOUNT": account}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "import sys; from pincex_client.cli import main; sys.exit(main())", *arguments],
            env=environment,
            cwd=exchange_stack.home.parent,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    return run


def parsed(done: subprocess.CompletedProcess[str], status: int = 0) -> Any:
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def funded(pincex: Callable[..., subprocess.CompletedProcess[str]], account: str) -> str:
    """The account with 10 BTC and 1,000,000 USD."""
    parsed(pincex("credit", account, "BTC", "10", "--request-id", f"{account}-btc", "--json"))
    parsed(pincex("credit", account, "USD", "1000000", "--request-id", f"{account}-usd", "--json"))
    return account


@pytest.fixture
def market(pincex: Callable[..., subprocess.CompletedProcess[str]], account: str) -> str:
    """A market of its own, without price bands."""
    symbol = f"T{account[-8:].upper()}"
    rules = ("--tick", "0.01", "--lot", "0.00001", "--symbol", symbol)
    made = parsed(pincex("admin", "create-market", "BTC", "USD", *rules, "--json"))
    assert made["mode"] == "OPEN"
    return symbol


def test_a_day_in_the_life_of_an_order(
    pincex: Callable[..., subprocess.CompletedProcess[str]], funded: str, market: str
) -> None:
    placed = parsed(pincex("place", market.lower(), "buy", "0.5", "20000", "--client-order-id", "first", "--json"))
    assert (placed["symbol"], placed["status"], placed["price"]) == (market, "PENDING", "20000.00")
    again = parsed(pincex("place", market.lower(), "buy", "0.5", "20000", "--client-order-id", "first", "--json"))
    assert again["order_id"] == placed["order_id"], "a repeat gets the first answer"
    reduced = parsed(pincex("reduce", placed["order_id"], "--by", "0.2", "--json"))
    assert reduced["open_quantity"] == "0.30000"
    replaced = parsed(
        pincex("replace", "--client-order-id", "first", "--price", "19999", "--quantity", "0.4", "--json")
    )
    assert (replaced["price"], replaced["open_quantity"]) == ("19999.00", "0.40000")
    held = {each["asset"]: each["held"] for each in parsed(pincex("balances", "--json"))["balances"]}
    assert float(held["USD"]) >= 7_999.6
    listed = parsed(pincex("orders", "--json"))["orders"]
    assert [each["order_id"] for each in listed] == [placed["order_id"]]
    assert parsed(pincex("cancel", placed["order_id"], "--json"))["status"] == "CANCELLED"
    assert parsed(pincex("order", "--client-order-id", "first", "--json"))["cancel_reason"] == "REQUESTED"
    assert pincex("orders").stdout == "no open orders\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("place NOPE buy 1 1", "UNKNOWN_SYMBOL"),
        ("place BTCUSD buy 1 20000.001", "PRICE_OFF_TICK"),
        ("place BTCUSD buy 0.000001 20000", "QUANTITY_OFF_LOT"),
        ("place BTCUSD buy 1e0 20000", "INVALID_DECIMAL"),
        ("place BTCUSD buy 0 20000", "NOT_POSITIVE"),
        ("place BTC/USD buy 1 50000", "INSUFFICIENT_FUNDS"),
        ("cancel 999999999", "ORDER_NOT_FOUND"),
    ],
)
def test_bad_input_is_refused_with_its_reason(
    pincex: Callable[..., subprocess.CompletedProcess[str]], arguments: str, reason: str
) -> None:
    error = parsed(pincex(*arguments.split(), "--json"), status=1)["error"]
    assert error["reason"] == reason
    assert error["message"]
    assert error["request_id"]
    shown = pincex(*arguments.split())
    assert (shown.returncode, shown.stdout) == (1, "")
    assert reason in shown.stderr


def test_tables_are_for_people(pincex: Callable[..., subprocess.CompletedProcess[str]], funded: str) -> None:
    assert "1,000,000.00" in pincex("balances").stdout
    assert "BTCUSD" in pincex("markets").stdout
    assert "BTCUSD" in pincex("book", "BTCUSD").stdout
    assert pincex("trades").stdout == "no trades\n"


def test_operators_compare_and_switch(pincex: Callable[..., subprocess.CompletedProcess[str]], account: str) -> None:
    asset = f"Z{account[-6:].upper()}"
    parsed(pincex("admin", "create-asset", asset, "2", "--json"))
    market = parsed(pincex("admin", "create-market", asset, "USD", "--tick", "0.01", "--lot", "1", "--json"))
    symbol = market["symbol"]
    assert parsed(pincex("admin", "halt", symbol, "--reason", "test", "--json"))["mode"] == "HALTED"
    refused = parsed(pincex("place", symbol, "buy", "1", "1", "--json"), status=1)
    assert refused["error"]["reason"] == "MARKET_HALTED"
    assert parsed(pincex("admin", "cancel-only", symbol, "--json"))["mode"] == "CANCEL_ONLY"
    assert parsed(pincex("admin", "resume", symbol, "--json"))["mode"] == "OPEN"
    validated = parsed(pincex("admin", "validate", symbol, "--json"))
    assert validated["valid"]
    assert all(check["holds"] for check in validated["checks"])
    assert parsed(pincex("admin", "rebuild", symbol, "--json"))["identical"]
    assert parsed(pincex("admin", "state", "--json"))["role"] == "LEADER"
    assert parsed(pincex("admin", "switches", "--json"))["accept_new_orders"]
    assert parsed(pincex("admin", "queue-depth", "--json"))["queue_depth"] >= 0


def test_the_kill_switch_takes_an_accounts_orders(
    pincex: Callable[..., subprocess.CompletedProcess[str]], funded: str, market: str
) -> None:
    for price in ("20000", "20001"):
        parsed(pincex("place", market, "buy", "0.1", price, "--json"))
    cancelled = parsed(pincex("admin", "mass-cancel", "--account", funded, "--reason", "test", "--json"))
    assert cancelled["cancelled_count"] == 2


def test_limits_and_busy_accounts_are_told(
    pincex: Callable[..., subprocess.CompletedProcess[str]],
    exchange_stack: ExchangeStack,
    funded: str,
    market: str,
) -> None:
    for _ in range(2):
        parsed(pincex("place", market, "buy", "0.1", "20000", "--json"))
    limits = parsed(pincex("limits", "--json"))
    assert (limits["account"], limits["tier"], limits["orders_per_second"], limits["open_orders"]) == (
        funded, "development", 0, 2,
    )  # fmt: skip
    busy = parsed(pincex("admin", "busy-accounts", "--more-than", "1", "--json"))
    mine = {"account": funded, "order_count": 2, "cancel_count": 0, "fill_count": 0}
    assert mine in busy["accounts"]
    url = f"{exchange_stack.ops_url}/admin/accounts/high-frequency?window=300s&more_than=1&page_size=500"
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        by_rest = json.load(answer)
    assert {**mine, "order_count": "2", "cancel_count": "0", "fill_count": "0"} in by_rest["accounts"]
    assert by_rest["seen"].endswith("s")


def test_migrations_are_shown(pincex: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    rows = parsed(pincex("migrate", "info", "--json"))["migrations"]
    assert rows
    assert all(row["state"] == "applied" for row in rows)
    assert pincex("migrate", "run").stdout == "nothing to apply\n"

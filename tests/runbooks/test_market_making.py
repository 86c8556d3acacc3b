"""The runbooks' "Market Making Operations" as docs/RUNBOOKS.md prints it, on an exchange whose book the market maker keeps alive.

It starts an exchange of its own: the market maker is not part of the shared one, whose books belong to the tests.
"""

from __future__ import annotations

import json
import os
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.document_shell import DocumentShell
from tests.edge_http import call
from tests.stack_fixture import eventually, running_stack, stack_folder, temporary_home
from tests.unit.docs.examples import examples
from tests.unit.docs.tables import document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack_fixture import ExchangeStack

STEPS = {example.name: example for example in examples(document("docs/RUNBOOKS.md"))}
WITHOUT = "settlement,wallet,websocket"


@pytest.fixture(scope="module")
def stack() -> Iterator[ExchangeStack]:
    with temporary_home() as home, running_stack(stack_folder(home, PINCEX_WITHOUT=WITHOUT)) as found:
        yield found


def types(stack: ExchangeStack, step: str) -> str:
    """Run a step of the document; answers what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return DocumentShell(stack.folder, stack.home.parent, {"PATH": path}).type(STEPS[step])


def best(stack: ExchangeStack, symbol: str) -> tuple[Decimal, Decimal] | None:
    """Best bid and best ask, None while a side is empty."""
    book: dict[str, Any] = call(f"{stack.edge_url}/api/v1/orderbook/{symbol}").json()
    if not book["bids"] or not book["asks"]:
        return None
    return Decimal(book["bids"][0]["price"]), Decimal(book["asks"][0]["price"])


def spread(stack: ExchangeStack, symbol: str) -> Decimal:
    """From best bid to best ask, as a fraction of the middle; 0 while a side is empty."""
    found = best(stack, symbol)
    return 2 * (found[1] - found[0]) / (found[0] + found[1]) if found is not None else Decimal(0)


def test_market_making_is_turned_off_and_on_and_spreads_are_widened(stack: ExchangeStack) -> None:
    eventually(lambda: best(stack, "BTCUSD") is not None, "a fresh exchange has a living book")

    types(stack, "disable-market-making")
    assert (best(stack, "BTCUSD"), best(stack, "ETHUSD")) == (None, None), "it answers once no order is left"
    types(stack, "market-maker-status")
    types(stack, "enable-market-making")
    eventually(lambda: best(stack, "BTCUSD") is not None, "it quotes again")

    assert spread(stack, "BTCUSD") < Decimal("0.02")
    types(stack, "widen-spreads")
    widened = {symbol: spread(stack, symbol) for symbol in ("BTCUSD", "ETHUSD")}
    assert all(Decimal("0.019") < found < Decimal("0.051") for found in widened.values()), widened


def test_the_body_of_the_source_runbook_is_the_one_of_the_step() -> None:
    source = next(line for line in STEPS["widen-spreads"].script.splitlines() if '"BTCUSD"' in line)
    assert json.loads("{" + source.strip().rstrip(",") + "}") == {"BTCUSD": {"min_spread": 0.02, "max_spread": 0.05}}


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ('{"BTCUSD": {"min_spread": 0.05, "max_spread": 0.02}}', 400, "INVALID_FIELD"),
        ('{"BTCUSD": {"min_spread": -0.02, "max_spread": 0.05}}', 400, "INVALID_FIELD"),
        ('{"BTCUSD": {"min_spread": "narrow"}}', 400, "INVALID_DECIMAL"),
        ('{"DOGEUSD": {"min_spread": 0.02, "max_spread": 0.05}}', 404, "UNKNOWN_SYMBOL"),
        ("{}", 400, "FIELD_REQUIRED"),
        ("", 400, "FIELD_REQUIRED"),
        ("[]", 400, "MALFORMED_REQUEST"),
        ('{"BTCUSD": {"min_spread": 1e400}}', 400, "MALFORMED_REQUEST"),
        ('{"BTCUSD": ', 400, "MALFORMED_REQUEST"),
    ],
)
def test_bad_spreads_over_rest(stack: ExchangeStack, body: str, status: int, reason: str) -> None:
    answer = call(f"{stack.ops_url}/admin/spreads", "POST", body, {"content-type": "application/json"})
    assert (answer.status, answer.reason()) == (status, reason), answer.text


def test_the_command_line_shows_and_sets_it(stack: ExchangeStack) -> None:
    done = stack.folder.command("mm", "quoting", "btc-usd", "--levels", "3", "--level-quantity", "0.1", "--json")
    assert done.returncode == 0, done.stderr
    market = next(one for one in json.loads(done.stdout)["markets"] if one["symbol"] == "BTCUSD")
    assert (market["levels"], market["level_quantity"]) == (3, "0.1")
    done = stack.folder.command("mm", "spreads", "ETHUSD", "--min", "0.01", "--max", "0.03")
    assert re.search(r"ETHUSD .*0\.01-0\.03", done.stdout), done.stdout + done.stderr
    done = stack.folder.command("mm", "spreads", "ETHUSD", "--min", "0.5")
    assert (done.returncode, "is above max_spread" in done.stderr) == (1, True), done.stderr


def test_without_the_market_maker_trading_goes_on_and_no_quote_stays(stack: ExchangeStack) -> None:
    eventually(lambda: best(stack, "BTCUSD") is not None, "it quotes")
    stack.kill("market-maker-1")
    eventually(lambda: best(stack, "BTCUSD") is None, "its quotes went with it")
    order = {"symbol": "BTCUSD", "side": "BUY", "order_type": "LIMIT", "quantity": "0.01", "price": "40000"}
    answer = call(f"{stack.edge_url}/api/v1/orders", "POST", json.dumps(order))
    assert answer.json()["status"] == "PENDING", answer.text

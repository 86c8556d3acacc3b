"""The runbooks' "Market Data Operations" as docs/RUNBOOKS.md prints them, on the shared exchange and its simulated venue."""

from __future__ import annotations

import asyncio
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exchange.stack.postgresql.place import wheel_binaries
from pincex_client import ExchangeClient, NotFound
from tests.document_shell import DocumentShell
from tests.edge_http import call
from tests.stack_fixture import eventually
from tests.unit.docs.examples import examples
from tests.unit.docs.tables import document, table

if TYPE_CHECKING:
    from tests.stack_fixture import ExchangeStack

STEPS = {example.name: example for example in examples(document("docs/RUNBOOKS.md"))}


@pytest.fixture
def operator(exchange_stack: ExchangeStack) -> DocumentShell:
    path = os.pathsep.join([str(Path(sys.executable).parent), str(wheel_binaries()), os.environ["PATH"]])
    eventually(lambda: has_price(exchange_stack), "the simulated venue has a price")
    return DocumentShell(exchange_stack.folder, exchange_stack.home.parent, {"PATH": path})


def has_price(stack: ExchangeStack) -> bool:
    return call(f"{stack.edge_url}/api/v1/reference-prices/BTCUSD").status == 200


def reconnects(stack: ExchangeStack) -> int:
    (feed,) = call(f"{stack.ops_url}/admin/feeds/status").json()["feeds"]
    return int(feed.get("reconnects", 0))


def test_feeds_are_looked_at_and_restarted(exchange_stack: ExchangeStack, operator: DocumentShell) -> None:
    operator.type(STEPS["feed-status"])
    before = reconnects(exchange_stack)
    operator.type(STEPS["restart-feed"])
    assert reconnects(exchange_stack) > before
    missing = call(f"{exchange_stack.ops_url}/admin/feeds/binance/restart", "POST")
    assert (missing.status, "FEED_NOT_FOUND" in missing.text) == (404, True)


def test_valkey_is_asked(operator: DocumentShell) -> None:
    assert 0 <= int(operator.type(STEPS["queue-depth"])) < 100
    operator.type(STEPS["verify-redis"])


async def test_prices_are_compared_and_none_is_stale(exchange_stack: ExchangeStack, operator: DocumentShell) -> None:
    await asyncio.to_thread(operator.type, STEPS["compare-prices"])
    await asyncio.to_thread(operator.type, STEPS["stale-prices"])
    async with ExchangeClient(exchange_stack.edge_address, ops_target=exchange_stack.ops_address) as client:
        found = await client.admin.feeds.compare("btc/usd")
        reference = await client.admin.feeds.reference_price("BTC-USD")
    # And as everybody may ask.
    async with ExchangeClient(exchange_stack.edge_address) as client:
        public = await client.market_data.get_reference_price("BTCUSD")
        with pytest.raises(NotFound):
            await client.market_data.get_reference_price("NOPE")
    assert found.reference_price is not None
    assert abs(found.reference_price - 50_000) < 2_500
    assert reference.venue_count == 1
    assert abs(reference.price - found.reference_price) < Decimal(1_000)
    assert abs(public.price - found.reference_price) < Decimal(1_000)


def test_the_series_of_feeds_are_those_of_the_document(exchange_stack: ExchangeStack, operator: DocumentShell) -> None:
    del operator
    port = exchange_stack.instance("market-data-1")["ports"]["metrics"]
    text = call(f"http://127.0.0.1:{port}/metrics").text
    named = {row[0].strip("`") for row in table(document("docs/METRICS.md"), "feed metrics")[1:]}
    kinds = ("# TYPE pincex_feed_", "# TYPE pincex_reference_price_")
    found = {line.split()[2] for line in text.splitlines() if line.startswith(kinds)}
    assert found == named
    assert 'pincex_feed_live{feed="simulated"} 1.0' in text

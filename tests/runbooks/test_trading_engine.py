"""The runbooks' sequences, command by command as docs/RUNBOOKS.md prints them, on three engines under load."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from exchange.stack.postgresql.place import wheel_binaries
from exchange.trading import codec
from exchange.trading.core import commands as cmd
from exchange.trading.core.constants import SWITCH_ACCEPT_NEW_ORDERS
from exchange.trading.journal.postgres import PostgresJournal
from pincex_client import ExchangeClient, Rejected
from tests.document_shell import DocumentShell
from tests.edge_http import call
from tests.integration.journal.waiting import until
from tests.integration.recovery.edge import AtTheEdge
from tests.integration.recovery.load import SYMBOL, Load
from tests.stack_fixture import WITH_SETTLEMENT, ExchangeStack, running_stack, stack_folder, temporary_home
from tests.unit.docs.examples import examples
from tests.unit.docs.tables import document

ENGINES = 3
SEED = 404
STEPS = {example.name: example for example in examples(document("docs/RUNBOOKS.md"))}
FAR_BELOW = "30000"
"""A price at which nothing of the load trades; within the market's band."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stack() -> Iterator[ExchangeStack]:
    """An exchange with three engines; each test leaves it as it was."""
    with temporary_home() as home, running_stack(stack_folder(home, PINCEX_WITHOUT=WITH_SETTLEMENT)) as found:
        scaled = found.folder.command("scale", f"trading-engine={ENGINES}")
        assert scaled.returncode == 0, scaled.stderr
        yield found


class Operator:
    """Types the steps of the document, beside the data folder, with `pincex` and `pg_isready` at hand."""

    def __init__(self, stack: ExchangeStack) -> None:
        path = os.pathsep.join([str(Path(sys.executable).parent), str(wheel_binaries()), os.environ["PATH"]])
        self._shell = DocumentShell(stack.folder, stack.home.parent, {"PATH": path})

    async def types(self, *steps: str) -> str:
        """Run steps; answers what the last one printed."""
        printed = ""
        for step in steps:
            printed = await asyncio.to_thread(self._shell.type, STEPS[step])
        return printed


@pytest.fixture
def operator(stack: ExchangeStack) -> Operator:
    return Operator(stack)


@pytest.fixture
async def load(stack: ExchangeStack, request: pytest.FixtureRequest) -> AsyncIterator[Load]:
    """Orders all the while, from callers and a session who leave outages to the SDK: whatever it raises is a failure."""
    load = Load(AtTheEdge(stack), SEED, pause_s=0.1, patient=True, run=f"{request.node.name[:40]}-")
    await load.start()
    yield load
    await load.stop()
    assert load.failures == {}


@pytest.fixture
async def resting(stack: ExchangeStack) -> AsyncIterator[Any]:
    """A client with an open order, to be taken back whatever is switched off; and how to place another."""
    async with AtTheEdge(stack).client("demo") as client:
        yield client, (await client.place_order(SYMBOL, "BUY", "0.01", FAR_BELOW)).order_id


async def refusal(client: ExchangeClient) -> str:
    """The reason for which a new order is refused now."""
    with pytest.raises(Rejected) as refused:
        await client.place_order(SYMBOL, "BUY", "0.01", FAR_BELOW)
    return refused.value.reason


async def is_cancelled(client: ExchangeClient, order_id: str) -> bool:
    return (await client.cancel_order(order_id)).status == "CANCELLED"


async def takes_orders(stack: ExchangeStack) -> None:
    """A new order is taken again, and the books of all engines are equal."""
    exchange = AtTheEdge(stack)
    async with exchange.client("demo") as client:
        order = await client.place_order(SYMBOL, "BUY", "0.01", FAR_BELOW)
        assert await is_cancelled(client, order.order_id)
    await exchange.until_whole(ENGINES)
    await exchange.compared(ENGINES)


async def turns_of(stack: ExchangeStack) -> list[tuple[Any, ...]]:
    """Every switch that was turned, in order, as the journal has it: (switch, on)."""
    assert stack.database_url is not None
    journal = await PostgresJournal.open(stack.database_url)
    try:
        return [
            command[-2:]
            async for frame in journal.read(1)
            for command in codec.decode_commands(frame.commands)
            if command[cmd.C_KIND] == cmd.SET_SWITCH
        ]
    finally:
        await journal.close()


def test_every_step_of_the_document_is_typed_here() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in STEPS if f'"{name}"' not in source] == []


async def test_system_health(operator: Operator, load: Load) -> None:
    await until(lambda: load.answered_in_session > 0)
    await operator.types("health")


async def test_an_inconsistency_of_books_is_looked_for_on_every_instance(
    stack: ExchangeStack, operator: Operator
) -> None:
    await takes_orders(stack)
    shown = await operator.types("compare-books")
    for number in range(1, ENGINES + 1):
        # In the table, in the JSON, and at its own port.
        assert shown.count(f"trading-engine-{number}") == 3
    hashes = {line.rpartition("hash ")[2] for line in shown.splitlines() if ", hash " in line}
    assert len(hashes) == 1
    assert shown.count(hashes.pop()) == 2 * ENGINES, "each instance's own word, and the comparison's"
    await operator.types("rebuild-book")


async def test_shutdown_and_emergency_restart_lose_nothing(
    stack: ExchangeStack, operator: Operator, resting: Any
) -> None:
    exchange = AtTheEdge(stack)
    client, order_id = resting
    load = Load(exchange, SEED, pause_s=0.1, patient=True, run="shutdown-")
    await load.start()
    await until(lambda: load.answered_in_session > 20)
    turned = len(await turns_of(stack))

    await operator.types("stop-new-orders")
    assert await refusal(client) == "NEW_ORDERS_DISABLED"
    assert await is_cancelled(client, order_id)
    # The clients have heard it, and stop for the night.
    await load.stop()
    assert load.failures == {}
    assert await operator.types("wait-for-queue") == ""
    before = await exchange.compared(ENGINES)
    await operator.types("stop-engines")
    health = await asyncio.to_thread(call, f"{stack.edge_url}/api/v1/health")
    assert (health.status, health.reason()) == (503, "UPSTREAM_UNAVAILABLE")
    await operator.types("stop-the-rest")

    await operator.types("start-infrastructure")
    assert await refusal(client) == "NEW_ORDERS_DISABLED", "the file still says so"
    await operator.types("start-engines")
    after = await exchange.compared(ENGINES)
    proved = await asyncio.to_thread(
        stack.folder.command, "journal", "verify", "--to", str(before["sequence"]), "--json"
    )
    assert json.loads(proved.stdout)["state_hash"] == before["replicas"][0]["state_hash"]
    assert after["replicas"][0]["book_hash"] == before["replicas"][0]["book_hash"]
    await operator.types("accept-new-orders")
    await takes_orders(stack)

    # Whatever was asked is asked once more, and the answers are the first ones.
    await load.settle()
    # Three engines watch one folder, and one of them found the file at its start.
    assert (await turns_of(stack))[turned:] == [(SWITCH_ACCEPT_NEW_ORDERS, 0), (SWITCH_ACCEPT_NEW_ORDERS, 1)]


async def test_maintenance_refuses_orders_and_lets_clients_out(
    stack: ExchangeStack, operator: Operator, load: Load, resting: Any
) -> None:
    client, order_id = resting
    await until(lambda: load.answered_in_session > 0)
    await operator.types("maintenance-on")
    assert await refusal(client) == "MAINTENANCE"
    assert await is_cancelled(client, order_id)
    await operator.types("maintenance-off")
    await takes_orders(stack)


async def test_a_trading_halt_stops_intake_and_traps_nobody(
    stack: ExchangeStack, operator: Operator, load: Load, resting: Any
) -> None:
    client, order_id = resting
    await until(lambda: load.answered_in_session > 0)
    await operator.types("stop-intake")
    await until(lambda: _refused_for(client, "MAINTENANCE"))
    assert await is_cancelled(client, order_id)
    await operator.types("resume-intake")
    await takes_orders(stack)


async def test_the_runbooks_own_way_to_stop_intake_traps_everybody_and_says_so(
    stack: ExchangeStack, resting: Any
) -> None:
    client, order_id = resting
    stopped = await asyncio.to_thread(stack.folder.command, "scale", "trading-engine=0")
    assert stopped.returncode == 0
    assert "nobody can cancel either" in stopped.stderr
    assert "pincex admin cancel-only" in stopped.stderr
    trapped = await asyncio.to_thread(call, f"{stack.edge_url}/api/v1/orders/{order_id}", "DELETE")
    assert (trapped.status, trapped.reason()) == (503, "UPSTREAM_UNAVAILABLE")
    await AtTheEdge(stack).scale(ENGINES)
    assert await is_cancelled(client, order_id), "it is there still"
    await takes_orders(stack)


async def test_more_engines_and_the_circuit_breaker_relieve_a_degraded_exchange(
    stack: ExchangeStack, operator: Operator, load: Load, resting: Any
) -> None:
    client, order_id = resting
    await until(lambda: load.answered_in_session > 0)
    await operator.types("scale-up")
    await AtTheEdge(stack).compared(6)
    await operator.types("circuit-breaker-on")
    assert await refusal(client) == "CIRCUIT_BREAKER"
    assert await is_cancelled(client, order_id)
    await operator.types("circuit-breaker-off")
    await takes_orders(stack)


async def test_a_service_is_restarted_and_an_instance_killed_under_load(
    stack: ExchangeStack, operator: Operator, load: Load
) -> None:
    before = {engine["name"]: engine["pid"] for engine in await AtTheEdge(stack).engines()}
    await until(lambda: load.answered_in_session > 0)
    await operator.types("restart-service")
    after = {engine["name"]: engine["pid"] for engine in await AtTheEdge(stack).engines()}
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    await takes_orders(stack)


async def _refused_for(client: ExchangeClient, reason: str) -> bool:
    """Whether a new order is refused for this reason already: a file is read four times a second."""
    return await refusal(client) == reason

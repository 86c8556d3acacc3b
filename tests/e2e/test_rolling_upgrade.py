"""From one build to the next under load: no client sees an error, and newer rules hold once all instances know them.

The older build is this one with PINCEX_MAX_RULES=1, see `exchange.trading.rules`. It comes from `.env` beside the data
folder, so that `pincex restart` starts the newer one.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from exchange.trading.core.constants import RULES_VERSION
from tests.integration.journal.waiting import until
from tests.integration.recovery.edge import AtTheEdge
from tests.integration.recovery.load import Load
from tests.integration.recovery.proof import prove
from tests.stack_fixture import running_stack, stack_folder, temporary_home

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stack_fixture import ExchangeStack

ENGINES = 3
SEED = 20_251
LONGEST_WAIT_S = 3.0
OLDER = "PINCEX_MAX_RULES=1\n"


@pytest.fixture
def stack() -> Iterator[ExchangeStack]:
    """Three engines of the older build."""
    with temporary_home() as home:
        settings(home).write_text(OLDER)
        with running_stack(stack_folder(home)) as found:
            scaled = found.folder.command("scale", f"trading-engine={ENGINES}")
            assert scaled.returncode == 0, scaled.stderr
            yield found


def settings(home: Path) -> Path:
    return home.parent / ".env"


async def pincex(stack: ExchangeStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(stack.folder.command, *arguments)


async def supported(exchange: AtTheEdge, count: int) -> dict[str, int]:
    """The newest rules that each of `count` instances knows; all have the same state."""
    found = await exchange.compared(count)
    return {one["instance"]: one["supported_rules_version"] for one in found["replicas"]}


async def answers_go_on(load: Load) -> None:
    """Returns once callers of both kinds have been answered since."""
    unary, in_session = load.answered - load.answered_in_session, load.answered_in_session
    await until(
        lambda: load.answered - load.answered_in_session > unary + 20 and load.answered_in_session > in_session + 20
    )
    load.check()


async def shrink_and_trade(exchange: AtTheEdge, run: str) -> str:
    """Two orders at one price, the first replaced by less; answers which of them a sell then meets first."""
    async with exchange.client("demo") as demo, exchange.client("maker") as maker:
        first = await demo.place_order("ETHUSD", "BUY", "2", "2500", client_order_id=f"{run}-first")
        second = await demo.place_order("ETHUSD", "BUY", "2", "2500", client_order_id=f"{run}-second")
        await demo.replace_order(first.order_id, price="2500", quantity="1")
        await maker.place_order("ETHUSD", "SELL", "0.5", "2500", time_in_force="IOC")
        filled = {
            order.client_order_id: (await demo.get_order(order.order_id)).filled_quantity for order in (first, second)
        }
        await demo.cancel_all_orders("ETHUSD")
    return max(filled, key=lambda name: filled[name])


@pytest.mark.timeout(300)
async def test_an_upgrade_under_load_shows_no_error_and_then_activates_newer_rules(stack: ExchangeStack) -> None:
    exchange = AtTheEdge(stack)
    assert await supported(exchange, ENGINES) == {f"trading-engine-{number}": 1 for number in (1, 2, 3)}
    load = Load(exchange, SEED, pause_s=0.1, patient=True)
    await load.start()
    await answers_go_on(load)
    refused = await pincex(stack, "admin", "activate-rules", "2", "--reason", "too early")
    assert refused.returncode == 1
    assert "RULES_NOT_SUPPORTED" in refused.stderr

    # The next build.
    settings(stack.home).write_text("")
    began = time.monotonic()
    restarted = await pincex(stack, "restart", "trading-engine")
    assert restarted.returncode == 0, restarted.stdout + restarted.stderr
    assert len(restarted.stdout.splitlines()) == ENGINES
    assert "(leader)" in restarted.stdout.splitlines()[-1]
    await answers_go_on(load)
    assert load.longest_wait(began, time.monotonic()) < LONGEST_WAIT_S
    assert await supported(exchange, ENGINES) == {f"trading-engine-{number}": RULES_VERSION for number in (1, 2, 3)}

    # One of the older build is among them again.
    settings(stack.home).write_text(OLDER)
    assert (await pincex(stack, "scale", "trading-engine=4")).returncode == 0
    refused = await pincex(stack, "admin", "activate-rules", "2", "--json")
    assert refused.returncode == 1
    assert '"instance": "trading-engine-4"' in refused.stdout
    assert (await pincex(stack, "scale", f"trading-engine={ENGINES}")).returncode == 0

    assert await shrink_and_trade(exchange, "rules-1") == "rules-1-second", "rules 1: every REPLACE goes to the back"
    await until(lambda: activated(stack), 90.0)
    assert await shrink_and_trade(exchange, "rules-2") == "rules-2-first", (
        "rules 2: less at the same price keeps its place"
    )
    await answers_go_on(load)
    await exchange.compared(ENGINES)

    # It can follow no more, and says why.
    late = await pincex(stack, "scale", "trading-engine=4")
    assert late.returncode == 1
    assert "trading-engine-4 did not start (exit status 1)" in late.stderr
    assert "its rules are 2, this build knows 1 to 1" in stack.folder.log("trading-engine-4")
    await exchange.until_whole(ENGINES)

    await load.stop()
    assert load.failures == {}
    proved = await prove(exchange, load)
    assert proved.answers == len(load.asked) > 200
    assert proved.epochs == 2, "leadership was handed over once"
    await exchange.compared(ENGINES)


async def activated(stack: ExchangeStack) -> bool:
    """Whether `activate-rules` has gone through; the leader may still count the one that has just left."""
    done: Any = await pincex(stack, "admin", "activate-rules", "2", "--reason", "all are new")
    return bool(done.returncode == 0)

"""The whole exchange on a pair of databases: the primary dies under load, its successor too, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.edge_http import call
from tests.integration.journal.waiting import until
from tests.integration.recovery.edge import AtTheEdge
from tests.integration.recovery.load import Load
from tests.integration.recovery.proof import prove
from tests.stack_fixture import ExchangeStack, running_stack, stack_folder, temporary_home

if TYPE_CHECKING:
    from collections.abc import Iterator

RESUMED_S = 3.0
# Three looks that nobody answers, on a machine that is busy with other things.
HANG_NOTICED_S = 2.0
ANSWERS_BETWEEN = 100


@pytest.fixture
def stack() -> Iterator[ExchangeStack]:
    with temporary_home() as home, running_stack(stack_folder(home), "--standby") as found:
        yield found


def roles(stack: ExchangeStack) -> dict[str, str]:
    """The name of the instance in each role."""
    return {one["role"]: one["name"] for one in stack.status()["services"] if one["service"] == "postgres"}


async def promoted(stack: ExchangeStack, epoch: int) -> bool:
    database = (await asyncio.to_thread(stack.status))["database"]
    return bool(database["epoch"] == epoch)


async def healed(stack: ExchangeStack) -> bool:
    status = await asyncio.to_thread(stack.status)
    return not status["database"]["degraded"] and {one["state"] for one in status["services"]} == {"ready"}


def has_answered(load: Load, count: int) -> bool:
    load.check()
    return load.answered > count


def has_resumed(load: Load) -> bool:
    load.check()
    return load.resumed_at > 0.0


async def test_orders_go_on_after_each_death_of_the_primary_and_none_is_lost(stack: ExchangeStack, seed: int) -> None:
    engine = AtTheEdge(stack)
    load = Load(engine, seed, pause_s=0.004)
    await load.start()
    # Fail-over, fail-back, and a server that hangs.
    for epoch, signal_name in enumerate(("KILL", "KILL", "STOP"), start=2):
        await until(partial(has_answered, load, load.answered + ANSWERS_BETWEEN))
        struck = roles(stack)
        struck_at = time.monotonic()
        stack.kill(struck["primary"], signal_name)
        await until(partial(promoted, stack, epoch))
        # Answers from now on are the successor's.
        load.note_kill()
        await until(partial(has_resumed, load))
        seconds = load.resumed_at - struck_at
        print(f"SIG{signal_name} of {struck['primary']}: orders answered again after {seconds:.2f} s")
        assert seconds < RESUMED_S + (HANG_NOTICED_S if signal_name == "STOP" else 0.0)
        await until(partial(healed, stack))
        assert roles(stack) == {"primary": struck["standby"], "standby": struck["primary"]}
    await load.stop()

    proved = await prove(engine, load)
    print(proved)
    assert proved.answers > 3 * ANSWERS_BETWEEN
    validated = call(f"{stack.ops_url}/admin/orderbook/validate/BTCUSD")
    assert (validated.status, validated.json()["valid"]) == (200, True), validated
    assert stack.instance("trading-engine-1")["restarts"] == 0


def test_the_choice_is_kept_and_the_urls_lead_to_the_server_that_writes(stack: ExchangeStack) -> None:
    def writer(url: str | None) -> int:
        assert url is not None
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT inet_server_port(), pg_is_in_recovery()").fetchone()
        assert row is not None
        assert row[1] is False
        return int(row[0])

    port = stack.instance(roles(stack)["primary"])["ports"]["postgres"]
    assert writer(stack.database_url) == writer(stack.admin_database_url) == port
    assert stack.folder.command("scale", "postgres=1").returncode == 1
    restarted = stack.folder.command("restart", "postgres")
    assert (restarted.returncode, "looked after by its own controller" in restarted.stderr) == (1, True)
    shown = stack.folder.command("status").stdout
    assert "postgres-1 is the primary (epoch 1), its standby is in_sync" in shown

    assert stack.folder.command("down").returncode == 0
    # Without the option, and after a fail-over that no plain start would know of.
    with running_stack(stack.folder) as again:
        assert roles(again).keys() == {"primary", "standby"}
        assert again.database_url == stack.database_url
        assert not again.status()["database"]["degraded"]


@pytest.mark.parametrize("other", [("--memory",), ("DATABASE_URL",)])
def test_a_standby_needs_a_database_of_ours(other: tuple[str]) -> None:
    with temporary_home() as home:
        folder, option = stack_folder(home), other[0]
        if option == "DATABASE_URL":
            folder = folder.with_environment(DATABASE_URL="postgresql://u@127.0.0.1:1/d")
        refused = folder.command("up", "--standby", *([option] if option.startswith("--") else []))
    assert refused.returncode == 1
    assert "--standby is for a PostgreSQL of ours" in refused.stderr

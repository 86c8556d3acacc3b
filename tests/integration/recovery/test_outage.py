"""PostgreSQL goes away under load and comes back: the same engine goes on, nothing lost, nothing twice, no lie told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from pincex_client import ExchangeClient, ExchangeError
from tests.integration.journal.waiting import until
from tests.integration.recovery.engine_process import ONCE, EngineProcess, engine_on
from tests.integration.recovery.load import Load
from tests.integration.recovery.proof import prove
from tests.postgres_fixture import Database, PostgresServer, _children_of, running_postgres

OUTAGE_S = 3.0
AT_ONCE_S = 0.2


@pytest.fixture(scope="module")
def mortal_server() -> Iterator[PostgresServer]:
    """A server that no other suite uses."""
    with running_postgres(durable=False) as server:
        yield server


@pytest.fixture
def mortal_database(mortal_server: PostgresServer) -> Database:
    return mortal_server.create_database()


def signal_all(server: PostgresServer, number: int) -> None:
    """To the postmaster and every process of it."""
    assert server._process is not None
    for pid in [server._process.pid, *_children_of(server._process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill(server: PostgresServer) -> Callable[[], None]:
    server.kill()
    return server.start


def freeze(server: PostgresServer) -> Callable[[], None]:
    signal_all(server, signal.SIGSTOP)
    return lambda: signal_all(server, signal.SIGCONT)


async def refusal_of(exchange: ExchangeClient, name: str) -> ExchangeError | None:
    """Why an order was not taken, None if it was."""
    try:
        await exchange.place_order("BTCUSD", "BUY", "0.001", "45000", client_order_id=name)
    except ExchangeError as error:
        return error
    return None


async def refused_for_good(exchange: ExchangeClient, names: list[str]) -> list[ExchangeError]:
    """Place orders until one is refused at once; before that, some are of unknown outcome. All refusals."""
    errors = []
    async with asyncio.timeout(20.0):
        while True:
            names.append(f"probe-{len(names)}")
            asked_at = time.monotonic()
            error = await refusal_of(exchange, names[-1])
            if error is not None:
                errors.append(error)
                if time.monotonic() - asked_at < AT_ONCE_S:
                    return errors


async def reads_are_true(exchange: ExchangeClient, known: str, unknown: list[str]) -> None:
    """What is durable is shown as it was, or nothing is; what is not durable is shown to nobody."""
    reads = (
        exchange.get_order(client_order_id=known),
        exchange.get_order_book("BTCUSD"),
        exchange.list_orders("BTCUSD"),
        exchange.list_balances(),
        exchange.admin.engine_state(),
        *(exchange.get_order(client_order_id=name) for name in unknown),
    )
    for refusal in await asyncio.gather(*reads, return_exceptions=True):
        assert isinstance(refusal, ExchangeError), refusal
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "JOURNAL_UNAVAILABLE")


@pytest.mark.parametrize("away", [kill, freeze])
async def test_an_outage_under_load_is_ridden_out_by_the_same_process(
    mortal_server, mortal_database, free_port, seed, away
):
    async with engine_on(mortal_database, free_port) as engine:
        load = Load(engine, seed, pause_s=0.004)
        await load.start()
        await until(lambda: load.answered > 200)
        probe = engine.client(**ONCE)
        assert await refusal_of(probe, "known") is None
        pid = engine.process.pid
        back = await asyncio.to_thread(away, mortal_server)
        began = time.monotonic()
        names: list[str] = []
        try:
            for error in await refused_for_good(probe, names):
                assert error.reason == "JOURNAL_UNAVAILABLE"
                assert error.code == grpc.StatusCode.UNAVAILABLE
                assert error.retry_after is not None
            await reads_are_true(probe, "known", names)
            await until(lambda: time.monotonic() - began > OUTAGE_S)
        finally:
            load.note_kill()
            await asyncio.to_thread(back)
        back_at = time.monotonic()
        await until(lambda: load.resumed_at > 0.0, 20.0)
        print(
            f"{away.__name__}: away {back_at - began:.1f} s, answering {load.resumed_at - back_at:.2f} s after its return"
        )
        assert engine.ready()
        assert engine.process.pid == pid
        await load.stop()
        assert load.failures.get("JOURNAL_UNAVAILABLE", 0) > 0
        assert (await probe.get_order(client_order_id="known")).status == "PENDING"
        for name in names:
            first = await probe.place_order("BTCUSD", "BUY", "0.001", "45000", client_order_id=name)
            assert (await probe.get_order(client_order_id=name)).order_id == first.order_id
        await probe.close()
        proved = await prove(engine, load)
        assert proved.epochs == 1


async def test_a_stop_during_an_outage_ends_in_good_order(mortal_server, mortal_database, free_port):
    async with engine_on(mortal_database, free_port) as engine:
        async with engine.client(deadline=1.0) as exchange:
            back = await asyncio.to_thread(freeze, mortal_server)
            try:
                assert (error := await refusal_of(exchange, "in-doubt")) is not None
                assert error.transient
                assert await engine.terminate() == 0
            finally:
                back()
        assert "Traceback" not in engine.log
        await engine.start()
        async with engine.client() as exchange:
            assert await refusal_of(exchange, "in-doubt") is None


async def test_an_engine_that_starts_before_its_database_waits_for_it(mortal_server, mortal_database, free_port):
    async with engine_on(mortal_database, free_port) as engine:
        await engine.terminate()
        mortal_server.stop()
        engine.spawn()
        await until(lambda: "waiting for the journal's database" in engine.log)
        await asyncio.to_thread(mortal_server.start)
        await until(engine.ready)
        await serves(engine)


async def serves(engine: EngineProcess) -> None:
    async with engine.client() as exchange:
        assert await refusal_of(exchange, "served") is None

"""The life of an instance: it waits for its turn, leads, steps down, and stops; and what its process does around it."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from exchange.runtime import process
from exchange.runtime.config import Environment
from exchange.runtime.gc_schedule import GcSchedule
from exchange.trading import __main__ as main
from exchange.trading import snapshotter
from exchange.trading.__main__ import App
from exchange.trading.config import Config
from exchange.trading.core.engine import Engine
from exchange.trading.fleet_metrics import FleetMetrics
from exchange.trading.inspection import Inspector
from exchange.trading.journal.contract import JournalCorrupt, JournalUnavailable
from exchange.trading.journal.memory import MemoryJournal, MemoryLease, MemoryStore
from exchange.trading.journal.postgres import PostgresJournal
from exchange.trading.replication.parts import ReplicaTimes
from pincex.trading.v1 import admin_service_pb2, types_pb2
from tests.integration.trading.engine_app import (
    ENVIRONMENT,
    LIMIT,
    Exchange,
    eventually,
    refused,
    running_exchange,
)

# --- leading ---


async def test_an_instance_follows_until_its_turn_and_the_state_outlives_both(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    async with running_exchange(monkeypatch, store=store) as first:
        order = await first.demo.buy("1", "40000", client_order_id="mine")
        before = await first.state_hash()
        second = App(
            Config.read(Environment({**ENVIRONMENT, "PINCEX_INSTANCE": "second"})),
            MemoryJournal(store),
            MemoryLease(store),
        )
        running = asyncio.create_task(second.run())
        await eventually(lambda: second.status.port != 0, "the second listens")
        await eventually(second._serving.is_set, "the second follows")
        assert second.desk.sequencer is None
        assert await readiness(second) == (200, "ok\n")
        assert await readiness(first.app) == (200, "ok\n")
        first.stopped.set()
        await first.running
        # Both share the test's stop signal: it ends the second too.
        await running
    async with running_exchange(monkeypatch, store=store) as third:
        assert await third.state_hash() == before
        assert await third.demo.buy("1", "40000", client_order_id="mine") == order


async def readiness(app: App) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{app.status.port}/readyz") as answer,
    ):
        return answer.status, await answer.text()


async def test_a_store_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    acquire, failures = MemoryLease.acquire, [1, 2]

    async def failing(lease: MemoryLease, holder: str, address: str = "", *, deposing: int = 0) -> int | None:
        if failures:
            failures.pop()
            raise JournalUnavailable("no route to the store")
        return await acquire(lease, holder, address, deposing=deposing)

    monkeypatch.setattr(MemoryLease, "acquire", failing)
    async with running_exchange(monkeypatch) as exchange:
        assert failures == []
        assert (await exchange.demo.buy("1", "40000")).order_id


async def test_a_journal_that_goes_away_during_recovery_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    latest, failures = MemoryJournal.latest_snapshot, [1, 2]

    async def failing(journal: MemoryJournal, at: int | None = None) -> Any:
        if failures:
            failures.pop()
            raise JournalUnavailable("gone")
        return await latest(journal, at)

    monkeypatch.setattr(MemoryJournal, "latest_snapshot", failing)
    async with running_exchange(monkeypatch) as exchange:
        assert (await exchange.demo.buy("1", "40000")).order_id


async def test_an_instance_that_lost_its_lease_steps_down(monkeypatch: pytest.MonkeyPatch) -> None:
    renew, lost = MemoryLease.renew, asyncio.Event()
    answers: list[Any] = [JournalUnavailable("for a moment")]

    async def renewing(lease: MemoryLease) -> bool:
        if answers:
            raise answers.pop()
        return await renew(lease) and not lost.is_set()

    monkeypatch.setattr(MemoryLease, "renew", renewing)

    def often(app: App) -> None:
        app.times = ReplicaTimes(lease_renew_s=0.005)

    async with running_exchange(monkeypatch, prepare=often) as exchange:
        await eventually(lambda: not answers, "a store away for a moment changes nothing")
        before = exchange.sequencer
        order = await exchange.demo.buy("1", "40000")
        lost.set()
        await eventually(lambda: exchange.app.desk.sequencer is not before, "it steps down")
        lost.clear()
        await eventually(lambda: exchange.app.desk.sequencer is not None, "it leads again")
        assert (await exchange.demo.get(order.order_id)).status == types_pb2.PENDING


async def test_a_broken_invariant_stops_the_process_before_it_can_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong answer is worse than no answer."""

    class Broken:
        """A core whose books are wrong."""

        def __init__(self, engine: Engine) -> None:
            self.state, self.recall, self.due_ns = engine.state, engine.recall, engine.due_ns

        def apply(self, *_: object) -> None:
            raise AssertionError("the books are wrong")

    async def break_it() -> None:
        async with running_exchange(monkeypatch) as exchange:
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            exchange.sequencer.engine = Broken(exchange.engine)  # type: ignore[assignment]
            refusal = await refused(exchange.demo.buy("1", "40000"))
            assert refusal.code == "UNAVAILABLE"
            await eventually(exchange.running.done, "it stops")

    with pytest.raises(AssertionError, match="the books are wrong"):
        await break_it()


async def test_a_corrupt_journal_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    async with running_exchange(monkeypatch, store=store) as exchange:
        await exchange.demo.buy("1", "40000")
    frame = store.frames[-1]
    store.frames[-1] = dataclasses.replace(frame, commands=frame.commands + b"x")

    with pytest.raises(JournalCorrupt, match=f"sequence {frame.first_sequence}"):
        async with running_exchange(monkeypatch, store=store):
            pass


async def test_what_is_remembered_follows_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_exchange(monkeypatch, PINCEX_MAX_IDS="2000", PINCEX_MAX_FINISHED_ORDERS="1000") as exchange:
        state = exchange.engine.state
        assert (state.max_ids, state.max_finished_orders) == (2000, 1000)


# --- snapshots ---


async def test_snapshots_are_taken_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.trading.instance.SNAPSHOT_LOOK_S", 0.005)

    def often(app: App) -> None:
        app.instance._snapshot_every = 5

    async with running_exchange(monkeypatch, prepare=often) as exchange:
        for _ in range(6):
            last = await exchange.demo.buy("0.1", "40000")
        # The last few orders may not have made the next one due.
        await eventually(
            lambda: max(exchange.store.snapshots, default=0) > int(last.sequence) - 5, "a snapshot is stored"
        )
        await eventually(lambda: exchange.app.desk.snapshot_sequence > int(last.sequence) - 5, "it is known")
        newest = exchange.store.snapshots[max(exchange.store.snapshots)]
        assert len(newest.state_hash) == 64


async def test_a_snapshot_that_fails_is_counted_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.trading.instance.SNAPSHOT_LOOK_S", 0.005)
    attempts = 0

    async def failing() -> int:
        nonlocal attempts
        attempts += 1
        raise OSError("disk full")

    def prepare(app: App) -> None:
        app.instance._snapshot_every = 1
        app.instance._make_snapshot = failing

    async with running_exchange(monkeypatch, prepare=prepare) as exchange:
        await eventually(lambda: attempts == 1, "it is tried")
        await exchange.demo.buy("0.1", "40000")
        await eventually(lambda: attempts == 2, "it is tried again when as many commands have passed")
        request = admin_service_pb2.GetMetricsRequest()
        text = (await exchange.operator.ask(exchange.operator.admin.GetMetrics, request)).data.decode()
        (line,) = [line for line in text.splitlines() if line.startswith("snapshot_failures_total")]
        assert float(line.rsplit(" ", 1)[1]) >= 2
        assert (await exchange.demo.buy("0.1", "40000")).order_id


def with_database(exchange: Exchange, url: str) -> None:
    """As if the journal were in a database at this address."""
    config = Config.read(Environment({**ENVIRONMENT, "PINCEX_MEMORY": "0", "DATABASE_URL": url}))
    exchange.app.config = config


async def test_a_snapshot_is_made_by_a_process_of_its_own(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "python"
    script.write_text(
        '#!/bin/sh\n[ "$DATABASE_URL" = "postgresql://here" ] && [ "$2" = exchange.trading.snapshotter ] && echo 17\n'
    )
    script.chmod(0o755)
    with_database(exchange, "postgresql://here")
    monkeypatch.setattr(sys, "executable", str(script))
    assert await exchange.app._make_snapshot() == 17

    script.write_text("#!/bin/sh\necho no such database >&2\nexit 1\n")
    with pytest.raises(RuntimeError, match="no such database"):
        await exchange.app._make_snapshot()


async def test_the_snapshotter_stores_one_and_prints_its_sequence(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await exchange.demo.buy("0.1", "40000")
    journal = MemoryJournal(exchange.store)

    async def opened(_url: str) -> MemoryJournal:
        return journal

    monkeypatch.setattr(PostgresJournal, "open", opened)
    monkeypatch.setenv("DATABASE_URL", "postgresql://here")
    capsys.readouterr()
    await snapshotter.main()

    head = exchange.engine.state.sequence
    assert f"{head}\n" in capsys.readouterr().out
    assert list(exchange.store.snapshots) == [head]


async def test_nothing_is_stored_of_a_journal_without_a_frame() -> None:
    assert await Inspector(MemoryJournal(), 0).snapshot() == 0


# --- the process ---


async def test_the_journal_s_database_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "JOURNAL_RETRY_S", 0.001)
    journal, failures = MemoryJournal(), [1, 2]

    async def opening(url: str, *, shard: int) -> MemoryJournal:
        assert (url, shard) == ("postgresql://here", 0)
        if failures:
            failures.pop()
            raise JournalUnavailable("not up yet")
        return journal

    monkeypatch.setattr(PostgresJournal, "open", opening)
    variables = {**ENVIRONMENT, "PINCEX_MEMORY": "0", "DATABASE_URL": "postgresql://here"}
    found, lease = await main.open_journal(Config.read(Environment(variables)))

    assert found is journal
    await lease.close()


async def test_the_edge_s_metrics_are_shown_with_the_engine_s_where_there_is_an_edge() -> None:
    async def stats(request: web.Request) -> web.Response:
        return web.Response(text="")

    runner = web.AppRunner(web.Application())
    runner.app.router.add_get("/stats", stats)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    fleet = FleetMetrics("one", CollectorRegistry(), f"http://127.0.0.1:{port}/stats", list)
    with_edge = await fleet.text()
    await runner.cleanup()
    edge_gone = await fleet.text()

    assert with_edge.startswith(edge_gone)
    assert edge_gone == await FleetMetrics("one", CollectorRegistry(), "", list).text()


def test_the_process_serves_until_its_signal_and_leaves_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[App] = []
    init = App.__init__

    def noted(app: App, *arguments: Any) -> None:
        init(app, *arguments)
        started.append(app)

    def stop_signal() -> asyncio.Event:
        stopped = asyncio.Event()

        async def stop_when_leading() -> None:
            await eventually(lambda: started[0].desk.sequencer is not None, "it leads")
            stopped.set()

        started[0]._stopper = asyncio.create_task(stop_when_leading())  # type: ignore[attr-defined]
        return stopped

    monkeypatch.setattr(App, "__init__", noted)
    monkeypatch.setattr(process, "stop_signal", stop_signal)
    monkeypatch.setattr(GcSchedule, "start", lambda _schedule: None)
    monkeypatch.setattr(main, "configure_logging", lambda **_: None)
    for name, value in {**ENVIRONMENT, "PINCEX_DEBUG_PORT": "0", "PINCEX_PROFILE": "production"}.items():
        monkeypatch.setenv(name, value)

    assert main.run() == 0
    assert started[0].desk.sequencer is None


def test_a_wrong_environment_is_said_and_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DATABASE_URL", "PINCEX_MEMORY"):
        monkeypatch.delenv(name, raising=False)

    assert main.run() == 2
    assert "DATABASE_URL" in capsys.readouterr().err


def test_a_journal_that_must_not_be_served_is_1(monkeypatch: pytest.MonkeyPatch) -> None:
    async def corrupt(_config: Config) -> None:
        raise JournalCorrupt(0, 5, "a torn frame")

    monkeypatch.setattr(main, "main", corrupt)
    monkeypatch.setattr(main, "configure_logging", lambda **_: None)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    assert main.run() == 1


async def test_another_profile_lets_nobody_in_and_starts_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(
        Config.read(Environment({**ENVIRONMENT, "PINCEX_PROFILE": "production"})),
        MemoryJournal(store := MemoryStore()),
        MemoryLease(store),
    )
    stopped = asyncio.Event()
    monkeypatch.setattr(process, "stop_signal", lambda: stopped)
    monkeypatch.setattr(GcSchedule, "start", lambda _schedule: None)
    running = asyncio.create_task(app.run())
    await eventually(lambda: app.desk.sequencer is not None, "it leads")
    async with main_channel(app) as exchange:
        refusal = await refused(exchange.demo.place(1, "1", "1", order_type=LIMIT))
        assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    assert app.desk.state.assets == []
    stopped.set()
    await running


class main_channel:  # noqa: N801 - reads as the context manager that it is
    """Clients of an App that a test started itself."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{app.public.port}")

    async def __aenter__(self) -> Exchange:
        done: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(0))
        return Exchange(self._app, MemoryStore(), self._channel, self._channel, done, asyncio.Event())

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)


def test_the_engine_of_a_snapshot_is_another_object() -> None:
    """A restored core shares nothing with the one that was dumped."""
    one = Engine()
    two = Engine.restore(one.snapshot())

    assert one.state_hash() == two.state_hash()
    assert one.state is not two.state

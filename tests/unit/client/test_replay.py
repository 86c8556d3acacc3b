"""The replay against a small exchange that matches by price and time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pincex_client import ExchangeClient
from pincex_client.feeds import OrderEventStream
from pincex_client.models import Fill
from pincex_client.replay.fills import FillLog
from pincex_client.replay.flow import FlowError, FlowFill, read_book, read_commands, read_fills
from pincex_client.replay.plan import Plan, choose_symbol, make_plan, prepare, symbol_of_file, with_suffix
from pincex_client.replay.run import Flow, Replay, Report, RunOptions, percentiles
from tests.unit.client.conftest import QUICK
from tests.unit.client.fake_exchange import FakeExchange
from tests.unit.client.fake_server import FakeServer
from tests.unit.client.recorded import FlowFiles, write_flow

OPTIONS = RunOptions(window=200, batch_size=50, patience=10.0)


@pytest.fixture
def files(tmp_path: Path, seed: int) -> FlowFiles:
    return write_flow(tmp_path, 600, seed)


@pytest.fixture
def flow(files: FlowFiles) -> Flow:
    return Flow(read_commands(files.commands), read_fills(files.fills), read_book(files.book))


@pytest.fixture
def plan(flow: Flow) -> Plan:
    return make_plan(list(flow.commands), symbol="AAPLX", run_id="run1")


@pytest.fixture
async def trader(server: FakeServer, plan: Plan) -> AsyncIterator[ExchangeClient]:
    async with ExchangeClient(server.target, ops_target=server.target, account=plan.account, policy=QUICK) as made:
        yield made


async def run(trader: ExchangeClient, plan: Plan, flow: Flow, options: RunOptions = OPTIONS) -> Report:
    return await Replay(trader, plan, flow, options).run()


async def test_every_fill_and_the_final_book_are_equal(
    trader: ExchangeClient, plan: Plan, flow: Flow, files: FlowFiles
) -> None:
    told: list[int] = []
    report = await Replay(trader, plan, flow, OPTIONS).run(told.append)
    assert report.differences == []
    assert (report.commands, report.fills, report.fills_compared) == (620, files.fill_count, files.fill_count)
    assert report.levels_compared > 10
    assert sum(told) == 620
    assert report.latency_ms["p50"] <= report.latency_ms["p99"] <= report.latency_ms["max"]
    assert report.commands_per_second > 0


async def test_a_market_of_its_own_with_tick_and_lot_from_the_data_is_made_and_the_account_funded(
    trader: ExchangeClient, plan: Plan, exchange: FakeExchange
) -> None:
    market = await prepare(trader, plan)
    assert (market.tick_size, market.lot_size) == (Decimal("0.01"), Decimal(1))
    assert (plan.base_asset, plan.quote_asset) == ("RPLB0", "RPLQ2")
    before = dict(exchange.balances)
    assert before[plan.account, "RPLQ2"] == plan.quote_funds > 0
    await prepare(trader, plan)
    assert exchange.balances == before, "funded once, however often it is prepared"


async def test_a_changed_fill_a_changed_book_and_a_refused_command_are_reported(
    trader: ExchangeClient, plan: Plan, flow: Flow, exchange: FakeExchange
) -> None:
    assert flow.fills is not None
    assert flow.book is not None
    fills = [replace(flow.fills[0], quantity=flow.fills[0].quantity + 1), *flow.fills[1:]]
    book = replace(flow.book, totals=flow.book.totals | {"order_count": Decimal(1)})
    report = await run(trader, plan, replace(flow, fills=fills, book=book))
    assert [difference.what for difference in report.differences] == ["fill", "book"]
    assert not report.equal


async def test_a_refused_command_is_a_difference(
    trader: ExchangeClient, plan: Plan, flow: Flow, exchange: FakeExchange
) -> None:
    exchange.results_override = ["INSUFFICIENT_FUNDS"]
    seeds_only = replace(flow, commands=flow.commands[:10], fills=[], book=None)
    report = await run(trader, plan, seeds_only)
    assert [str(difference) for difference in report.differences] == [
        "command at command 1: expected accepted, got refused, INSUFFICIENT_FUNDS: as the test says"
    ]
    assert report.refused == 1


async def test_a_kill_in_the_middle_changes_nothing(
    trader: ExchangeClient, plan: Plan, flow: Flow, exchange: FakeExchange, server: FakeServer
) -> None:
    killed = asyncio.Event()
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if done >= 250:
            killed.set()

    async def kill() -> None:
        await killed.wait()
        await server.kill()
        await server.start()

    killer = asyncio.create_task(kill())
    report = await Replay(trader, plan, flow, OPTIONS).run(advance)
    await killer
    assert report.differences == []
    assert report.reconnects >= 1
    assert len(exchange.executed) == len(set(exchange.executed)) == 620, "nothing ran twice"


async def test_lost_answers_and_a_forgotten_session_change_nothing(
    trader: ExchangeClient, plan: Plan, flow: Flow, exchange: FakeExchange
) -> None:
    exchange.drop_before_results = 3

    def forget(_: int) -> None:
        if len(exchange.executed) > 300 and exchange.sessions:
            exchange.sessions.clear()
            exchange.drop_before_results = 1

    report = await Replay(trader, plan, flow, replace(OPTIONS, window=50)).run(forget)
    assert report.differences == []
    assert report.sessions_lost >= 1
    assert len(exchange.executed) == 620


async def test_events_that_leave_out_a_trade_are_a_difference_though_the_list_has_it(
    trader: ExchangeClient, plan: Plan, flow: Flow, exchange: FakeExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pincex_client.replay.run.EVENTS_PATIENCE", 0.2)
    told = exchange.accounts[plan.account].tell

    def forgetful(sequence: int, **event: Any) -> None:
        if "fill" in event and not exchange.left_out:
            exchange.left_out = True
            return
        told(sequence, **event)

    monkeypatch.setattr(exchange.accounts[plan.account], "tell", forgetful)
    report = await run(trader, plan, flow)
    assert [str(difference) for difference in report.differences] == [
        "events at the end: expected every listed trade, got 1 sides of trades not told"
    ]


async def test_events_that_come_slowly_are_waited_for(
    trader: ExchangeClient, plan: Plan, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pincex_client.replay.run.EVENTS_PATIENCE", 0.2)
    at_once = OrderEventStream._read

    async def slowly(self: OrderEventStream, call: Any, request_id: str) -> Any:
        message = await at_once(self, call, request_id)
        await asyncio.sleep(0.002)
        return message

    monkeypatch.setattr(OrderEventStream, "_read", slowly)
    assert (await run(trader, plan, flow)).differences == []


async def test_a_run_that_was_cut_off_is_continued_by_its_id(
    trader: ExchangeClient, plan: Plan, flow: Flow, exchange: FakeExchange, server: FakeServer
) -> None:
    half = replace(flow, commands=flow.commands[:300], fills=None, book=None)
    await run(trader, plan, half)
    report = await run(trader, plan, flow, replace(OPTIONS, resumed=True))
    assert report.differences == []
    assert len(exchange.executed) == 620


async def test_a_rate_paces_the_commands(trader: ExchangeClient, plan: Plan, flow: Flow) -> None:
    few = replace(flow, commands=flow.commands[:20], fills=[], book=None)
    report = await run(trader, plan, few, replace(OPTIONS, rate=100.0))
    assert report.elapsed >= 0.19, "twenty commands at 100 a second"
    assert report.equal


async def test_a_symbol_that_is_taken_gets_a_suffix(trader: ExchangeClient) -> None:
    assert await choose_symbol(trader, "AAPLX", "run1", resumed=False) == "AAPLX"
    assert await choose_symbol(trader, "BTCUSD", "run1", resumed=False) == "BTCUSDRUN1"
    assert await choose_symbol(trader, "AAPLX", "run1", resumed=True) == "AAPLXRUN1"


async def test_a_market_with_other_rules_is_not_used(
    trader: ExchangeClient, plan: Plan, exchange: FakeExchange
) -> None:
    exchange.add_market(plan.symbol, tick_size="5")
    with pytest.raises(FlowError, match="other rules"):
        await prepare(trader, plan)


def test_symbols_come_from_file_names_and_stay_short() -> None:
    assert symbol_of_file("es-part-a.commands.csv") == "ESPARTA"
    assert symbol_of_file("1.csv") == "FLOW1"
    assert len(with_suffix("ABCDEFGHIJKLMNOPQRST", "abcdefghijklm")) == 20


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"run_id": "no spaces"}, "run id"), ({"tick": Decimal("1E-9"), "lot": Decimal("1E-9")}, "decimals")],
)
def test_a_plan_that_no_market_could_hold_is_refused(flow: Flow, changes: dict[str, object], says: str) -> None:
    fields = {"symbol": "X", "run_id": "r"} | changes
    with pytest.raises(FlowError, match=says):
        make_plan(list(flow.commands), **fields)  # type: ignore[arg-type]


def fill(trade_id: str, client_order_id: str, *, is_maker: bool) -> Fill:
    sequence = int(trade_id.split("-", maxsplit=1)[0])
    return Fill(
        trade_id,
        "7",
        client_order_id,
        "a",
        "X",
        "BUY",
        Decimal(1),
        Decimal(2),
        Decimal(2),
        Decimal(0),
        is_maker,
        None,
        sequence,
    )


def test_sides_are_paired_by_trade_in_order_of_execution() -> None:
    log = FillLog()
    log.add_all(
        [
            fill("10-0", "r-2", is_maker=False),
            fill("9-1", "r-1", is_maker=True),
            fill("9-1", "r-3", is_maker=False),
            fill("9-1", "r-3", is_maker=False),
        ]
    )
    assert log.fills("r-", {9: 1, 10: 2}) == [
        FlowFill(1, "3", "1", Decimal(1), Decimal(2)),
        FlowFill(2, "2", "?", Decimal(1), Decimal(2)),
    ]
    assert log.fills("r-", {})[0].seq == -1


def test_percentiles_are_in_milliseconds() -> None:
    assert percentiles([]) == {}
    found = percentiles([number / 1_000 for number in range(1, 101)])
    assert found == {"p50": 51.0, "p95": 96.0, "p99": 100.0, "max": 100.0}

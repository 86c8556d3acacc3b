"""What the books cost: settlement far behind and at the engine's heels, the wallet's and the ledger's calls.

Beside a yardstick of the same run (a bare COPY of the same rows, an empty call the same way), and beside the baseline of this
machine. Everything shares the machine's cores, the clients too.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
import pytest
import uvloop

from pincex.kyc.v1 import kyc_service_pb2 as kyc_pb
from pincex.kyc.v1 import kyc_service_pb2_grpc
from pincex.settlement.v1 import settlement_service_pb2 as settlement_pb
from pincex.settlement.v1 import settlement_service_pb2_grpc, statement_service_pb2, statement_service_pb2_grpc
from pincex.wallet.v1 import wallet_service_pb2 as wallet_pb
from pincex.wallet.v1 import wallet_service_pb2_grpc
from tests.bench.baseline import Baseline
from tests.bench.engine_process import EngineProcess, ServiceProcess, cpu_seconds, running_engine, running_service
from tests.bench.loads import Orders, Outcome, prepare, session, session_batches, without_pauses_of_its_own
from tests.bench.test_recovery import fill
from tests.bench.workload import trades_only
from tests.postgres_fixture import running_postgres
from tests.stack_fixture import ExchangeStack, running_stack, stack_folder, temporary_home

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from exchange.trading.core.commands import Command
    from tests.bench.report import Report
    from tests.postgres_fixture import Database

pytestmark = pytest.mark.bench

FULL = 300_000
COMMANDS = int(os.environ.get("COMMANDS") or FULL)
"""A smaller number is for trying the benchmark itself: it makes no baseline."""
KEEP = COMMANDS == FULL
SHARE = COMMANDS / FULL
SECONDS = max(1.0, 6.0 * SHARE)
PER_SECOND = 2_000
BATCH = 100
WITHDRAWALS = max(8, int(200 * SHARE))
IN_FLIGHT = 8
DEADLINE_S = 600.0


def running_settlement(engine: EngineProcess, database: Database) -> AbstractContextManager[ServiceProcess]:
    """Settlement on the engine's database."""
    return running_service("settlement", engine, PINCEX_SETTLEMENT_DATABASE_URL=database.settlement_url)


def offset(database: Database) -> tuple[int, int, int]:
    """Sequence, trades, postings that are settled."""
    with psycopg.connect(database.admin_url) as connection:
        row = connection.execute("SELECT sequence, trade_count, posting_id FROM settlement_offset").fetchone()
    return (0, 0, 0) if row is None else (row[0], row[1], row[2])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it does not come to its end"
        time.sleep(0.01)


def bare_copy(database: Database) -> float:
    """Seconds of a COPY of all lines of the ledger into a table like it: what PostgreSQL alone takes for the largest part."""
    with psycopg.connect(database.admin_url) as connection:
        lines = io.BytesIO()
        with connection.cursor().copy("COPY ledger_lines TO STDOUT (FORMAT binary)") as reading:
            for block in reading:
                lines.write(block)
        connection.execute("CREATE TABLE bench_lines (LIKE ledger_lines INCLUDING CONSTRAINTS INCLUDING INDEXES)")
        started = time.perf_counter()
        with connection.cursor().copy("COPY bench_lines FROM STDIN (FORMAT binary)") as writing:
            writing.write(lines.getvalue())
        connection.commit()
        return time.perf_counter() - started


MIXES: dict[str, Callable[[int], list[Command] | None]] = {
    "full mix": lambda _: None,
    "only trades": trades_only,
}


@pytest.mark.parametrize("mix", MIXES)
def test_settlement_far_behind_catches_up(report: Report, mix: str) -> None:
    title, baseline = f"Settlement of {COMMANDS:,} commands from zero (target: 15,000 trades/s)", Baseline()
    with running_postgres() as server:
        database = server.create_database()
        asyncio.run(fill(database.trading_url, COMMANDS, MIXES[mix](COMMANDS)))
        with running_engine(database) as engine, running_settlement(engine, database) as settling:
            wait_for(lambda: offset(database)[0] > 0)
            before, began, used = offset(database), time.perf_counter(), cpu_seconds(settling.pid)
            wait_for(lambda: offset(database)[0] >= COMMANDS)
            seconds, after = time.perf_counter() - began, offset(database)
            micros = (cpu_seconds(settling.pid) - used) / (after[0] - before[0]) * 1e6
        commands, trades, lines = (new - old for new, old in zip(after, before, strict=True))
        bare = after[2] / bare_copy(database)
    key = f"settlement_{mix.replace(' ', '_')}_trades_per_s"
    remark = baseline.compare(key, trades / seconds, keep=KEEP)
    report.add(title, f"{mix}: trades/s", f"{trades / seconds:,.0f}", remark)
    shape = f"{micros:.0f} us CPU of settlement each; {commands / trades:.1f} commands and {lines / trades:.1f} postings a trade"
    report.add(title, f"{mix}: commands/s", f"{commands / seconds:,.0f}", shape)
    ratio = lines / seconds / bare
    report.add(
        title, f"{mix}: postings/s", f"{lines / seconds:,.0f}", f"a bare COPY of them {bare:,.0f}/s: ratio {ratio:.2f}"
    )
    report.keep(
        key, {"trades_per_s": round(trades / seconds), "postings_per_s": round(lines / seconds), "ratio": ratio}
    )


def test_settlement_at_the_engines_heels(report: Report) -> None:
    title, baseline = f"Settlement while {PER_SECOND:,} orders a second come", Baseline()
    lags: list[float] = []

    async def watch(settling: ServiceProcess) -> None:
        while True:
            await asyncio.sleep(0.05)
            lags.append(await asyncio.to_thread(lag, settling))

    async def load(engine: EngineProcess, settling: ServiceProcess) -> Outcome:
        await prepare(engine.ops_target)
        watching = asyncio.create_task(watch(settling))
        batches = session_batches(Orders("lag"), count=int(PER_SECOND * SECONDS) // BATCH, size=BATCH)
        try:
            async with grpc.aio.insecure_channel(engine.target) as channel:
                return await session(channel, "lag", batches=batches, outstanding=8, per_second=PER_SECOND)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    with (
        running_postgres() as server,
        running_engine(database := server.create_database()) as engine,
        running_settlement(engine, database) as settling,
    ):
        wait_for(lambda: offset(database)[0] > 0)
        with without_pauses_of_its_own(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcome = runner.run(load(engine, settling))
        ended = time.perf_counter()
        # Whatever is not settled now is what it is behind.
        wait_for(lambda: lag(settling) == 0.0)
        rest_ms = (time.perf_counter() - ended) * 1000
    ordered = sorted(lags)
    median, most = ordered[len(ordered) // 2] * 1000, ordered[-1] * 1000
    report.add(
        title, "lag, median", f"{median:.0f} ms", f"most {most:.0f} ms; {len(lags)} looks; 0: nothing is waiting"
    )
    remark = baseline.compare("settlement_lag_most_ms", max(most, 1.0), keep=KEEP)
    report.add(title, "lag, most", f"{most:.0f} ms", remark)
    report.add(title, "all settled after the last order", f"{rest_ms:.0f} ms", f"{outcome.count:,} orders")
    report.keep("settlement_lag", {"median_ms": median, "most_ms": most, "rest_ms": rest_ms})


def test_orders_while_settlement_catches_up(report: Report) -> None:
    title, behind = f"Order sessions at {PER_SECOND:,}/s while settlement catches up", COMMANDS // 3

    def load(runner: asyncio.Runner, engine: EngineProcess, name: str, count: int, per_second: float) -> Outcome:
        async def run() -> Outcome:
            batches = session_batches(Orders(name), count=count // BATCH, size=BATCH)
            async with grpc.aio.insecure_channel(engine.target) as channel:
                return await session(channel, name, batches=batches, outstanding=8, per_second=per_second)

        return runner.run(run())

    paced = int(PER_SECOND * SECONDS)
    with (
        running_postgres() as server,
        running_engine(database := server.create_database()) as engine,
        without_pauses_of_its_own(),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(prepare(engine.ops_target))
        load(runner, engine, "before", behind, 0.0)
        alone = load(runner, engine, "alone", paced, PER_SECOND)
        with running_settlement(engine, database):
            wait_for(lambda: offset(database)[0] > 0)
            began = time.perf_counter()
            beside = load(runner, engine, "beside", paced, PER_SECOND)
            wait_for(lambda: offset(database)[0] >= behind + 2 * paced)
            seconds = time.perf_counter() - began
    for name, outcome in (("settlement is not running", alone), (f"it has {behind:,} orders to catch up with", beside)):
        report.add(
            title, name, f"p99 {outcome.percentile(0.99):.1f} ms", f"p50 {outcome.percentile(0.5):.1f} ms a batch"
        )
    report.add(title, "caught up after", f"{seconds:.1f} s", "everything on the same cores")
    report.keep("settlement_beside_orders", {"alone": alone.summary(), "beside": beside.summary(), "seconds": seconds})


def lag(settling: ServiceProcess) -> float:
    """The gauge of the age of what is not settled, in seconds."""
    return settling.metric("pincex_settlement_lag_seconds")


async def calls(call: Callable[[int], Awaitable[Any]], *, seconds: float = 0.0, count: int = 0) -> Outcome:
    """IN_FLIGHT at a time, for so long or so many; `call` gets a number of its own."""
    outcome, began, number = Outcome(), time.perf_counter(), iter(range(10**9))

    def goes_on(one: int) -> bool:
        return one < count if count else time.perf_counter() - began < seconds

    async def worker() -> None:
        while goes_on(one := next(number)):
            started = time.perf_counter()
            await call(one)
            outcome.latencies_ms.append((time.perf_counter() - started) * 1000)
            outcome.count += 1

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    outcome.seconds = time.perf_counter() - began
    return outcome


def test_calls_of_wallet_and_ledger_through_the_edge(report: Report) -> None:
    title, baseline = f"Wallet and ledger through the edge, {IN_FLIGHT} calls in flight", Baseline()
    limits = {"PINCEX_KYC_TIER2_DAILY": "BTC=1000,USD=100000000", "PINCEX_WITHDRAWAL_APPROVAL": "BTC=1,USD=1000"}
    with (
        temporary_home() as home,
        running_stack(stack_folder(home, PINCEX_WITHOUT="market-maker,market-data", **limits)) as exchange,
    ):
        found = asyncio.run(measured(exchange))
    base = found.pop("an empty call")
    report.add(
        title, "an empty call (ListKycTiers): calls/s", f"{base.rate:,.0f}", f"p50 {base.percentile(0.5):.2f} ms"
    )
    for name, outcome in found.items():
        remark = baseline.compare(f"{name} per_s", outcome.rate, keep=KEEP)
        spread = f"p50 {outcome.percentile(0.5):.2f} ms, p99 {outcome.percentile(0.99):.2f} ms"
        report.add(
            title,
            f"{name}: calls/s",
            f"{outcome.rate:,.0f}",
            f"{outcome.rate / base.rate:.2f} of the empty; {spread}; {remark}",
        )
    report.keep("wallet_and_ledger", {name: outcome.summary() for name, outcome in found.items()})


async def measured(exchange: ExchangeStack) -> dict[str, Outcome]:
    """Each path for SECONDS, but withdrawals, which are so many."""
    mine = (("x-pincex-account", "demo"),)
    seconds = SECONDS / 2
    async with (
        grpc.aio.insecure_channel(exchange.edge_address) as public,
        grpc.aio.insecure_channel(exchange.ops_address) as ops,
    ):
        wallet: Any = wallet_service_pb2_grpc.WalletServiceStub(public)
        kyc: Any = kyc_service_pb2_grpc.KycServiceStub(public)
        statements: Any = statement_service_pb2_grpc.StatementServiceStub(public)
        ledger: Any = settlement_service_pb2_grpc.SettlementServiceStub(ops)
        address = "sim1btc" + "ab" * 12
        listed = wallet_pb.AddWithdrawalAddressRequest(asset="BTC", address=address, label="bench")
        await wallet.AddWithdrawalAddress(listed, metadata=mine)

        def transfer(number: int) -> Any:
            request = wallet_pb.CreateTransferRequest(
                to_account="bench", asset="USD", amount="0.01", request_id=f"t{number}"
            )
            return wallet.CreateTransfer(request, metadata=mine)

        def withdrawal(number: int) -> Any:
            request = wallet_pb.CreateWithdrawalRequest(
                asset="BTC", amount="0.001", address=address, request_id=f"w{number}"
            )
            return wallet.CreateWithdrawal(request, metadata=mine)

        account = settlement_pb.GetLedgerAccountRequest(account="demo")
        postings = settlement_pb.ListPostingsRequest(account="demo", page_size=100)
        statement = statement_service_pb2.GetStatementRequest(asset="USD", page_size=100)
        empty = kyc_pb.ListKycTiersRequest()
        return {
            "an empty call": await calls(lambda _: kyc.ListKycTiers(empty), seconds=seconds),
            "a transfer between accounts": await calls(transfer, seconds=seconds),
            "a withdrawal taken in": await calls(withdrawal, count=WITHDRAWALS),
            "balances of a ledger account": await calls(lambda _: ledger.GetLedgerAccount(account), seconds=seconds),
            "100 postings": await calls(lambda _: ledger.ListPostings(postings), seconds=seconds),
            "100 lines of a statement": await calls(
                lambda _: statements.GetStatement(statement, metadata=mine), seconds=seconds
            ),
        }

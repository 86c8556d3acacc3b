"""Settlement inside the test's own event loop, beside an engine in memory, on a PostgreSQL of its own."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import psycopg

from exchange.runtime import process
from exchange.runtime.config import Environment
from exchange.settlement.__main__ import App
from exchange.settlement.config import Config
from pincex.settlement.v1 import settlement_service_pb2_grpc, statement_service_pb2_grpc
from tests.integration.trading.engine_app import BUY, DEADLINE_S, ENVIRONMENT, SELL, Exchange, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from tests.postgres_fixture import Database

TABLES = {
    "ledger_lines": "posting_id",
    "ledger_balances": "account_id, asset, kind_id",
    "ledger_accounts": "account_id",
    "trades": "id",
    "orders": "id",
    "markets": "symbol",
    "assets": "code",
}


@dataclass
class Settlement:
    """A running instance with its listeners."""

    app: App
    database: Database
    public: grpc.aio.Channel
    ops: grpc.aio.Channel
    ledger: Any = field(init=False)

    def __post_init__(self) -> None:
        channel: Any = self.ops
        self.ledger = settlement_service_pb2_grpc.SettlementServiceStub(channel)

    async def ask(self, method: str, request: Any, who: str = "ops-local") -> Any:
        """A call of SettlementService."""
        return await getattr(self.ledger, method)(request, metadata=(("x-pincex-account", who),), timeout=DEADLINE_S)

    async def statement(self, method: str, request: Any, account: str) -> Any:
        """A call of StatementService as this account."""
        channel: Any = self.public
        stub: Any = statement_service_pb2_grpc.StatementServiceStub(channel)
        return await getattr(stub, method)(request, metadata=(("x-pincex-account", account),), timeout=DEADLINE_S)

    async def export(self, request: Any, account: str) -> list[Any]:
        """All parts of a statement as a file."""
        channel: Any = self.public
        stub: Any = statement_service_pb2_grpc.StatementServiceStub(channel)
        metadata = (("x-pincex-account", account),)
        return [part async for part in stub.ExportStatement(request, metadata=metadata, timeout=DEADLINE_S)]

    async def settled(self, exchange: Exchange) -> int:
        """Wait until all that the engine has done stands in the ledger."""
        sequence = exchange.engine.state.sequence
        await eventually(lambda: self.app.settler.offset.sequence >= sequence, f"{sequence} is settled")
        return sequence


def rows(database: Database, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What the database says, or does, asked by the owner of its tables."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        cursor = connection.execute(query, values)
        return cursor.fetchall() if cursor.description is not None else []


def as_superuser(database: Database, query: str, *values: object) -> None:
    """What the owner of the tables may not do."""
    with psycopg.connect(database.server.url(database.name, "postgres"), autocommit=True) as connection:
        connection.execute(query, values)


def tables(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """All that a replay must give again."""
    return {name: rows(database, f"SELECT * FROM {name} ORDER BY {order}") for name, order in TABLES.items()}


def assert_whole(database: Database) -> None:
    """Offset and rows agree: nothing is missing, doubled, or out of balance."""
    (offset,) = rows(database, "SELECT sequence, posting_id, trade_count FROM settlement_offset")
    (lines,) = rows(database, "SELECT max(transaction_id), coalesce(max(posting_id), 0), count(*) FROM ledger_lines")
    (trades,) = rows(database, "SELECT count(*) FROM trades")
    assert (lines[1], lines[2], trades[0]) == (offset[1], offset[1], offset[2]), "numbered without a gap"
    assert (lines[0] or 0) <= offset[0]
    unequal = "GROUP BY transaction_id, asset HAVING sum(amount) <> 0"
    assert rows(database, f"SELECT transaction_id FROM ledger_lines {unequal}") == []
    summed = """
        SELECT account_id, asset, kind_id, sum(CASE WHEN kind_id IN (4, 5) THEN -amount ELSE amount END)
        FROM ledger_lines GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    """
    stands = "SELECT account_id, asset, kind_id, amount FROM ledger_balances ORDER BY 1, 2, 3"
    assert rows(database, summed) == rows(database, stands)


def environment(exchange: Exchange, database: Database, logs: str, **variables: str) -> dict[str, str]:
    """What a process of settlement beside this engine is started with."""
    return {
        "PINCEX_PROFILE": ENVIRONMENT["PINCEX_PROFILE"],
        "JWT_SECRET": ENVIRONMENT["JWT_SECRET"],
        "PINCEX_INSTANCE": "settlement-under-test",
        "PINCEX_SETTLEMENT_DATABASE_URL": database.settlement_url,
        "PINCEX_INTERNAL_TARGET": f"127.0.0.1:{exchange.app.ops.port}",
        "PINCEX_DRAIN_SECONDS": "0.5",
        "PINCEX_RECONCILE_SECONDS": "600",
        "PINCEX_LOG_DIR": logs,
        **variables,
    }


@asynccontextmanager
async def running_settlement(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database, **variables: str
) -> AsyncIterator[Settlement]:
    """An instance, until the end of the block."""
    stopped = asyncio.Event()
    monkeypatch.setattr(process, "stop_signal", lambda: stopped)
    logs = tempfile.mkdtemp(prefix="pincex-test-logs-")
    app = App(Config.read(Environment(environment(exchange, database, logs, **variables))))
    running = asyncio.create_task(app.run())
    try:
        await eventually(lambda: running.done() or app.ops.port != 0, "settlement listens")
        if running.done():
            await running
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{app.public.port}") as public,
            grpc.aio.insecure_channel(f"127.0.0.1:{app.ops.port}") as ops,
        ):
            yield Settlement(app, database, public, ops)
    finally:
        stopped.set()
        try:
            await asyncio.wait_for(running, DEADLINE_S)
        finally:
            shutil.rmtree(logs)


async def trade_some(exchange: Exchange, rounds: int = 5) -> None:
    """Orders that rest, trade in part and whole, and are cancelled."""
    for number in range(rounds):
        price = str(50_000 + number)
        resting = await exchange.maker.sell("0.3", price)
        await exchange.demo.buy("0.1", price)
        await exchange.demo.place(BUY, "0.2", price)
        open_order = await exchange.demo.buy("0.5", "40000")
        if number % 2:
            await exchange.demo.cancel(open_order.order_id)
        await exchange.maker.place(SELL, "0.05", "60000")
        assert resting.order_id

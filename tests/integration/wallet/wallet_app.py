"""The wallet inside the test's own event loop, beside an engine in memory, on a PostgreSQL of its own. There is no settlement."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from exchange.runtime import process
from exchange.runtime.config import Environment
from exchange.wallet.__main__ import App
from exchange.wallet.config import Config
from pincex.wallet.v1 import wallet_admin_service_pb2_grpc, wallet_service_pb2_grpc
from tests.integration.trading.engine_app import DEADLINE_S, ENVIRONMENT, Exchange, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from tests.postgres_fixture import Database


@dataclass
class Wallet:
    """A running instance with its listeners."""

    app: App
    public: grpc.aio.Channel
    ops: grpc.aio.Channel
    clients: Any = field(init=False)
    operators: Any = field(init=False)

    def __post_init__(self) -> None:
        public: Any = self.public
        ops: Any = self.ops
        self.clients = wallet_service_pb2_grpc.WalletServiceStub(public)
        self.operators = wallet_admin_service_pb2_grpc.WalletAdminServiceStub(ops)

    async def ask(self, method: str, request: Any, account: str = "demo") -> Any:
        """A call of WalletService as this account."""
        call = getattr(self.clients, method)
        return await call(request, metadata=(("x-pincex-account", account),), timeout=DEADLINE_S)

    async def operate(self, method: str, request: Any) -> Any:
        """A call of WalletAdminService."""
        return await getattr(self.operators, method)(request, timeout=DEADLINE_S)


def environment(target: str, database: Database, logs: str, **variables: str) -> dict[str, str]:
    """What a process of the wallet is started with."""
    return {
        "PINCEX_PROFILE": ENVIRONMENT["PINCEX_PROFILE"],
        "JWT_SECRET": ENVIRONMENT["JWT_SECRET"],
        "PINCEX_KYC_SECRET": "of thirty-two characters at least, for tests",
        "PINCEX_INSTANCE": "wallet-under-test",
        "PINCEX_WALLET_DATABASE_URL": database.wallet_url,
        "PINCEX_INTERNAL_TARGET": target,
        "PINCEX_DRAIN_SECONDS": "0.5",
        "PINCEX_SIMULATED_BLOCK_SECONDS": "0.05",
        "PINCEX_LOG_DIR": logs,
        **variables,
    }


@asynccontextmanager
async def running_wallet(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database, **variables: str
) -> AsyncIterator[Wallet]:
    """An instance, until the end of the block."""
    stopped = asyncio.Event()
    monkeypatch.setattr(process, "stop_signal", lambda: stopped)
    logs = tempfile.mkdtemp(prefix="pincex-test-logs-")
    target = f"127.0.0.1:{exchange.app.ops.port}"
    app = App(Config.read(Environment(environment(target, database, logs, **variables))))
    running = asyncio.create_task(app.run())
    try:
        await eventually(lambda: running.done() or app.ops.port != 0, "the wallet listens")
        if running.done():
            await running
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{app.public.port}") as public,
            grpc.aio.insecure_channel(f"127.0.0.1:{app.ops.port}") as ops,
        ):
            yield Wallet(app, public, ops)
    finally:
        stopped.set()
        try:
            await asyncio.wait_for(running, DEADLINE_S)
        finally:
            shutil.rmtree(logs)

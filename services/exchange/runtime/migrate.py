"""Database migrations of all services: `python -m exchange.runtime.migrate run|info`.

Each service keeps its SQL in a `migrations` folder beside its code; yoyo orders and records them. Two
of yoyo's habits would hurt a system that is killed at any moment, so they are replaced here: a
migration and its mark commit in one transaction, and the lock is PostgreSQL's own, which dies with
its holder.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import yoyo  # type: ignore[import-untyped] # so are the others of it
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend  # type: ignore[import-untyped]
from yoyo.connections import DatabaseURI  # type: ignore[import-untyped]
from yoyo.exceptions import BadMigration, MigrationConflict  # type: ignore[import-untyped]
from yoyo.migrations import (  # type: ignore[import-untyped]
    Migration,
    default_migration_table,
    topological_sort,
)

import exchange

SERVICES_ROOT = Path(exchange.__file__).resolve().parent
MIGRATIONS_FOLDER = "migrations"
CONNECT_TIMEOUT_S = 5
# A second runner waits this long for the first; a migration that takes longer deserves a person.
LOCK_TIMEOUT_MS = 60_000
# Any constant does, as long as it stays the same for all versions of this runner.
ADVISORY_LOCK_KEY = 0x50_49_4E_43_45_58


class MigrationError(Exception):
    """The migrations cannot be collected or applied; the message says which one and why."""


@dataclass(frozen=True, slots=True)
class MigrationRow:
    """One migration as `info` shows it; `applied_at` is None while it is pending."""

    service: str
    migration: str
    applied_at: datetime | None

    @property
    def state(self) -> str:
        """`applied` or `pending`."""
        return "pending" if self.applied_at is None else "applied"


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc] # yoyo ships no types
    """yoyo's PostgreSQL backend on any libpq DSN, with atomic migrations."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        nowhere = DatabaseURI("postgresql+psycopg", None, None, None, None, None, {})
        super().__init__(nowhere, default_migration_table)

    def connect(self, dburi: DatabaseURI) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect by the DSN as libpq reads it: yoyo's own URL has no room for several hosts."""
        del dburi
        self.schema = None
        return psycopg.connect(
            self._dsn,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="pincex-migrate",
            target_session_attrs="read-write",
        )

    def apply_one(self, migration: Migration, force: bool = False, mark: bool = True) -> None:  # noqa: FBT001, FBT002 - yoyo's signature
        """Apply a migration and record it in one transaction, so that a kill leaves both or neither."""
        self.ensure_internal_schema_updated()
        migration.load()
        if not migration.use_transactions:
            super().apply_one(migration, force=force, mark=mark)
            return
        with self.transaction():
            migration.process_steps(self, "apply", force=force)
            self.log_migration(migration, "apply")
            if mark:
                self.mark_one(migration, log=False)


def migration_folders(root: Path = SERVICES_ROOT) -> list[Path]:
    """Return every `migrations` folder below the services that holds SQL, sorted."""
    return sorted(folder for folder in root.rglob(MIGRATIONS_FOLDER) if any(folder.glob("*.sql")))


def run(url: str, *, root: Path = SERVICES_ROOT) -> list[MigrationRow]:
    """Apply what is pending and return those rows; an empty list means that nothing was.

    Safe to call from several processes at once. Raises MigrationError; what was applied before the
    failing migration stays applied.
    """
    with _locked_backend(url) as backend:
        applied = []
        for migration in backend.to_apply(_collect(root)):
            try:
                backend.apply_one(migration)
            except psycopg.Error as error:
                raise MigrationError(f"{migration.id}: {error}") from error
            applied.append(MigrationRow(_service_of(migration), migration.id, datetime.now(UTC)))
        return applied


def info(url: str, *, root: Path = SERVICES_ROOT) -> list[MigrationRow]:
    """Return all known migrations in the order of application; also makes yoyo's own tables."""
    with _locked_backend(url) as backend:
        migrations = _collect(root)
        backend.ensure_internal_schema_updated()
        cursor = backend.execute(f"SELECT migration_id, applied_at_utc FROM {backend.migration_table_quoted}")  # noqa: S608 - yoyo's constant
        applied_at = {name: at.replace(tzinfo=UTC) for name, at in cursor.fetchall()}
        return [MigrationRow(_service_of(each), each.id, applied_at.get(each.id)) for each in migrations]


def database_url(given: str | None) -> str:
    """Return the URL to migrate: the given one, else PINCEX_ADMIN_DATABASE_URL, else DATABASE_URL."""
    url = given or os.environ.get("PINCEX_ADMIN_DATABASE_URL") or os.environ.get("DATABASE_URL")
    if not url:
        raise MigrationError("no database: give --database-url, or set PINCEX_ADMIN_DATABASE_URL or DATABASE_URL")
    return url


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m exchange.runtime.migrate", description=__doc__)
    parser.add_argument("action", choices=("run", "info"))
    parser.add_argument("--database-url", help="default: PINCEX_ADMIN_DATABASE_URL, then DATABASE_URL")
    options = parser.parse_args(arguments)
    try:
        url = database_url(options.database_url)
        rows = run(url) if options.action == "run" else info(url)
    except MigrationError as error:
        sys.stderr.write(f"migrate: {error}\n")
        return 1
    for row in rows:
        at = "" if row.applied_at is None else row.applied_at.isoformat(timespec="seconds")
        sys.stdout.write(f"{row.state:8} {row.service:20} {row.migration:32} {at}".rstrip() + "\n")
    if options.action == "run":
        sys.stdout.write(f"{len(rows)} applied\n" if rows else "nothing to apply\n")
    return 0


@contextmanager
def _locked_backend(url: str) -> Iterator[Any]:
    """Connect, take the lock of all runners, and close; MigrationError if either fails."""
    try:
        backend = _Backend(url)
    except psycopg.Error as error:
        raise MigrationError(f"no connection: {error}") from error
    with backend:
        try:
            backend.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
            backend.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK_KEY})")
            backend.execute("SET lock_timeout = 0")
            backend.init_database()
            # We hold the real lock, so a row in yoyo's lock table belongs to a runner that was killed.
            backend.break_lock()
        except psycopg.Error as error:
            raise MigrationError(f"cannot prepare the database: {error}") from error
        yield backend


def _collect(root: Path) -> Any:
    """Return yoyo's list of all migrations, sorted so that each comes after what it depends on."""
    folders = migration_folders(root)
    try:
        migrations = yoyo.read_migrations(*(str(folder) for folder in folders))
        for migration in migrations:
            migration.load()
    except MigrationConflict as error:
        raise MigrationError(f"two files have the same name: {error}; prefix them with the service") from error
    except BadMigration as error:
        raise MigrationError(str(error)) from error
    return type(migrations)(topological_sort(migrations), migrations.post_apply)


def _service_of(migration: Migration) -> str:
    """Return the path of the code that owns the migration, such as `trading.journal`."""
    folder = Path(migration.path).resolve().parent.parent
    if not folder.is_relative_to(SERVICES_ROOT):
        return folder.name
    return ".".join(folder.relative_to(SERVICES_ROOT).parts)


if __name__ == "__main__":
    sys.exit(main())

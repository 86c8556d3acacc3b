"""A backup of the database that can be proved: a dump, and beside it what it must hold once it is restored.

Both are of one snapshot: PostgreSQL exports it, `pg_dump` dumps it, and rows are counted and hashed in it. To verify, the
dump is restored into a database that is made for it and dropped afterwards, and counted and hashed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from exchange.stack.errors import StackError
from exchange.stack.files import write_private
from exchange.stack.postgresql.place import wheel_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT = 1
CONNECT_TIMEOUT_S = 10
_CHUNK_BYTES = 1 << 20

# Rows are hashed as text, which these decide.
_SETTINGS: tuple[LiteralString, ...] = (
    "SET TIME ZONE 'UTC'",
    "SET DateStyle = 'ISO, YMD'",
    "SET IntervalStyle = 'postgres'",
    "SET bytea_output = 'hex'",
    "SET extra_float_digits = 1",
    "SET search_path = pg_catalog",
)
# Partitions are counted, what they are partitions of has no rows of its own. Of extensions nothing is dumped.
_TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
ORDER BY 1, 2
"""
# The sum does not depend on the order of rows; two hashes of 64 bits of each row.
_CONTENT: LiteralString = """
SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text || ':'
    || coalesce(sum(hashtextextended(t::text, 1)::numeric), 0)::text FROM {} t
"""


@dataclass(frozen=True, slots=True)
class Content:
    """Of a table: how many rows, and a hash of all of them."""

    rows: int
    digest: str


def backup(url: str, file: Path) -> Mapping[str, Content]:
    """Writes the dump and what it holds, `file` and `file`.json; an earlier one is replaced only once both are whole.

    `url` is of the tables' owner. Raises StackError.
    """
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with connected(url) as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            row = connection.execute("SELECT pg_export_snapshot()").fetchone()
            assert row is not None
            # Made before it is written: nobody else may read what is in it.
            unfinished.touch(mode=0o600)
            run_program("pg_dump", url, "--format=custom", f"--snapshot={row[0]}", f"--file={unfinished}")
            found = _contents(connection)
        _write_manifest(file, unfinished, found)
        unfinished.replace(file)
    except OSError as error:
        raise StackError(f"the backup could not be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return found


def verify(url: str, file: Path) -> list[str]:
    """Restores a backup into a database of its own on the server of `url`, compares, and drops it.

    Returns what differs, nothing if all is as it was. Raises StackError where it could not be tried at all.
    """
    manifest = read_manifest(file)
    if digest_of(file) != manifest["sha256"]:
        return [f"{file} is not what was written"]
    expected = {name: Content(int(rows), str(digest)) for name, (rows, digest) in manifest["tables"].items()}
    name = f"pincex_verify_{secrets.token_hex(6)}"
    with connected(url) as connection:
        make_from(connection, url, file, name)
        try:
            with connected(make_conninfo(url, dbname=name)) as restored:
                found = _contents(restored)
        finally:
            drop(connection, name)
    return _differences(expected, found)


def make_from(connection: psycopg.Connection[Any], url: str, file: Path, name: str) -> None:
    """Makes a database of this name from a dump, whole or not at all. Raises StackError."""
    connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    try:
        run_program("pg_restore", make_conninfo(url, dbname=name), "--exit-on-error", str(file))
    except BaseException:
        drop(connection, name)
        raise


def drop(connection: psycopg.Connection[Any], name: str) -> None:
    """Drops it, whoever is connected to it."""
    connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _differences(expected: Mapping[str, Content], found: Mapping[str, Content]) -> list[str]:
    differences = [f"{name} is missing" for name in expected.keys() - found.keys()]
    differences += [f"{name} was not in the database" for name in found.keys() - expected.keys()]
    for name in expected.keys() & found.keys():
        was, now = expected[name], found[name]
        if was.rows != now.rows:
            differences.append(f"{name} has {now.rows} rows instead of {was.rows}")
        elif was.digest != now.digest:
            differences.append(f"{name} has other rows")
    return sorted(differences)


def _contents(connection: psycopg.Connection[Any]) -> dict[str, Content]:
    for setting in _SETTINGS:
        connection.execute(setting)
    found = {}
    for schema, table in connection.execute(_TABLES).fetchall():
        row = connection.execute(sql.SQL(_CONTENT).format(sql.Identifier(schema, table))).fetchone()
        assert row is not None
        found[f"{schema}.{table}"] = Content(row[0], row[1])
    return found


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A session whose statements commit one by one. Raises StackError for any error of the database in it."""
    try:
        with psycopg.connect(
            url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name="pincex-backup"
        ) as connection:
            yield connection
    except psycopg.Error as error:
        raise StackError(f"the database: {error}") from error


def run_program(program: str, url: str, *arguments: str) -> None:
    """A program of PostgreSQL's; the password is in its environment, which others cannot read. Raises StackError."""
    parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    password = parts.pop("password", "")
    database = make_conninfo("", **parts)
    command = [str(wheel_binaries() / program), "--no-password", f"--dbname={database}", *arguments]
    environment = {"PATH": os.environ.get("PATH", ""), "PGPASSWORD": password}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"{program} failed: {done.stderr.strip() or f'exit status {done.returncode}'}")


def _manifest_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _write_manifest(file: Path, dump: Path, found: Mapping[str, Content]) -> None:
    manifest = {
        "format": FORMAT,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "sha256": digest_of(dump),
        "tables": {name: [content.rows, content.digest] for name, content in found.items()},
    }
    write_private(_manifest_of(file), json.dumps(manifest, indent=1) + "\n")


def read_manifest(file: Path) -> dict[str, Any]:
    """What a backup must hold: `sha256` of the dump, `tables`. Raises StackError."""
    place = _manifest_of(file)
    try:
        found = json.loads(place.read_text())
        if found["format"] != FORMAT:
            raise StackError(f"{place} is of another format: {found['format']!r}")
        return {"sha256": str(found["sha256"]), "tables": dict(found["tables"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StackError(f"{place}, written beside the dump, cannot be read: {error}") from error


def digest_of(file: Path) -> str:
    """SHA-256 of a file. Raises StackError."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as content:
            while chunk := content.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise StackError(f"{file} cannot be read: {error}") from error
    return digest.hexdigest()

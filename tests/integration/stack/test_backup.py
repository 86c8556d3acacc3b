"""Backups are proved: what is restored is what was there, or it is said what differs."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import psycopg
import pytest

from exchange.stack.errors import StackError
from exchange.stack.postgresql.backup import Content, backup, verify

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres_fixture import Database


@pytest.fixture
def url(database: Database) -> str:
    """A migrated database with rows of each kind that may differ as text, as its superuser: `admin` is one in a stack."""
    found = database.server.url(database.name, "postgres")
    with psycopg.connect(found) as connection:
        connection.execute(
            "CREATE TABLE things (id integer PRIMARY KEY, at timestamptz, raw bytea, share double precision, note text)"
        )
        connection.execute(
            "INSERT INTO things SELECT n, to_timestamp(n), sha256(n::text::bytea), n / 3.0, 'no. ' || n"
            " FROM generate_series(1, 1000) n"
        )
        connection.execute("INSERT INTO assets VALUES ('USD', 2)")
    return found


@pytest.fixture
def file(url: str, tmp_path: Path) -> Path:
    """A backup of it."""
    file = tmp_path / "exchange.dump"
    backup(url, file)
    return file


def databases(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}


def test_a_backup_restores_to_what_was_there_and_leaves_no_database_behind(url: str, tmp_path: Path) -> None:
    before = databases(url)
    file = tmp_path / "exchange.dump"

    found = backup(url, file)

    assert found["public.things"].rows == 1000
    assert verify(url, file) == []
    assert databases(url) == before
    assert {one.name: one.stat().st_mode & 0o777 for one in tmp_path.iterdir()} == {
        "exchange.dump": 0o600,
        "exchange.dump.json": 0o600,
    }


def test_what_changes_after_the_backup_does_not_matter(url: str, file: Path) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM things WHERE id > 10")

    assert verify(url, file) == []


@pytest.mark.parametrize(
    ("table", "content", "said"),
    [
        ("public.things", Content(1001, "x"), "public.things has 1000 rows instead of 1001"),
        ("public.things", Content(1000, "1:2"), "public.things has other rows"),
        ("public.lost", Content(3, "1:2"), "public.lost is missing"),
    ],
)
def test_a_difference_is_named(url: str, file: Path, table: str, content: Content, said: str) -> None:
    place = file.with_name(f"{file.name}.json")
    manifest = json.loads(place.read_text())
    manifest["tables"][table] = [content.rows, content.digest]
    place.write_text(json.dumps(manifest))

    assert verify(url, file) == [said]


def test_one_changed_value_is_found(url: str, file: Path, tmp_path: Path) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE things SET raw = raw || '\\x00' WHERE id = 500")
    later = tmp_path / "later.dump"
    backup(url, later)
    shutil.copy(file, later)
    place = later.with_name("later.dump.json")
    first = json.loads(file.with_name(f"{file.name}.json").read_text())
    place.write_text(json.dumps({**json.loads(place.read_text()), "sha256": first["sha256"]}))

    assert verify(url, later) == ["public.things has other rows"]


def test_a_dump_that_was_cut_off_is_not_even_restored(url: str, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])

    assert verify(url, file) == [f"{file} is not what was written"]


def test_what_cannot_be_tried_is_said(url: str, file: Path, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"other\.dump\.json, written beside the dump, cannot be read"):
        verify(url, tmp_path / "other.dump")
    with pytest.raises(StackError, match="the database: "):
        backup("postgresql://postgres@127.0.0.1:1/x", tmp_path / "other.dump")
    with pytest.raises(StackError, match="the backup could not be written"):
        backup(url, tmp_path / "no" / "such" / "folder.dump")
    assert {one.name for one in tmp_path.iterdir()} == {file.name, f"{file.name}.json"}

"""Migrations against a real PostgreSQL: complete, repeatable, atomic, safe to run twice at once."""

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from exchange.runtime import migrate
from tests.postgres_fixture import PostgresServer

JOURNAL = "journal-0001-frames"


@pytest.fixture
def empty(postgres_server: PostgresServer) -> Iterator[str]:
    """The admin URL of a database without any table."""
    with psycopg.connect(postgres_server.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty OWNER admin")
    yield postgres_server.url("empty", "admin")
    postgres_server.drop_database("empty")


@pytest.fixture
def services(tmp_path: Path) -> Path:
    """Two made-up services, the second of which builds on the first."""
    write(tmp_path, "alpha", "alpha-0001", "CREATE TABLE alpha (n integer);\nINSERT INTO alpha VALUES (1);")
    write(tmp_path, "beta", "beta-0001", "-- depends: alpha-0001\nINSERT INTO alpha VALUES (2);")
    return tmp_path


def write(root: Path, service: str, name: str, sql: str) -> None:
    folder = root / service / "migrations"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.sql").write_text(sql)


def values(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        return [n for (n,) in connection.execute("SELECT n FROM alpha ORDER BY n")]


def test_run_applies_everything_once_and_info_tells(empty: str) -> None:
    before = migrate.info(empty)
    assert ("trading.journal", JOURNAL, "pending") in [(row.service, row.migration, row.state) for row in before]
    assert {row.service for row in before} >= {"auth", "admin", "trading.journal"}
    applied = migrate.run(empty)
    assert [row.migration for row in applied] == [row.migration for row in before]
    after = migrate.info(empty)
    assert all(row.state == "applied" and row.applied_at is not None for row in after)
    assert migrate.run(empty) == []


def test_services_are_collected_and_ordered_by_what_they_depend_on(empty: str, services: Path) -> None:
    write(services, "aardvark", "aardvark-0001", "-- depends: beta-0001\nINSERT INTO alpha VALUES (3);")
    assert [row.migration for row in migrate.run(empty, root=services)] == ["alpha-0001", "beta-0001", "aardvark-0001"]
    assert values(empty) == [1, 2, 3]


def test_a_failing_migration_leaves_nothing_of_itself_and_keeps_the_ones_before(empty: str, services: Path) -> None:
    write(services, "beta", "beta-0001", "-- depends: alpha-0001\nINSERT INTO alpha VALUES (2);\nSELECT 1 / 0;")
    with pytest.raises(migrate.MigrationError, match="beta-0001: division by zero"):
        migrate.run(empty, root=services)
    assert values(empty) == [1]
    assert [row.state for row in migrate.info(empty, root=services)] == ["applied", "pending"]
    write(services, "beta", "beta-0001", "INSERT INTO alpha VALUES (2);")
    assert [row.migration for row in migrate.run(empty, root=services)] == ["beta-0001"]
    assert values(empty) == [1, 2]


def test_a_runner_that_was_killed_does_not_block_the_next(empty: str, services: Path) -> None:
    migrate.info(empty, root=services)
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, now(), 1)")
    assert len(migrate.run(empty, root=services)) == 2


def test_a_migration_and_its_mark_are_one_transaction(
    empty: str, services: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(migrate._Backend, "mark_one", killed)
        with pytest.raises(KeyboardInterrupt):
            migrate.run(empty, root=services)
    assert len(migrate.run(empty, root=services)) == 2
    assert values(empty) == [1, 2]


def test_two_runners_at_once_apply_each_migration_once(empty: str, services: Path) -> None:
    applied: list[int] = []
    runners = [
        threading.Thread(target=lambda: applied.append(len(migrate.run(empty, root=services)))) for _ in range(4)
    ]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join(60)
    assert sorted(applied) == [0, 0, 0, 2]
    assert values(empty) == [1, 2]


def test_two_files_of_one_name_are_refused(empty: str, services: Path) -> None:
    write(services, "beta", "alpha-0001", "SELECT 1;")
    with pytest.raises(migrate.MigrationError, match="alpha-0001"):
        migrate.run(empty, root=services)


def test_a_dependency_that_does_not_exist_is_named(empty: str, services: Path) -> None:
    write(services, "beta", "beta-0001", "-- depends: nowhere-0001\nSELECT 1;")
    with pytest.raises(migrate.MigrationError, match="beta-0001"):
        migrate.run(empty, root=services)


def test_a_database_without_our_roles_can_be_migrated() -> None:
    statement = (migrate.SERVICES_ROOT / "trading/journal/migrations" / f"{JOURNAL}.sql").read_text()
    granted = statement.index("TO trading_user")
    assert "IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'trading_user')" in statement[:granted]
    assert "CREATE ROLE" not in statement


def test_the_command_line_runs_and_tells(
    empty: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/wrong")
    monkeypatch.setenv("PINCEX_ADMIN_DATABASE_URL", empty)
    assert migrate.main(["info"]) == 0
    assert f"pending  trading.journal      {JOURNAL}" in capsys.readouterr().out
    assert migrate.main(["run"]) == 0
    assert f"applied  trading.journal      {JOURNAL}" in capsys.readouterr().out
    assert migrate.main(["run", "--database-url", empty]) == 0
    assert capsys.readouterr().out == "nothing to apply\n"


def test_the_command_line_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PINCEX_ADMIN_DATABASE_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert migrate.main(["run"]) == 1
    assert "PINCEX_ADMIN_DATABASE_URL" in capsys.readouterr().err
    assert migrate.main(["run", "--database-url", "postgresql://admin:secret-word@127.0.0.1:1/pincex"]) == 1
    error = capsys.readouterr().err
    assert "no connection" in error
    assert "secret-word" not in error

"""The first operator: made once, whoever starts at the same time, with a password that only its owner can read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from exchange.auth import bootstrap
from exchange.auth.bootstrap import EMAIL, PASSWORD_FILE, PasswordNotLeft, make_operator
from exchange.auth.password_policy import check
from exchange.runtime.errors import ServiceError
from pincex.common.v1 import access_pb2
from tests.integration.auth.auth_app import running_auth

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.auth.rig import Rig
    from tests.postgres_fixture import Database

pytestmark = pytest.mark.asyncio


def admins(database: Database) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.admin_url) as connection:
        return connection.execute(
            "SELECT email, email_verified, roles, locked_at FROM users WHERE 'admin' = ANY (roles)"
        ).fetchall()


def files_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


async def make(rig: Rig, folder: Path) -> bool:
    return await make_operator(rig.store, rig.parts.passwords, rig.parts.events, folder)


async def test_whoever_starts_first_can_log_in_as_the_operator(database: Database, tmp_path: Path) -> None:
    async with running_auth(database, tmp_path) as service:
        file = tmp_path / "secrets" / PASSWORD_FILE
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
        password = file.read_text()
        check(password, EMAIL, "password")
        tokens = await service.log_in(EMAIL, password)
        assert access_pb2.Access.ADMIN in tokens.scopes
        assert admins(database) == [(EMAIL, True, ["admin", "operator", "trader"], None)]
        file.unlink()
    # A second start makes no other, and leaves no password.
    async with running_auth(database, tmp_path) as again:
        assert not file.exists()
        assert len(admins(database)) == 1
        assert (await again.log_in(EMAIL, password)).access_token


async def test_instances_that_start_at_once_make_one_between_them(rig: Rig, tmp_path: Path) -> None:
    made = await asyncio.gather(*(make(rig, tmp_path) for _ in range(6)))
    assert sorted(made) == [False] * 5 + [True]
    assert len(admins(rig.database)) == 1
    assert files_in(tmp_path) == [PASSWORD_FILE]
    password = (tmp_path / PASSWORD_FILE).read_text()
    assert (await rig.log_in(EMAIL, password)).access.text


async def test_a_crash_before_the_user_is_there_leaves_a_password_that_the_next_start_replaces(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bootstrap._write

    def written_then_killed(folder: Path, password: str) -> None:
        real(folder, password)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "_write", written_then_killed)
        with pytest.raises(KeyboardInterrupt):
            await make(rig, tmp_path)
    of_nobody = (tmp_path / PASSWORD_FILE).read_text()
    assert admins(rig.database) == []
    assert await make(rig, tmp_path)
    password = (tmp_path / PASSWORD_FILE).read_text()
    assert password != of_nobody
    assert (await rig.log_in(EMAIL, password)).access.text


async def test_a_password_that_cannot_be_left_makes_no_operator(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(PasswordNotLeft, match=r"cannot be left in .*/file: File exists"):
        await make(rig, tmp_path / "file")
    assert admins(rig.database) == []


async def test_where_somebody_is_an_administrator_nobody_is_made(rig: Rig, tmp_path: Path) -> None:
    await rig.add_user("boss@example.com", roles=("admin",))
    assert not await make(rig, tmp_path)
    assert files_in(tmp_path) == []


async def test_the_making_is_on_record_without_the_password(rig: Rig, tmp_path: Path) -> None:
    await make(rig, tmp_path)
    (entry,) = rig.recorded.entries
    assert entry.action == "user.operator-made"
    assert (tmp_path / PASSWORD_FILE).read_text() not in str(entry)


async def test_without_a_database_it_says_so(rig: Rig, tmp_path: Path) -> None:
    await rig.store.close()
    with pytest.raises(ServiceError, match="tokens cannot be checked"):
        await make(rig, tmp_path)

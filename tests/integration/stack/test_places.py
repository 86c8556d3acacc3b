"""Where PostgreSQL's files go, and databases that are not ours."""

from __future__ import annotations

import os
import pwd
import shutil
from typing import TYPE_CHECKING

import pytest

from exchange.stack.files import secret
from exchange.stack.postgresql import place as postgres_place
from exchange.stack.postgresql.place import REACHABLE_ROOT, UNPRIVILEGED_USER, find_place, reachable
from tests.edge_http import call
from tests.integration.stack.conftest import fake_folder
from tests.stack_fixture import running_stack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stack_fixture import ExchangeStack, StackFolder

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root must not run PostgreSQL")


@only_root
def test_a_data_folder_that_only_root_can_reach_keeps_its_database_elsewhere(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    home = closed / ".pincex"
    try:
        with running_stack(fake_folder(home)) as stack:
            assert call(f"{stack.edge_url}/api/v1/health").status == 200
        data = REACHABLE_ROOT / secret(home / "secrets", "data-folder-id") / "data"
        assert (data / "PG_VERSION").exists()
        assert not (home / "postgres").exists()
        assert closed.stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(REACHABLE_ROOT / secret(home / "secrets", "data-folder-id"), ignore_errors=True)


@only_root
def test_binaries_that_only_root_can_reach_are_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    (closed / "pginstall" / "bin").mkdir(parents=True)
    (closed / "pginstall" / "bin" / "postgres").write_text("program")
    closed.chmod(0o700)
    target = tmp_path / "reachable"
    monkeypatch.setattr(postgres_place, "wheel_binaries", lambda: closed / "pginstall" / "bin")
    monkeypatch.setattr(postgres_place, "REACHABLE_ROOT", target)
    home = tmp_path / "home"
    home.mkdir()

    place, again = find_place(home), find_place(home)

    assert place == again
    assert place.user == UNPRIVILEGED_USER
    assert place.binaries.is_relative_to(target)
    assert (place.binaries / "postgres").read_text() == "program"
    assert len(list(target.glob("binaries-*"))) == 1


@only_root
def test_a_folder_is_reachable_when_every_part_of_its_way_is(tmp_path: Path) -> None:
    nobody = pwd.getpwnam(UNPRIVILEGED_USER)
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    before = reachable(tmp_path, nobody)

    assert reachable(inner, nobody) == before
    outer.chmod(0o700)
    assert not reachable(inner, nobody)


def test_a_database_of_the_operators_own_is_used_and_none_is_started(
    fake_stack: ExchangeStack,
    folder: StackFolder,
) -> None:
    assert fake_stack.database_url is not None
    assert fake_stack.admin_database_url is not None
    external = folder.with_environment(
        DATABASE_URL=fake_stack.database_url,
        PINCEX_ADMIN_DATABASE_URL=fake_stack.admin_database_url,
        REDIS_URL=fake_stack.redis_url,
    )

    with running_stack(external) as stack:
        names = {service["name"] for service in stack.status()["services"]}
        assert {"trading-engine-1", "envoy"} <= names
        assert not {"postgres", "valkey"} & names
        assert (stack.database_url, stack.redis_url) == (fake_stack.database_url, fake_stack.redis_url)
        assert call(f"{stack.edge_url}/api/v1/health").status == 200

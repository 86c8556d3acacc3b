"""The admin service's process: until a signal, and what it says of a wrong environment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from exchange.admin import __main__ as admin
from exchange.admin.config import Config
from exchange.runtime import process
from exchange.runtime.config import Environment
from tests.postgres_fixture import Database


async def test_it_serves_until_it_is_told_to_stop(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = asyncio.Event()
    monkeypatch.setattr(process, "stop_signal", lambda: stopped)
    environment = {
        "PINCEX_AUDIT_DATABASE_URL": database.audit_url,
        "PINCEX_LOG_DIR": str(tmp_path),
        "PINCEX_DRAIN_SECONDS": "0.5",
    }
    running = asyncio.create_task(admin.main(Config.read(Environment(environment))))
    await asyncio.sleep(0)
    assert not running.done()
    stopped.set()
    await asyncio.wait_for(running, 10)


def test_a_wrong_environment_is_told_with_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PINCEX_AUDIT_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert admin.run() == 2
    assert capsys.readouterr().err == "admin: PINCEX_AUDIT_DATABASE_URL is not set, and neither is DATABASE_URL\n"

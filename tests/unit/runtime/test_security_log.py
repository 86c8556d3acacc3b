"""security.log: what a line holds, and that a flood stays small and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exchange.runtime.audit import security
from exchange.runtime.audit.contract import API_KEY_USED, LOGIN_FAILED, TOKEN_REFUSED, SecurityEvent
from exchange.runtime.audit.line_file import LineFile
from exchange.runtime.audit.records import Writer
from exchange.runtime.audit.security import MAX_KINDS, MAX_NAMED, FileSecurityLog
from tests.integration.journal.waiting import until


@pytest.fixture
def log(tmp_path: Path) -> FileSecurityLog:
    return FileSecurityLog(LineFile(tmp_path / "security.log"), Writer("auth-service", "auth-service-1"), max_lines=3)


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "security.log").read_text().splitlines()]


def test_a_line_tells_who_from_where_and_what_without_query_or_tokens(log: FileSecurityLog, tmp_path: Path) -> None:
    log.note(
        SecurityEvent(
            TOKEN_REFUSED,
            "TOKEN_EXPIRED",
            actor="100001",
            credential="token",
            address="203.0.113.9",
            action="/api/v1/orders?token=planted",
            request_id="r-1",
            details="Bearer planted",
        )
    )
    (line,) = lines(tmp_path)
    assert "planted" not in json.dumps(line)
    assert line["time"].endswith("Z")
    del line["time"]
    assert line == {
        "kind": "token.refused",
        "outcome": "TOKEN_EXPIRED",
        "service": "auth-service",
        "instance": "auth-service-1",
        "actor": "100001",
        "credential": "token",
        "address": "203.0.113.9",
        "action": "/api/v1/orders",
        "request_id": "r-1",
        "details": "Bearer [redacted]",
    }


async def test_a_flood_of_one_kind_is_counted_and_hides_no_other(
    log: FileSecurityLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "WINDOW_S", 0.1)
    for number in range(1_000):
        log.note(SecurityEvent(LOGIN_FAILED, "INVALID_CREDENTIALS", address=f"203.0.113.{number % 100}"))
    log.note(SecurityEvent(API_KEY_USED, "OK", credential="api-key ak_1"))
    assert [line["kind"] for line in lines(tmp_path)] == [LOGIN_FAILED] * 3 + [API_KEY_USED]
    # Told at the end of the minute, though nothing more of it happens.
    await until(lambda: len(lines(tmp_path)) == 5)
    told = lines(tmp_path)[-1]
    assert (told["kind"], told["unwritten"]) == (LOGIN_FAILED, 997)
    assert sum(told["by_address"].values()) == 997
    assert len(told["by_address"]) == MAX_NAMED + 1
    assert told["by_address"]["others"] > 600


async def test_each_use_of_a_key_is_counted_to_that_key(log: FileSecurityLog, tmp_path: Path) -> None:
    for number in range(9):
        log.note(SecurityEvent(API_KEY_USED, "OK", credential=f"api-key ak_{number % 2}"))
    log.close()
    written, counted = lines(tmp_path)[:-1], lines(tmp_path)[-1]
    assert len(written) == 3
    assert counted["by_credential"] == {"api-key ak_1": 3, "api-key ak_0": 3}


def test_kinds_are_bounded(log: FileSecurityLog) -> None:
    for number in range(10 * MAX_KINDS):
        log.note(SecurityEvent(f"kind-{number}", "OK"))
    assert len(log._windows) == MAX_KINDS + 1


def test_a_folder_that_cannot_be_written_refuses_no_call(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = FileSecurityLog(LineFile(tmp_path / "file" / "security.log"), Writer("s", "s-1"))
    log.note(SecurityEvent(TOKEN_REFUSED, "TOKEN_EXPIRED"))
    log.close()

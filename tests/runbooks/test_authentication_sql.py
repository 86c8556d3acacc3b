"""The SQL that the source runbooks print under "Authentication & Security", typed as it is printed."""

from __future__ import annotations

import asyncio
import csv
import subprocess
from typing import TYPE_CHECKING

import pytest

from exchange.runtime.errors import ServiceError
from exchange.stack.postgresql.place import wheel_binaries
from tests.integration.auth.rig import Rig, running_rig
from tests.runbooks.source_sql import printed_sql

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.postgres_fixture import Database

DEADLINE_S = 30.0


def printed(runbook: str, table: str) -> tuple[str, str]:
    """The role and the one statement that reads a table."""
    (found,) = [one for one in printed_sql(runbook) if f"FROM {table}\n" in one.sql]
    return found.role, found.sql


async def typed(database: Database, role: str, sql: str) -> list[dict[str, str]]:
    """What psql prints for a statement, by column."""
    url = database.server.url(database.name, role)
    command = [str(wheel_binaries() / "psql"), "--no-psqlrc", "--csv", url, "-c", sql]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return list(csv.DictReader(done.stdout.splitlines()))


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    async with running_rig(database) as found:
        yield found


async def fails(rig: Rig, email: str, address: str) -> None:
    with pytest.raises(ServiceError, match="wrong"):
        await rig.log_in(email, "wrong password", address=address)


async def test_failed_log_ins_of_the_last_hour(rig: Rig, database: Database, source_runbook: str) -> None:
    role, sql = printed(source_runbook, "failed_login_attempts")
    assert role == "admin"
    alice = await rig.add_user("alice@example.com")
    await fails(rig, "alice@example.com", "203.0.113.1")
    rig.let_pass(3_601)
    await fails(rig, "alice@example.com", "203.0.113.1")
    await fails(rig, "nobody@example.com", "2001:db8::1")
    await rig.log_in("alice@example.com", address="203.0.113.1")
    rows = await typed(database, role, sql)
    assert [(row["user_id"], row["ip_address"], row["reason"]) for row in rows] == [
        ("", "2001:db8::1", "unknown user"),
        (str(alice.user_id), "203.0.113.1", "wrong password"),
    ], "the newest first, not those of before, and no success"
    assert rows[0]["attempt_time"] > rows[1]["attempt_time"]


async def test_users_who_came_from_many_addresses(rig: Rig, database: Database, source_runbook: str) -> None:
    role, sql = printed(source_runbook, "user_sessions")
    assert role == "admin"
    alice = await rig.add_user("alice@example.com")
    await rig.add_user("bob@example.com")
    for number in (4, 1, 2, 3, 3):
        await rig.log_in("alice@example.com", address=f"203.0.113.{number}")
    for number in (1, 2, 3):
        await rig.log_in("bob@example.com", address=f"203.0.113.{number}")
    assert await typed(database, role, sql) == [
        {
            "user_id": str(alice.user_id),
            "unique_ips": "4",
            "ip_addresses": "{203.0.113.1,203.0.113.2,203.0.113.3,203.0.113.4}",
        }
    ]

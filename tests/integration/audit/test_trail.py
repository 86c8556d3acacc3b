"""A process's trail: in order, once each, and closed where it cannot be written."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from exchange.runtime import postgres
from exchange.runtime.audit import postgres as postgres_trail
from exchange.runtime.audit.contract import OK
from exchange.runtime.errors import ServiceError
from tests.integration.audit.trails import Trail, entry, lines, running_trail, stored_trail
from tests.postgres_fixture import Database, PostgresServer, running_postgres

WRITERS, ROUNDS = 4, 25


@pytest_asyncio.fixture
async def stored(database: Database) -> AsyncIterator[Trail]:
    async with stored_trail(database) as trail:
        yield trail


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    with running_postgres(durable=False) as server:
        yield server


async def test_an_action_is_stored_before_it_and_after_it(stored: Trail, tmp_path: Path) -> None:
    async with running_trail(stored.database.auth_url, tmp_path) as trail:
        await trail.begun(entry(1))
        assert await stored.told() == [("BEGUN", "r-1", "")]
        await trail.ended(entry(1), "PERMISSION_DENIED")
        await trail.happened(entry(2, "account.locked"))
        for action in (
            "pincex.auth.v1.AuthAdminService/RevokeApiKeyByAdmin",
            "pincex.trading.v1.TradingAdminService/Halt",
        ):
            await trail.ended(entry(3, action), OK)
        # Each was durable when the call came back.
        assert await stored.told() == [
            ("BEGUN", "r-1", ""),
            ("ENDED", "r-1", "PERMISSION_DENIED"),
            ("HAPPENED", "r-2", OK),
            *[("ENDED", "r-3", OK)] * 2,
        ]
    first = (await stored.reader.after(0, 1, 1))[0]
    assert (first.service, first.instance, first.writer_role) == ("auth-service", "auth-service-1", "auth_user")
    assert (first.actor, first.credential, first.address) == ("100001", "token", "203.0.113.9")
    assert (first.details, first.reason) == ('{"n":1}', "because")
    written = lines(tmp_path)
    assert [line["phase"] for line in written] == ["BEGUN", "ENDED", "HAPPENED", "ENDED", "ENDED"]
    # The head stands outside the database too.
    assert (written[0]["sequence"], written[0]["hash"]) == (1, first.hash.hex())
    # What was refused, what happened by itself and what was done to users is in the security log; a halt is not.
    security = lines(tmp_path, "security.log")
    assert [(line["kind"], line["outcome"]) for line in security] == [
        ("action.refused", "PERMISSION_DENIED"),
        ("account.locked", OK),
        ("action.done", OK),
    ]
    # Whom it concerned, too.
    assert security[1]["details"] == '{"n":2}'


PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.integration.audit.trails import entry, running_trail

async def main(url, logs, number, rounds):
    async with running_trail(url, Path(logs)) as trail:
        for one in range(int(rounds)):
            await trail.begun(entry(one, f"writer-{number}"))
            if rounds == "1":
                print("begun", flush=True)
                await asyncio.sleep(60)
            await trail.ended(entry(one, f"writer-{number}"), "OK")

asyncio.run(main(*sys.argv[1:]))
"""


def writer(database: Database, logs: Path, number: int, rounds: int) -> subprocess.Popen[bytes]:
    url = database.auth_url if number % 2 else database.trading_url
    argv = [sys.executable, "-c", PROGRAM, url, str(logs), str(number), str(rounds)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])


async def test_several_processes_write_one_chain_without_a_gap(stored: Trail, tmp_path: Path) -> None:
    writers = [writer(stored.database, tmp_path, number, ROUNDS) for number in range(WRITERS)]
    told = await asyncio.gather(*(asyncio.to_thread(process.communicate, timeout=60) for process in writers))
    # Each waited for its turn: none was refused and had to come again.
    assert [out for out, _ in told if b"cannot be stored" in out] == []
    assert [process.returncode for process in writers] == [0] * WRITERS
    verdict = await stored.verdict()
    assert (verdict.records, verdict.broken, verdict.head.sequence) == (2 * WRITERS * ROUNDS, 0, 2 * WRITERS * ROUNDS)
    records = await stored.reader.after(0, verdict.head.sequence, 1_000)
    for number in range(WRITERS):
        mine = [(record.phase, record.request_id) for record in records if record.action == f"writer-{number}"]
        assert mine == [(phase, f"r-{one}") for one in range(ROUNDS) for phase in ("BEGUN", "ENDED")]
    assert len(lines(tmp_path)) == 2 * WRITERS * ROUNDS


async def test_a_kill_between_the_two_records_leaves_the_first(stored: Trail, tmp_path: Path) -> None:
    process = writer(stored.database, tmp_path, 1, 1)
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == b"begun\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)
    assert await stored.told() == [("BEGUN", "r-0", "")]
    assert [line["phase"] for line in lines(tmp_path)] == ["BEGUN"]
    assert (await stored.verdict()).broken == 0


async def refused(trail: Any, number: int) -> float:
    """How many seconds it took until the action was refused."""
    began = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        await trail.begun(entry(number))
    assert caught.value.reason_name == "AUDIT_UNAVAILABLE"
    return time.monotonic() - began


async def test_while_the_database_is_away_nothing_begins_and_what_ends_is_stored_later_in_order(
    own_server: PostgresServer, tmp_path: Path
) -> None:
    database = own_server.create_database()
    async with stored_trail(database) as stored, running_trail(database.auth_url, tmp_path) as trail:
        for number in range(3):
            await trail.begun(entry(number))
        own_server.kill()
        # The first was sent, and may have been stored; the second was not.
        assert await refused(trail, 98) < 3
        assert await refused(trail, 99) < 3
        began = time.monotonic()
        for number in range(3):
            await trail.ended(entry(number), OK)
        await trail.happened(entry(3, "account.locked"))
        # The file has them at once, and nobody waits for a database that is known to be away.
        assert [line["request_id"] for line in lines(tmp_path)] == [
            *("r-0", "r-1", "r-2", "r-98", "r-0", "r-1", "r-2", "r-3")
        ]
        assert time.monotonic() - began < 0.5
        own_server.start()
        await trail.begun(entry(4))
        assert await stored.told() == [
            *(("BEGUN", f"r-{number}", "") for number in range(3)),
            ("BEGUN", "r-98", ""),
            ("ENDED", "r-98", "AUDIT_UNAVAILABLE"),
            *(("ENDED", f"r-{number}", OK) for number in range(3)),
            ("HAPPENED", "r-3", OK),
            ("BEGUN", "r-4", ""),
        ]
        assert (await stored.verdict()).broken == 0
    assert [line["outcome"] for line in lines(tmp_path, "security.log")] == ["AUDIT_UNAVAILABLE"] * 2 + [OK] * 4


async def test_a_record_whose_answer_was_lost_is_stored_once(
    stored: Trail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = postgres.connect
    lost = 2

    class LosesAnswers:
        """A connection that breaks after the statement was carried out, as often as `lost` says."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection

        async def fetch(self, *arguments: Any, **options: Any) -> Any:
            nonlocal lost
            rows = await self._connection.fetch(*arguments, **options)
            if lost:
                lost -= 1
                raise asyncpg.ConnectionDoesNotExistError
            return rows

        def terminate(self) -> None:
            self._connection.terminate()

    async def connect_badly(*arguments: Any, **options: Any) -> Any:
        return LosesAnswers(await connect(*arguments, **options))

    monkeypatch.setattr(postgres, "connect", connect_badly)
    async with running_trail(stored.database.auth_url, tmp_path) as trail:
        await asyncio.gather(*(trail.begun(entry(number)) for number in range(3)))
    assert lost == 0
    assert await stored.told() == [("BEGUN", f"r-{number}", "") for number in range(3)]


async def test_what_comes_while_records_are_stored_is_stored_with_one_commit(
    stored: Trail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_trail, "MAX_BATCH", 8)
    async with running_trail(stored.database.auth_url, tmp_path) as trail:
        await trail.begun(entry(0))
        await asyncio.gather(*(trail.begun(entry(number)) for number in range(1, 21)))
    assert await stored.told() == [("BEGUN", f"r-{number}", "") for number in range(21)]
    assert (await stored.verdict()).broken == 0
    commits = await asyncpg.connect(stored.database.admin_url)
    found = await commits.fetch("SELECT count(*) FROM audit_records GROUP BY xmin ORDER BY min(sequence)")
    await commits.close()
    assert [row["count"] for row in found] == [1, 8, 8, 4]
    # Each caller got the number and the hash of its own record.
    told = {line["request_id"]: (line["sequence"], line["hash"]) for line in lines(tmp_path)}
    records = await stored.reader.after(0, 1 << 62, 100)
    assert told == {record.request_id: (record.sequence, record.hash.hex()) for record in records}


async def test_a_record_that_was_on_its_way_when_its_action_was_refused_is_followed_by_that_end(
    stored: Trail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_trail, "BEGIN_WAIT_S", 0.3)
    holder = await asyncpg.connect(stored.database.trading_url)
    transaction = holder.transaction()
    await transaction.start()
    # As a commit that waits for its standby: it holds the lock of all appends.
    await holder.execute(
        "SELECT audit_append(gen_random_uuid(), now(), 'BEGUN', '', '', '', '', '', '', '', '', 'r-0', '')"
    )
    async with running_trail(stored.database.auth_url, tmp_path) as trail:
        first = asyncio.create_task(refused(trail, 1))
        while not (trail._queue and trail._queue[0].sent):  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        second = asyncio.create_task(refused(trail, 2))
        given_up = asyncio.create_task(trail.begun(entry(3)))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await first < 1
        assert await second < 1
        await transaction.commit()
        await trail.begun(entry(4))
    await holder.close()
    # The others had not been sent: nothing of them is left.
    assert await stored.told() == [
        ("BEGUN", "r-0", ""),
        ("BEGUN", "r-1", ""),
        ("ENDED", "r-1", "AUDIT_UNAVAILABLE"),
        ("BEGUN", "r-4", ""),
    ]


async def test_the_queue_is_bounded_and_keeps_room_for_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_trail, "MAX_WAITING", 8)
    monkeypatch.setattr(postgres_trail, "CLOSE_WAIT_S", 0.05)
    monkeypatch.setattr(postgres_trail, "END_WAIT_S", 0.0)
    async with running_trail("postgresql://nobody@127.0.0.1:1/none", tmp_path) as trail:
        for number in range(4):
            await trail.ended(entry(number), OK)
        # Refused at once: half the queue is for those that have begun.
        assert await refused(trail, 99) < 0.5
        for number in range(4, 20):
            await trail.ended(entry(number), OK)
        assert len(trail._queue) == 8  # type: ignore[attr-defined]
    assert [line["request_id"] for line in lines(tmp_path)] == [f"r-{number}" for number in range(20)]


async def test_what_waits_is_stored_before_the_process_ends(stored: Trail, tmp_path: Path) -> None:
    async with running_trail(stored.database.auth_url, tmp_path) as trail:
        waiting = [asyncio.create_task(trail.ended(entry(number), OK)) for number in range(50)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
    assert [request for _, request, _ in await stored.told()] == [f"r-{number}" for number in range(50)]


async def test_a_trail_without_a_database_is_the_file_and_closed_where_it_takes_nothing(tmp_path: Path) -> None:
    async with running_trail(None, tmp_path) as trail:
        await trail.begun(entry(1))
        await trail.ended(entry(1), "ORDER_NOT_FOUND")
    assert [(line["phase"], line["outcome"]) for line in lines(tmp_path)] == [
        ("BEGUN", ""),
        ("ENDED", "ORDER_NOT_FOUND"),
    ]
    assert len(lines(tmp_path, "security.log")) == 1
    (tmp_path / "blocked").touch()
    async with running_trail(None, tmp_path / "blocked") as trail:
        assert await refused(trail, 1) < 0.5
        await trail.ended(entry(1), OK)


async def test_a_database_that_refuses_the_role_closes_the_trail_until_it_does_not(
    stored: Trail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_trail, "BEGIN_WAIT_S", 0.3)
    monkeypatch.setattr(postgres_trail, "CLOSE_WAIT_S", 0.05)
    # audit_user only reads.
    async with running_trail(stored.database.audit_url, tmp_path) as trail:
        await refused(trail, 1)
    assert await stored.told() == []
    assert [line["outcome"] for line in lines(tmp_path, "security.log")] == ["AUDIT_UNAVAILABLE"]

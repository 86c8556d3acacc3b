"""The admin service in the test's own event loop: pages, proofs, the watch, and what it answers without a database."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from exchange.admin import chain, shared_verification
from exchange.admin.__main__ import App, open_pool
from exchange.admin.config import Config
from exchange.runtime.audit.contract import OK
from exchange.runtime.config import Environment
from exchange.runtime.metrics import render
from pincex.admin.v1 import audit_service_pb2 as pb
from pincex.admin.v1 import audit_service_pb2_grpc
from tests.integration.audit.trails import Trail, append, entry, lines, running_trail, stored_trail
from tests.integration.journal.waiting import until
from tests.integration.trading.engine_app import refused
from tests.postgres_fixture import Database

RECORDS = 12


@dataclass(frozen=True, slots=True)
class Admin:
    """A running service, its client, and the trail behind it."""

    app: App
    calls: Any
    trail: Trail
    logs: Path

    def metric(self, name: str) -> float:
        text = render(self.app.registry).decode()
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))

    async def records(self, **filters: Any) -> list[pb.AuditRecord]:
        """All of them, page by page."""
        found: list[pb.AuditRecord] = []
        token = ""
        while True:
            page = await self.calls.ListAuditRecords(
                pb.ListAuditRecordsRequest(page_size=5, page_token=token, **filters)
            )
            found.extend(page.records)
            token = page.next_page_token
            if not token:
                return found


@asynccontextmanager
async def running_admin(database: Database, logs: Path, **variables: str) -> AsyncIterator[Admin]:
    environment = {
        "PINCEX_AUDIT_DATABASE_URL": database.audit_url,
        "PINCEX_PROFILE": "development",
        "PINCEX_LOG_DIR": str(logs),
        "PINCEX_AUDIT_WATCH_SECONDS": "0.05",
        "PINCEX_DRAIN_SECONDS": "0.5",
    }
    config = Config.read(Environment({**environment, **variables}))
    pool = await open_pool(config)
    app = App(config, pool)
    background = await app.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.ops.port}") as channel, stored_trail(database) as trail:
            stub: Any = audit_service_pb2_grpc.AuditServiceStub
            yield Admin(app, stub(channel), trail, logs)
    finally:
        await app.stop(background)
        await pool.close()


@pytest_asyncio.fixture
async def admin(database: Database, tmp_path: Path) -> AsyncIterator[Admin]:
    await append(database.auth_url, RECORDS)
    async with running_admin(database, tmp_path) as admin:
        yield admin


async def test_pages_hold_every_record_once_the_newest_first(admin: Admin) -> None:
    records = await admin.records()
    assert [record.sequence for record in records] == list(range(RECORDS, 0, -1))
    stored = await admin.trail.reader.at(RECORDS)
    assert stored is not None
    newest = records[0]
    assert (newest.hash, newest.prev_hash) == (stored.hash.hex(), stored.prev_hash.hex())
    assert newest.record_time.ToMicroseconds() == stored.record_micros
    assert newest.store_time.ToMicroseconds() == stored.store_micros
    assert (newest.phase, newest.writer_role, newest.record_id) == (pb.HAPPENED, "auth_user", stored.record_id)


async def test_records_are_found_by_actor_action_request_and_time(admin: Admin, tmp_path: Path) -> None:
    async with running_trail(admin.trail.database.auth_url, tmp_path) as trail:
        await trail.begun(entry(7))
        await trail.ended(entry(7), OK)
    begun, ended = RECORDS + 1, RECORDS + 2
    assert [one.sequence for one in await admin.records(actor="100001")] == [ended, begun]
    assert [one.sequence for one in await admin.records(action=entry().action)] == [ended, begun]
    # The seventh of the first records has this request id too.
    assert [one.sequence for one in await admin.records(request_id="r-7")] == [ended, begun, 7]
    assert [one.sequence for one in await admin.records(request_id="r-7", actor="100001")] == [ended, begun]
    assert await admin.records(actor="'; DROP TABLE audit_records; --") == []
    middle = (await admin.records())[RECORDS // 2].record_time
    later = await admin.records(from_time=middle)
    earlier = await admin.records(to_time=middle)
    shared = [one.sequence for one in later if one.sequence in {other.sequence for other in earlier}]
    assert all(one.record_time.ToMicroseconds() >= middle.ToMicroseconds() for one in later)
    assert len(later) + len(earlier) - len(shared) == RECORDS + 2
    assert len(shared) >= 1
    assert await admin.records(from_time=Timestamp(seconds=4_000_000_000)) == []


WRONG = [
    (pb.ListAuditRecordsRequest(page_size=501), "page_size"),
    (pb.ListAuditRecordsRequest(page_token="AAAA"), "page_token"),
    (pb.ListAuditRecordsRequest(actor="x" * 257), "actor"),
    (pb.ListAuditRecordsRequest(action="a\0b"), "action"),
    (pb.ListAuditRecordsRequest(from_time=Timestamp(seconds=1 << 60)), "from_time"),
    (pb.VerifyAuditRequest(known_sequence=1), "known_hash"),
    (pb.VerifyAuditRequest(known_sequence=1, known_hash="AB" * 32), "known_hash"),
    (pb.VerifyAuditRequest(known_hash="ab" * 32), "known_sequence"),
    (pb.VerifyAuditRequest(known_sequence=1 << 63, known_hash="ab" * 32), "known_sequence"),
]


async def test_a_wrong_field_is_named(admin: Admin) -> None:
    for request, field in WRONG:
        lists = isinstance(request, pb.ListAuditRecordsRequest)
        refusal = await refused((admin.calls.ListAuditRecords if lists else admin.calls.VerifyAudit)(request))
        assert (refusal.code, refusal.metadata["field"]) == ("INVALID_ARGUMENT", field)


async def test_a_proof_tells_the_head_and_a_break_is_an_answer(admin: Admin) -> None:
    sound = await admin.calls.VerifyAudit(pb.VerifyAuditRequest())
    stored = await admin.trail.reader.at(RECORDS)
    assert stored is not None
    assert sound == pb.VerifyAuditResponse(
        intact=True, record_count=RECORDS, head_sequence=RECORDS, head_hash=stored.hash.hex()
    )
    known = pb.VerifyAuditRequest(known_sequence=sound.head_sequence, known_hash=sound.head_hash)
    assert (await admin.calls.VerifyAudit(known)).intact
    admin.trail.tamper(f"DELETE FROM audit_records WHERE sequence > {RECORDS - 2}")
    assert (await admin.calls.VerifyAudit(pb.VerifyAuditRequest())).intact
    cut = await admin.calls.VerifyAudit(known)
    assert (cut.intact, cut.broken_sequence, cut.head_sequence) == (False, RECORDS - 1, RECORDS - 2)
    admin.trail.tamper("UPDATE audit_records SET reason = 'nothing to see' WHERE sequence = 3")
    altered = await admin.calls.VerifyAudit(known)
    assert (altered.intact, altered.broken_sequence, altered.record_count) == (False, 3, 2)
    assert altered.problem


async def test_an_empty_trail_is_sound(database: Database, tmp_path: Path) -> None:
    async with running_admin(database, tmp_path) as admin:
        answer = await admin.calls.VerifyAudit(pb.VerifyAuditRequest())
        assert answer == pb.VerifyAuditResponse(intact=True, head_hash="00" * 32)
        assert await admin.records() == []


async def test_the_watch_proves_what_is_appended_and_tells_of_a_break(admin: Admin) -> None:
    await until(lambda: admin.metric("pincex_audit_head_sequence") == RECORDS)
    await append(admin.trail.database.auth_url, 3)
    await until(lambda: admin.metric("pincex_audit_head_sequence") == RECORDS + 3)
    assert (admin.metric("pincex_audit_intact"), admin.metric("pincex_audit_proved_records_total")) == (1, 3)
    # Its end is cut off and grows anew, as if nothing had been.
    admin.trail.tamper(f"DELETE FROM audit_records WHERE sequence > {RECORDS}")
    await append(admin.trail.database.auth_url, 4)
    await until(lambda: admin.metric("pincex_audit_intact") == 0)
    told = lines(admin.logs, "security.log")[0]
    assert (told["kind"], told["outcome"]) == ("audit.broken", "DATA_LOSS")
    assert f"record {RECORDS + 3}" in told["details"]


async def test_a_proof_goes_on_when_its_caller_gives_up_and_the_next_gets_it(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "PAGE_RECORDS", 1)
    go_on = asyncio.Event()
    reads: list[int] = []
    after = admin.app.service.verification._reader.after

    async def slow(sequence: int, until_sequence: int, limit: int) -> Any:
        reads.append(sequence)
        await go_on.wait()
        return await after(sequence, until_sequence, limit)

    # Alone for what VerifyAudit reads: the watch has a reader of the same kind.
    monkeypatch.setattr(admin.app.watch, "look", asyncio.Event().wait)
    monkeypatch.setattr(admin.app.service.verification._reader, "after", slow)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.calls.VerifyAudit(pb.VerifyAuditRequest(), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    waiting = [asyncio.create_task(admin.app.service.verification.verdict()) for _ in range(3)]
    await asyncio.sleep(0)
    go_on.set()
    assert [(verdict.records, verdict.broken) for verdict in await asyncio.gather(*waiting)] == [(RECORDS, 0)] * 3
    # One verification for all of them.
    assert reads == list(range(RECORDS))
    # A verdict that somebody got is not given again.
    await admin.calls.VerifyAudit(pb.VerifyAuditRequest())
    assert len(reads) == 2 * RECORDS


async def test_a_verdict_that_nobody_took_grows_old(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    verification = admin.app.service.verification
    alone = asyncio.create_task(verification.verdict())
    await asyncio.sleep(0)
    alone.cancel()
    await until(lambda: verification._task is not None and verification._task.done())
    admin.trail.tamper("UPDATE audit_records SET reason = 'x' WHERE sequence = 2")
    monkeypatch.setattr(shared_verification, "KEPT_S", -1.0)
    assert (await verification.verdict()).broken == 2


async def test_without_its_database_it_refuses_and_is_not_ready(database: Database, tmp_path: Path) -> None:
    nowhere = "postgresql://audit_user@127.0.0.1:1/none"
    async with running_admin(database, tmp_path, PINCEX_AUDIT_DATABASE_URL=nowhere) as admin:
        assert (await refused(admin.calls.VerifyAudit(pb.VerifyAuditRequest()))).reason == "AUDIT_UNAVAILABLE"
        assert (await refused(admin.calls.ListAuditRecords(pb.ListAuditRecordsRequest()))).reason == "AUDIT_UNAVAILABLE"
        assert not admin.app._ready().ready


async def test_in_production_nobody_is_let_in_without_a_token(database: Database, tmp_path: Path) -> None:
    async with running_admin(database, tmp_path, PINCEX_PROFILE="production") as admin:
        refusal = await refused(admin.calls.ListAuditRecords(pb.ListAuditRecordsRequest()))
        assert refusal.code == "UNAUTHENTICATED"
        await until(lambda: admin.app._ready().ready)


async def pincex(admin: Admin, *words: str) -> tuple[int, str]:
    """The command's exit status, and what it wrote."""
    command = [str(Path(sys.executable).with_name("pincex")), "--ops-target", f"127.0.0.1:{admin.app.ops.port}", *words]
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "PINCEX_CONFIG_DIR": str(admin.logs)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    written, _ = await process.communicate()
    return process.returncode or 0, written.decode()


async def test_the_command_line_lists_and_proves_and_ends_with_1_at_a_break(admin: Admin) -> None:
    status, listed = await pincex(admin, "audit", "list", "--action", "account.locked", "--since", "1h", "--json")
    assert status == 0
    assert [one["sequence"] for one in json.loads(listed)] == list(range(RECORDS, 0, -1))
    status, proved = await pincex(admin, "audit", "verify")
    assert (status, f"{RECORDS} records" in proved) == (0, True)
    known = proved.split()[-1]
    assert (await pincex(admin, "audit", "verify", "--known", known))[0] == 0
    assert (await pincex(admin, "audit", "verify", "--known", "nonsense"))[0] == 2
    admin.trail.tamper(f"DELETE FROM audit_records WHERE sequence > {RECORDS - 2}")
    assert (await pincex(admin, "audit", "verify"))[0] == 0
    status, told = await pincex(admin, "audit", "verify", "--known", known)
    assert (status, "its end was cut off" in told) == (1, True)
    admin.trail.tamper("UPDATE audit_records SET reason = 'x' WHERE sequence = 4")
    status, told = await pincex(admin, "audit", "verify", "--json")
    assert (status, json.loads(told)["broken_sequence"]) == (1, 4)

"""Old audit records go, by one function and no other way, and the rest stays proved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from exchange.admin import retention
from exchange.admin.chain import Head, verify_all
from exchange.admin.retention import Retention
from exchange.runtime import postgres
from pincex.admin.v1 import audit_service_pb2 as pb
from tests.integration.audit.test_admin_service import running_admin
from tests.integration.audit.trails import Trail, append, append_old, stored_trail
from tests.integration.journal.waiting import until
from tests.postgres_fixture import Database

OLD, NEW = 7, 3
PRUNE = "SELECT audit_prune(now() - interval '90 days', 100, 'admin', 'admin')"


@pytest_asyncio.fixture
async def trail(database: Database) -> AsyncIterator[Trail]:
    await append_old(database, OLD, days=100)
    await append(database.auth_url, NEW)
    async with stored_trail(database) as trail:
        yield trail


async def run(trail: Trail, sql: str, role: str = "audit_user") -> Any:
    connection = await asyncpg.connect(trail.database.server.url(trail.database.name, role))
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def pruned(trail: Trail, days: int = 90) -> int:
    """What the admin service does each hour."""
    pool = await postgres.create_pool(trail.database.audit_url, application_name="test", min_connections=0)
    registry = CollectorRegistry()
    try:
        count = await Retention(pool, registry, days=days, service="admin", instance="admin").prune()
    finally:
        await pool.close()
    assert registry.get_sample_value("pincex_audit_pruned_records_total") == count
    return count


async def test_what_is_old_goes_and_the_chain_is_proved_from_there(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_RECORDS", 3)
    monkeypatch.setattr(retention, "PAUSE_S", 0.0)
    last = await trail.reader.at(OLD)
    assert last is not None
    assert await pruned(trail) == OLD
    assert await pruned(trail) == 0

    verdict = await trail.verdict()
    told = OLD + NEW + 3
    assert (verdict.broken, verdict.records, verdict.head.sequence) == (0, NEW + 3, told)
    assert verdict.anchor is not None
    assert (verdict.anchor.last, verdict.anchor.told_at) == (Head(OLD, last.hash), told)
    record = await trail.reader.at(told)
    assert record is not None
    assert (record.action, record.writer_role) == ("audit.pruned", "audit_user")
    await append(trail.database.trading_url, 1)
    assert (await trail.verdict()).broken == 0

    trail.tamper(f"DELETE FROM audit_records WHERE sequence = {OLD + 1}")
    assert (await trail.verdict()).broken == OLD + 1


async def test_the_newest_record_stays_however_old_it_is(database: Database) -> None:
    await append_old(database, 5, days=100)
    async with stored_trail(database) as trail:
        assert await pruned(trail) == 4
        assert (await trail.verdict()).records == 2


async def test_pruning_while_the_chain_is_proved_is_no_break(trail: Trail) -> None:
    class PrunedMeanwhile:
        """Reads as the admin service; the old records go before the first page."""

        def __getattr__(self, name: str) -> Any:
            return getattr(trail.reader, name)

        async def after(self, sequence: int, last: int, limit: int) -> Any:
            await pruned(trail)
            return await trail.reader.after(sequence, last, limit)

    verdict = await verify_all(PrunedMeanwhile(), OLD + NEW)
    assert (verdict.broken, verdict.records) == (0, NEW)


REFUSED = [
    ("audit_user", "SELECT audit_prune(now() - interval '29 days', 100, '', '')"),
    ("audit_user", "SELECT audit_prune(NULL, 100, '', '')"),
    ("audit_user", "DELETE FROM audit_records WHERE sequence = 1"),
    ("audit_user", "UPDATE audit_anchor SET sequence = 9"),
    ("trading_user", PRUNE),
    ("trading_user", "SELECT * FROM audit_anchor"),
    ("auth_user", PRUNE),
    ("auth_user", "DELETE FROM audit_anchor"),
    ("admin", "DELETE FROM audit_records WHERE sequence = 3"),
    ("admin", "DELETE FROM audit_anchor"),
    ("admin", "TRUNCATE audit_anchor"),
    ("admin", f"UPDATE audit_anchor SET (sequence, hash) = (SELECT sequence, hash FROM audit_records WHERE sequence = {OLD + 1})"),
    ("admin", "UPDATE audit_anchor SET sequence = 1"),
]  # fmt: skip


async def test_nobody_prunes_what_is_young_or_past_the_anchor(trail: Trail) -> None:
    await run(trail, "SELECT audit_prune(now() - interval '90 days', 2, 'admin', 'admin')")
    for role, statement in REFUSED:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await run(trail, statement, role)
    assert (await trail.verdict()).records == OLD + NEW - 2 + 1


async def test_a_beginning_that_was_cut_off_by_hand_is_found(trail: Trail) -> None:
    """The owner moves the anchor to an old record and deletes what is before it: no record tells of that."""
    await run(
        trail,
        "INSERT INTO audit_anchor (sequence, hash, pruned_at, record_sequence) "
        f"SELECT sequence, hash, now(), {OLD + NEW} FROM audit_records WHERE sequence = 5",
        "admin",
    )
    await run(trail, "DELETE FROM audit_records WHERE sequence <= 5", "admin")
    verdict = await trail.verdict()
    assert (verdict.broken, "the beginning was cut off" in verdict.problem) == (6, True)


async def test_the_service_prunes_and_tells_where_its_proof_begins(trail: Trail, tmp_path: Path) -> None:
    last, next_one = await trail.reader.at(OLD), await trail.reader.at(OLD + 1)
    assert last is not None
    assert next_one is not None
    async with running_admin(trail.database, tmp_path, PINCEX_AUDIT_RETENTION_DAYS="60") as admin:
        await until(lambda: admin.metric("pincex_audit_pruned_records_total") == OLD)
        await until(lambda: admin.metric("pincex_audit_head_sequence") == OLD + NEW + 1)
        found = await admin.calls.VerifyAudit(pb.VerifyAuditRequest())
        assert (found.intact, found.record_count, found.pruned_sequence) == (True, NEW + 1, OLD)
        assert found.pruned_hash == last.hash.hex()
        assert found.HasField("pruned_time")
        for record in (last, next_one):
            known = pb.VerifyAuditRequest(known_sequence=record.sequence, known_hash=record.hash.hex())
            assert (await admin.calls.VerifyAudit(known)).intact
        other = pb.VerifyAuditRequest(known_sequence=OLD, known_hash="ab" * 32)
        assert (await admin.calls.VerifyAudit(other)).broken_sequence == OLD
        with pytest.raises(grpc.RpcError, match="were pruned"):
            await admin.calls.VerifyAudit(pb.VerifyAuditRequest(known_sequence=OLD - 1, known_hash="ab" * 32))
        assert admin.metric("pincex_audit_intact") == 1

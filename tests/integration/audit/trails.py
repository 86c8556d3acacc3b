"""Trails of a test's own, and what they have left behind."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
from prometheus_client import CollectorRegistry

from exchange.admin.chain import Verdict, verify_all
from exchange.admin.reader import RecordReader
from exchange.runtime import postgres
from exchange.runtime.audit.contract import AuditEntry, AuditTrail
from exchange.runtime.audit.opening import Audit
from exchange.runtime.config import Environment, RuntimeConfig
from tests.postgres_fixture import Database


def entry(number: int = 1, action: str = "pincex.auth.v1.AuthAdminService/UnlockAccount") -> AuditEntry:
    return AuditEntry(action, "100001", "token", "203.0.113.9", f'{{"n":{number}}}', "because", f"r-{number}")


def audit_of(url: str | None, logs: Path, instance: str = "auth-service-1") -> Audit:
    environment = Environment({"PINCEX_INSTANCE": instance, "PINCEX_LOG_DIR": str(logs)})
    return Audit(RuntimeConfig.read(environment, "auth-service"), CollectorRegistry(), url)


@asynccontextmanager
async def running_trail(url: str | None, logs: Path) -> AsyncIterator[AuditTrail]:
    audit = audit_of(url, logs)
    audit.start()
    try:
        yield audit.trail
    finally:
        await audit.close()


@dataclass(frozen=True, slots=True)
class Trail:
    """The stored trail as the admin service reads it, and as its owner can tamper with it."""

    database: Database
    reader: RecordReader

    async def verdict(self) -> Verdict:
        newest = await self.reader.newest()
        return await verify_all(self.reader, newest.sequence if newest else 0)

    async def told(self) -> list[tuple[str, str, str]]:
        """Phase, request id and outcome of every record, in order."""
        records = await self.reader.after(0, 1 << 62, 100_000)
        return [(record.phase, record.request_id, record.outcome) for record in records]

    def tamper(self, *statements: str) -> None:
        """What the owner can do once the triggers are out of the way."""
        with psycopg.connect(self.database.admin_url, autocommit=True) as connection:
            connection.execute("ALTER TABLE audit_records DISABLE TRIGGER ALL")
            for statement in statements:
                connection.execute(statement.encode())


@asynccontextmanager
async def stored_trail(database: Database) -> AsyncIterator[Trail]:
    pool = await postgres.create_pool(database.audit_url, application_name="test", min_connections=0)
    try:
        yield Trail(database, RecordReader(pool))
    finally:
        await pool.close()


async def append_old(database: Database, count: int, days: int) -> None:
    """So many records that were stored that many days ago, at the end of the chain; only the owner can."""
    connection = await asyncpg.connect(database.admin_url)
    try:
        await connection.execute(
            f"""
            DO $$
            DECLARE entry audit_records; head audit_records;
            BEGIN
                FOR n IN 1..{count} LOOP
                    SELECT * INTO head FROM audit_records ORDER BY sequence DESC LIMIT 1;
                    SELECT coalesce(head.sequence, 0) + 1, gen_random_uuid(), now() - interval '{days} days',
                        now() - interval '{days} days', 'auth_user', 'HAPPENED', 'auth-service', 'auth-service-1',
                        'account.locked', 'system', 'system', '', '{{}}', '', 'old-' || n, 'OK',
                        coalesce(head.hash, decode(repeat('00', 32), 'hex')), '' INTO entry;
                    entry.hash := audit_hash(entry);
                    INSERT INTO audit_records SELECT (entry).*;
                END LOOP;
            END $$
            """
        )
    finally:
        await connection.close()


async def append(url: str, count: int) -> None:
    """So many records, as a writer appends them."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "SELECT audit_append(gen_random_uuid(), clock_timestamp(), 'HAPPENED', 'auth-service', 'auth-service-1', "
            "'account.locked', 'system', 'system', '', '{}', '', 'r-' || n, 'OK') "
            f"FROM generate_series(1, {count}) n"
        )
    finally:
        await connection.close()


def lines(logs: Path, name: str = "audit.log") -> list[dict[str, Any]]:
    path = logs / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

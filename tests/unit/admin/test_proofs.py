"""Proofs and the watch over records in memory: what a real trail does not show at will."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from exchange.admin.chain import Anchor, Head, known_problem, verify
from exchange.admin.config import Config
from exchange.admin.shared_verification import SharedVerification
from exchange.admin.watch import TrailWatch
from exchange.runtime.audit.contract import SecurityEvent
from exchange.runtime.audit.hashing import GENESIS, StoredRecord, hash_of
from exchange.runtime.config import ConfigError, Environment
from exchange.runtime.errors import ErrorReason, ServiceError
from tests.integration.journal.waiting import until


class Records:
    """A trail in memory, read as the admin service reads."""

    def __init__(self, count: int) -> None:
        self.rows: list[StoredRecord] = []
        self.away = False
        for _ in range(count):
            self.add()

    def add(self) -> None:
        head = self.rows[-1] if self.rows else None
        record = StoredRecord(
            head.sequence + 1 if head else 1,
            *("5f0c1f1e-7d3a-4d52-9a0b-6a1d4a3f0c01", 1, 2),
            *("auth_user", "HAPPENED", "auth-service", "auth-service-1", "account.locked", "system", "system"),
            *("", "{}", "", "", "OK"),
            head.hash if head else GENESIS,
            b"",
        )
        self.rows.append(dataclasses.replace(record, hash=hash_of(record)))

    async def anchor(self) -> Anchor | None:
        return None

    async def newest(self) -> StoredRecord | None:
        if self.away:
            raise ServiceError(ErrorReason.AUDIT_UNAVAILABLE)
        return self.rows[-1] if self.rows else None

    async def at(self, sequence: int) -> StoredRecord | None:
        return next((row for row in self.rows if row.sequence == sequence), None)

    async def after(self, sequence: int, until_sequence: int, limit: int) -> list[StoredRecord]:
        return [row for row in self.rows if sequence < row.sequence <= until_sequence][:limit]


class Noted:
    """A security log that keeps its lines."""

    def __init__(self) -> None:
        self.events: list[SecurityEvent] = []

    def note(self, event: SecurityEvent) -> None:
        self.events.append(event)


def watch_of(records: Any, noted: Noted, interval_s: float = 1.0) -> tuple[TrailWatch, CollectorRegistry]:
    registry = CollectorRegistry()
    return TrailWatch(records, noted, registry, interval_s=interval_s), registry


async def test_records_that_go_while_they_are_proved_are_missing() -> None:
    records = Records(5)
    del records.rows[3:]
    verdict = await verify(records, 5)
    assert (verdict.records, verdict.broken, verdict.problem) == (3, 4, "record 4 is missing")


async def test_a_known_record_that_is_gone_is_missing() -> None:
    records = Records(5)
    known = Head(3, records.rows[2].hash)
    del records.rows[2]
    assert await known_problem(records, known, 5) == "record 3 was known and is missing"


async def test_the_watch_of_an_empty_trail_proves_its_first_records() -> None:
    records, noted = Records(0), Noted()
    watch, registry = watch_of(records, noted)
    await watch.look()
    assert watch.has_looked
    records.add()
    records.add()
    await watch.look()
    await watch.look()
    assert registry.get_sample_value("pincex_audit_head_sequence") == 2
    assert registry.get_sample_value("pincex_audit_proved_records_total") == 2
    assert noted.events == []


async def test_the_watch_tells_of_a_record_that_does_not_follow_and_goes_on_telling() -> None:
    records, noted = Records(2), Noted()
    watch, registry = watch_of(records, noted)
    await watch.look()
    records.add()
    records.rows[2] = dataclasses.replace(records.rows[2], actor="forged")
    await watch.look()
    await watch.look()
    assert [event.details.partition(" is not")[0] for event in noted.events] == ["record 3: record 3"] * 2
    assert registry.get_sample_value("pincex_audit_intact") == 0


async def test_the_watch_waits_for_a_database_that_is_away() -> None:
    records, noted = Records(1), Noted()
    records.away = True
    watch, registry = watch_of(records, noted, interval_s=0.001)
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(0.01)
    assert not watch.has_looked
    records.away = False
    await until(lambda: registry.get_sample_value("pincex_audit_head_sequence") == 1)
    running.cancel()


async def test_a_proof_that_runs_ends_with_the_process() -> None:
    reader: Any = Records(1)
    verification = SharedVerification(reader)
    await verification.close()
    waiting = asyncio.create_task(verification.verdict())
    await asyncio.sleep(0)
    await verification.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_without_a_database_it_does_not_start() -> None:
    with pytest.raises(ConfigError, match="PINCEX_AUDIT_DATABASE_URL is not set, and neither is DATABASE_URL"):
        Config.read(Environment({}))
    assert Config.read(Environment({"DATABASE_URL": "postgresql://audit_user@db/pincex"})).watch_s == 30.0

"""The chain in PostgreSQL: who may do what with it, and that every tampering is found at its record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from exchange.admin import chain
from exchange.admin.chain import Head, known_problem
from exchange.runtime.audit.hashing import StoredRecord, encoded, hash_of
from tests.integration.audit.trails import Trail, append, stored_trail
from tests.postgres_fixture import Database

RECORDS = 12


@pytest_asyncio.fixture
async def trail(database: Database) -> AsyncIterator[Trail]:
    await append(database.auth_url, RECORDS)
    async with stored_trail(database) as trail:
        yield trail


async def test_what_the_database_hashes_is_what_python_hashes(trail: Trail) -> None:
    verdict = await trail.verdict()
    assert (verdict.records, verdict.broken) == (RECORDS, 0)
    connection = await asyncpg.connect(trail.database.admin_url)
    in_sql = await connection.fetchval(
        "SELECT audit_hash(ROW(7, '5f0c1f1e-7d3a-4d52-9a0b-6a1d4a3f0c01', '1969-12-31 23:59:59.999999+00', "
        "'2286-11-20 17:46:40.000001+00', 'Zoë', '', 'a', 'b', 'c', 'd', 'e', 'f', '日本', 'h', 'i', 'j', "
        "decode(repeat('ab', 32), 'hex'), '')::audit_records)"
    )
    await connection.close()
    texts = ("Zoë", "", "a", "b", "c", "d", "e", "f", "日本", "h", "i", "j")
    record = StoredRecord(
        7, "5f0c1f1e-7d3a-4d52-9a0b-6a1d4a3f0c01", -1, 10_000_000_000_000_001, *texts, bytes([0xAB]) * 32, b""
    )
    assert in_sql == hash_of(record)
    assert "日本".encode() in encoded(record)


async def test_a_record_tells_as_which_role_its_writer_had_signed_in(trail: Trail) -> None:
    await append(trail.database.trading_url, 1)
    roles = [record.writer_role for record in await trail.reader.after(RECORDS - 1, RECORDS + 1, 10)]
    assert roles == ["auth_user", "trading_user"]


REFUSED = [
    ("trading_user", "SELECT count(*) FROM audit_records"),
    ("trading_user", "INSERT INTO audit_records SELECT * FROM audit_records"),
    ("trading_user", "SELECT audit_hash(NULL)"),
    ("auth_user", "SELECT count(*) FROM audit_records"),
    ("auth_user", "DELETE FROM audit_records"),
    ("audit_user", "DELETE FROM audit_records"),
    ("audit_user", "UPDATE audit_records SET actor = 'x'"),
    ("audit_user", "SELECT audit_append(gen_random_uuid(), now(), 'ENDED', '', '', '', '', '', '', '', '', '', '')"),
    ("audit_user", "SELECT * FROM users"),
    ("audit_user", "SELECT private_key FROM auth_signing_keys"),
    ("admin", "UPDATE audit_records SET actor = 'x'"),
    ("admin", "DELETE FROM audit_records WHERE sequence = 12"),
    ("admin", "TRUNCATE audit_records"),
]


async def test_nobody_alters_the_trail_and_only_the_admin_service_reads_it(trail: Trail) -> None:
    for role, statement in REFUSED:
        connection = await asyncpg.connect(trail.database.server.url(trail.database.name, role))
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        finally:
            await connection.close()
    assert (await trail.verdict()).records == RECORDS


async def test_the_owner_s_replication_role_does_not_get_past_the_triggers(trail: Trail) -> None:
    connection = await asyncpg.connect(trail.database.server.url(trail.database.name, "postgres"))
    try:
        await connection.execute("SET session_replication_role = replica")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await connection.execute("UPDATE audit_records SET actor = 'x'")
    finally:
        await connection.close()


async def test_a_record_that_is_sent_again_stands_once(trail: Trail) -> None:
    connection = await asyncpg.connect(trail.database.auth_url)
    sent = (
        "SELECT * FROM audit_append('5f0c1f1e-7d3a-4d52-9a0b-6a1d4a3f0c01', now(), 'BEGUN', '', '', '', '', '', '', '', "
        "'', '', '')"
    )
    first = await connection.fetchrow(sent)
    await append(trail.database.auth_url, 1)
    assert await connection.fetchrow(sent) == first
    await connection.close()
    assert (await trail.verdict()).records == RECORDS + 2


async def test_an_append_that_is_rolled_back_leaves_no_gap(trail: Trail) -> None:
    connection = await asyncpg.connect(trail.database.auth_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        "SELECT audit_append(gen_random_uuid(), now(), 'BEGUN', '', '', '', '', '', '', '', '', '', '')"
    )
    other = asyncio.create_task(append(trail.database.trading_url, 3))
    await transaction.rollback()
    await other
    await connection.close()
    verdict = await trail.verdict()
    assert (verdict.head.sequence, verdict.broken) == (RECORDS + 3, 0)


TEXTS = ["writer_role", "service", "instance", "action", "actor", "credential", "address", "details", "reason"]
ALTERED = [
    *(f"UPDATE audit_records SET {column} = {column} || 'x' WHERE sequence = 5" for column in TEXTS),
    "UPDATE audit_records SET request_id = '' WHERE sequence = 5",
    "UPDATE audit_records SET outcome = 'PERMISSION_DENIED' WHERE sequence = 5",
    "UPDATE audit_records SET phase = 'ENDED' WHERE sequence = 5",
    "UPDATE audit_records SET record_id = gen_random_uuid() WHERE sequence = 5",
    "UPDATE audit_records SET record_time = record_time + interval '1 microsecond' WHERE sequence = 5",
    "UPDATE audit_records SET store_time = store_time - interval '1 day' WHERE sequence = 5",
    "UPDATE audit_records SET prev_hash = sha256('x') WHERE sequence = 5",
    "UPDATE audit_records SET hash = sha256('x') WHERE sequence = 5",
    "UPDATE audit_records SET actor = 'ab', credential = 'ctoken' WHERE sequence = 5",
]


async def test_an_altered_record_is_named_whatever_was_altered(trail: Trail) -> None:
    trail.tamper("CREATE TABLE saved AS SELECT * FROM audit_records WHERE sequence = 5")
    for statement in ALTERED:
        trail.tamper(statement)
        verdict = await trail.verdict()
        assert (verdict.broken, verdict.records) == (5, 4), statement
        assert verdict.problem.startswith("record 5 is not what was hashed")
        trail.tamper("DELETE FROM audit_records WHERE sequence = 5", "INSERT INTO audit_records SELECT * FROM saved")
        assert (await trail.verdict()).broken == 0


@pytest.mark.parametrize("gone", ["= 1", "= 5", "BETWEEN 5 AND 7"])
async def test_a_removed_record_is_named(trail: Trail, gone: str) -> None:
    trail.tamper(f"DELETE FROM audit_records WHERE sequence {gone}")
    verdict = await trail.verdict()
    assert verdict.broken == (1 if gone == "= 1" else 5)
    assert "missing" in verdict.problem


async def test_a_gap_that_was_closed_is_found_where_it_was(trail: Trail) -> None:
    trail.tamper(
        "DELETE FROM audit_records WHERE sequence = 5",
        "UPDATE audit_records SET sequence = sequence + 100 WHERE sequence > 5",
        "UPDATE audit_records SET sequence = sequence - 101 WHERE sequence > 100",
    )
    assert (await trail.verdict()).broken == 5


async def test_reordered_records_are_found_at_the_first(trail: Trail) -> None:
    trail.tamper(
        "UPDATE audit_records SET sequence = 1000 WHERE sequence = 5",
        "UPDATE audit_records SET sequence = 5 WHERE sequence = 6",
        "UPDATE audit_records SET sequence = 6 WHERE sequence = 1000",
    )
    assert (await trail.verdict()).broken == 5


COPY = (
    "INSERT INTO audit_records SELECT {sequence}, gen_random_uuid(), record_time, store_time, writer_role, phase, service, "
    "instance, action, 'forged', credential, address, details, reason, request_id, outcome, {prev}, hash "
    "FROM audit_records WHERE sequence = 5"
)


async def test_an_inserted_record_is_found_wherever_it_was_put(trail: Trail) -> None:
    trail.tamper(
        "UPDATE audit_records SET sequence = sequence + 100 WHERE sequence > 5",
        "UPDATE audit_records SET sequence = sequence - 99 WHERE sequence > 100",
        COPY.format(sequence=6, prev="hash"),
    )
    assert (await trail.verdict()).broken == 6


async def test_a_record_put_behind_the_end_without_the_function_is_found(trail: Trail) -> None:
    trail.tamper(COPY.format(sequence=RECORDS + 1, prev=f"(SELECT hash FROM audit_records WHERE sequence = {RECORDS})"))
    assert (await trail.verdict()).broken == RECORDS + 1


async def test_a_record_that_was_altered_and_hashed_anew_is_found_at_the_one_after(trail: Trail) -> None:
    trail.tamper(
        "UPDATE audit_records SET actor = 'forged' WHERE sequence = 5",
        "UPDATE audit_records r SET hash = audit_hash(r) WHERE sequence = 5",
    )
    verdict = await trail.verdict()
    assert verdict.broken == 6
    assert "does not follow record 5" in verdict.problem


async def test_a_head_that_was_written_down_shows_a_cut_end_and_a_new_chain(trail: Trail) -> None:
    known = (await trail.verdict()).head
    assert await known_problem(trail.reader, known, known.sequence) == ""
    trail.tamper(f"DELETE FROM audit_records WHERE sequence > {RECORDS - 2}")
    cut = await trail.verdict()
    # The chain itself cannot know that it was longer.
    assert (cut.broken, cut.records) == (0, RECORDS - 2)
    assert "its end was cut off" in await known_problem(trail.reader, known, cut.head.sequence)
    await append(trail.database.auth_url, 5)
    anew = await trail.verdict()
    assert (anew.broken, anew.records) == (0, RECORDS + 3)
    assert "the trail was written anew" in await known_problem(trail.reader, known, anew.head.sequence)


async def test_a_verification_reads_page_after_page(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "PAGE_RECORDS", 5)
    assert (await trail.verdict()).records == RECORDS
    trail.tamper(f"UPDATE audit_records SET actor = 'x' WHERE sequence = {RECORDS}")
    assert (await trail.verdict()).broken == RECORDS
    # From a head that was proved before, what came after it.
    ninth = await trail.reader.at(9)
    assert ninth is not None
    later = await chain.verify(trail.reader, RECORDS, Head(9, ninth.hash))
    assert (later.records, later.broken) == (2, RECORDS)

"""What a record's hash covers, and the vectors that docs/AUDIT.md publishes."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from exchange.runtime.audit.hashing import GENESIS, StoredRecord, encoded, hash_of
from tests.unit.docs.tables import document

FIRST = StoredRecord(
    sequence=1,
    record_id="5f0c1f1e-7d3a-4d52-9a0b-6a1d4a3f0c01",
    record_micros=1_764_066_000_123_456,
    store_micros=1_764_066_000_124_000,
    writer_role="auth_user",
    phase="BEGUN",
    service="auth-service",
    instance="auth-service-1",
    action="pincex.auth.v1.AuthAdminService/UnlockAccount",
    actor="100001",
    credential="token",
    address="127.0.0.1",
    details='{"user_id":"100007"}',
    reason="identity checked by telephone",
    request_id="r-1",
    outcome="",
    prev_hash=GENESIS,
    hash=b"",
)


def vectors() -> list[dict[str, Any]]:
    found = re.search(r"```json\n(\[.*?\])\n```", document("docs/AUDIT.md"), re.DOTALL)
    assert found is not None
    listed: list[dict[str, Any]] = json.loads(found[1])
    return listed


def stored(vector: dict[str, Any]) -> StoredRecord:
    hashes = {name: bytes.fromhex(vector[name]) for name in ("prev_hash", "hash")}
    return StoredRecord(**{**vector, **hashes})


def test_the_published_vectors_have_their_hashes_and_form_a_chain() -> None:
    records = [stored(vector) for vector in vectors()]
    assert len(records) == 2
    assert not all(text.isascii() for text in (records[1].reason, records[1].details))
    assert [hash_of(record) for record in records] == [record.hash for record in records]
    assert [record.prev_hash for record in records] == [GENESIS, records[0].hash]


def test_the_bytes_are_those_that_the_document_describes() -> None:
    data = encoded(FIRST)
    assert data.startswith(b"\0\0\0\x0ePINCEX-AUDIT-1" + bytes(32) + (1).to_bytes(8, "big"))
    assert data.endswith(b"\0\0\0\x03r-1" + b"\0\0\0\0")


CHANGED: dict[type, Any] = {int: 7, str: "x", bytes: bytes(31) + b"\1"}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(StoredRecord) if field.name != "hash"])
def test_every_field_is_covered(name: str) -> None:
    changed = dataclasses.replace(FIRST, **{name: CHANGED[type(getattr(FIRST, name))]})
    assert hash_of(changed) != hash_of(FIRST)


def test_no_text_can_be_moved_into_its_neighbour() -> None:
    split = dataclasses.replace(FIRST, actor="1000", credential="01token")
    assert split.actor + split.credential == FIRST.actor + FIRST.credential
    assert hash_of(split) != hash_of(FIRST)

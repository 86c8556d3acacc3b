"""What a record may hold, whatever its writer was given."""

from __future__ import annotations

import json

from exchange.runtime.audit.contract import AuditEntry
from exchange.runtime.audit.records import BEGUN, MAX_DETAILS_BYTES, Writer, clean, safe_details

WRITER = Writer("auth-service", "auth-service-1")


def entry(*, details: str = "{}", reason: str = "", actor: str = "100001") -> AuditEntry:
    return AuditEntry("a.Service/Method", actor, "token", "127.0.0.1", details, reason, "r-1")


def test_a_text_is_cut_by_bytes_and_stays_what_the_database_can_hold() -> None:
    assert clean("plain", 16) == "plain"
    assert clean("a\0b\ud800c", 16) == "a\N{REPLACEMENT CHARACTER}b?c"
    cut = clean("é" * 100, 32)
    assert cut == "é" * 14 + "..."
    assert len(cut.encode()) <= 32


def test_every_limit_of_the_table_holds() -> None:
    long = "ü" * 20_000
    record = WRITER.record(BEGUN, AuditEntry(long, long, long, long, json.dumps({"x": long}), long, long), long)
    sizes = {
        name: len(getattr(record, name).encode())
        for name in ("action", "actor", "credential", "address", "reason", "request_id", "outcome")
    }
    assert sizes == {
        "action": 255,
        "actor": 255,
        "credential": 511,
        "address": 127,
        "reason": 2_047,
        "request_id": 127,
        "outcome": 127,
    }
    assert len(record.details.encode()) <= MAX_DETAILS_BYTES


def test_details_that_are_too_large_become_their_beginning_and_stay_json() -> None:
    for filling in ("x", '"', "\1", "é"):
        safe = safe_details(json.dumps({"text": filling * MAX_DETAILS_BYTES}))
        assert len(safe.encode()) <= MAX_DETAILS_BYTES
        assert json.loads(safe)["cut"].startswith('{"text":')


def test_secrets_are_cut_out_of_details_at_any_depth() -> None:
    given = {
        "password": "planted-1",
        "login": {"newPassword": "planted-2", "codes": [{"totp_code": "planted-3"}]},
        "refresh_token": "planted-4",
        "api_key": "ak_public",
        "cause": "PASSWORD_FORGOTTEN",
        "code": "BTC",
        "reason": "curl -H 'Authorization: Bearer planted-5'",
        "secret": "",
    }
    safe = safe_details(json.dumps(given))
    assert "planted" not in safe
    kept = json.loads(safe)
    assert kept["api_key"] == "ak_public"
    assert (kept["cause"], kept["code"]) == ("PASSWORD_FORGOTTEN", "BTC")
    assert kept["secret"] == ""


def test_a_reason_loses_tokens_and_passwords_of_urls() -> None:
    record = WRITER.record(BEGUN, entry(reason="curl -H 'Bearer abc.def' postgresql://u:planted@db/x"), "")
    assert "abc.def" not in record.reason
    assert "planted" not in record.reason
    assert record.reason.startswith("curl")


def test_details_that_are_no_json_are_a_text() -> None:
    record = WRITER.record(BEGUN, entry(details="not json: Bearer abcdef"), "")
    assert json.loads(record.details) == "not json: Bearer [redacted]"
    assert json.loads(safe_details("[" * 100_000)).keys() == {"cut"}


def test_a_line_is_one_line_of_ascii_json_with_the_whole_record() -> None:
    record = WRITER.record(BEGUN, entry(details='{"note":"two\\nlines \\ud800"}', actor="Zoë\n"), "")
    line = record.line(7, bytes(32))
    assert line.isascii()
    assert line.count(b"\n") == 1
    told = json.loads(line)
    assert told["actor"] == "Zoë\n"
    assert told["details"] == {"note": "two\nlines ?"}
    assert (told["sequence"], told["hash"]) == (7, "00" * 32)
    assert "sequence" not in json.loads(record.line())

"""The table of errors against the contract, and what an error looks like on the wire."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from exchange.runtime.error_catalogue import render_error_catalogue
from exchange.runtime.error_table import HTTP_STATUS, ROWS
from exchange.runtime.errors import (
    ErrorReason,
    FieldViolation,
    QuotaViolation,
    ServiceError,
    code_of,
    message_of,
    reject,
    row_of,
)

CODES = "|".join(code.name for code in grpc.StatusCode)


@dataclass(frozen=True)
class Promise:
    """What the comment of one value says."""

    name: str
    code: str
    metadata: tuple[str, ...]
    retry_info: bool
    quota_failure: bool
    http: int | None


def promises(proto: str) -> Iterator[Promise]:
    section_code, comment = "", ""
    for line in map(str.strip, proto[proto.index("enum ErrorReason") :].splitlines()):
        if line.startswith("// ---"):
            section = re.search(rf"\(({CODES}) unless said otherwise\)", line)
            section_code = section.group(1) if section else ""
        elif line.startswith("//"):
            comment += " " + line.removeprefix("//").strip()
        elif value := re.match(r"([A-Z_0-9]+) = \d+;", line):
            said = re.search(rf"\(({CODES})\b([^)]*)\)", comment)
            keys = re.search(r"Metadata: (.*?)\.(?:\s|$)", comment + " ")
            http = re.search(r"HTTP (\d+)", comment)
            yield Promise(
                name=value.group(1),
                code=said.group(1) if said else section_code,
                metadata=tuple(re.findall(r"`(\w+)`", keys.group(1))) if keys else (),
                retry_info="with RetryInfo" in comment,
                quota_failure="with QuotaFailure" in comment,
                http=int(http.group(1)) if http else None,
            )
            comment = ""


@pytest.fixture(scope="module")
def contract() -> list[Promise]:
    proto = Path(__file__).parents[3] / "proto/pincex/common/v1/errors.proto"
    return list(promises(proto.read_text(encoding="utf-8")))


def test_every_reason_has_one_row_and_zero_has_none():
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))
    assert set(names) == set(ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}
    with pytest.raises(KeyError):
        row_of(ErrorReason.ERROR_REASON_UNSPECIFIED)


def test_the_comments_are_read_whole(contract):
    """Guards the guard: the parser sees each value, and a few known ones rightly."""
    assert {promise.name for promise in contract} == set(ErrorReason.keys())
    by_name = {promise.name: promise for promise in contract}
    assert by_name["PRICE_OFF_TICK"] == Promise(
        "PRICE_OFF_TICK", "INVALID_ARGUMENT", ("field", "value", "tick_size"), False, False, None
    )
    assert by_name["OVERLOADED"].retry_info
    assert by_name["BODY_TOO_LARGE"].http == 413
    assert {name for name, promise in by_name.items() if not promise.code} == {"ERROR_REASON_UNSPECIFIED"}


def test_each_row_says_what_the_contract_says(contract):
    for promise in contract:
        if promise.name == "ERROR_REASON_UNSPECIFIED":
            continue
        row = row_of(ErrorReason.Value(promise.name))
        assert (
            row.name,
            row.code.name,
            row.metadata,
            row.retry_after_seconds is not None,
            row.quota,
            row.http_status,
        ) == (
            promise.name,
            promise.code,
            promise.metadata,
            promise.retry_info,
            promise.quota_failure,
            promise.http or HTTP_STATUS[row.code],
        )


def test_the_catalogue_is_fresh():
    written = (Path(__file__).parents[3] / "docs/ERRORS.md").read_text(encoding="utf-8")
    assert written == render_error_catalogue(), "write docs/ERRORS.md from render_error_catalogue()"


def unpack(error: ServiceError) -> dict[str, Any]:
    ((key, data),) = error.trailing_metadata()
    assert key == "grpc-status-details-bin"
    status = status_pb2.Status.FromString(data)
    assert status.code == error.code.value[0]
    assert status.message == error.message
    found: dict[str, Any] = {}
    for detail in status.details:
        name = detail.TypeName().rpartition(".")[2]
        message = getattr(error_details_pb2, name)()
        assert detail.Unpack(message)
        found[name] = message
    return found


def test_reject_raises_with_metadata_as_text():
    with pytest.raises(ServiceError) as caught:
        reject(ErrorReason.BATCH_TOO_LARGE, limit=1000)
    error = caught.value
    assert error.metadata == {"limit": "1000"}
    assert error.message == "the batch holds more commands than the limit (limit=1000)"
    assert error.reason == ErrorReason.BATCH_TOO_LARGE
    assert error.reason_name == "BATCH_TOO_LARGE"
    assert repr(error).startswith("ServiceError(BATCH_TOO_LARGE")


def test_a_wrong_field_is_a_bad_request_without_saying_it_twice():
    details = unpack(ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": "symbol"}))
    assert list(details) == ["ErrorInfo", "BadRequest"]
    assert details["ErrorInfo"].reason == "FIELD_REQUIRED"
    assert details["ErrorInfo"].domain == "pincex"
    assert [violation.field for violation in details["BadRequest"].field_violations] == ["symbol"]


def test_given_violations_stand_instead():
    details = unpack(
        ServiceError(
            ErrorReason.INVALID_FIELD,
            "two fields are wrong",
            field_violations=[FieldViolation("a", "too short"), FieldViolation("b", "too long")],
        )
    )
    assert [violation.description for violation in details["BadRequest"].field_violations] == ["too short", "too long"]


def test_retry_info_has_the_tables_delay_or_the_given_one():
    assert unpack(ServiceError(ErrorReason.OVERLOADED))["RetryInfo"].retry_delay.ToMilliseconds() == 100
    given = ServiceError(ErrorReason.MAINTENANCE, retry_after_seconds=2.5)
    assert unpack(given)["RetryInfo"].retry_delay.ToMilliseconds() == 2500
    assert "RetryInfo" not in unpack(ServiceError(ErrorReason.MAINTENANCE))


def test_a_quota_names_its_subject():
    details = unpack(ServiceError(ErrorReason.QUOTA_EXCEEDED, metadata={"limit": "orders_per_second"}))
    assert details["QuotaFailure"].violations[0].subject == "orders_per_second"
    given = ServiceError(ErrorReason.QUOTA_EXCEEDED, quota_violations=[QuotaViolation("account:demo", "10 a second")])
    assert unpack(given)["QuotaFailure"].violations[0].subject == "account:demo"


@pytest.mark.parametrize("hostile", ["x" * 4_000_000, "\U0001f4a3" * 100_000, "\ud800" * 5_000, "a\x00b\r\n"])
def test_what_a_caller_sent_never_makes_an_error_too_large_for_metadata(hostile):
    error = ServiceError(
        ErrorReason.INVALID_FIELD,
        metadata={f"key_{number}": hostile for number in range(20)} | {"field": hostile},
        field_violations=[FieldViolation(hostile, hostile)] * 100,
        quota_violations=[QuotaViolation(hostile, hostile)] * 100,
    )
    ((_, data),) = error.trailing_metadata()
    assert len(data) < 6_000
    assert len(error.message.encode()) <= 320


def test_codes_and_sentences_are_looked_up_by_number():
    assert code_of(ErrorReason.DUPLICATE_ID) is grpc.StatusCode.ALREADY_EXISTS
    assert message_of(ErrorReason.MARKET_HALTED) == "the market is halted"
    with pytest.raises(KeyError):
        ServiceError(9_999)

"""The seal of a frame: fixed for all versions to come, and sensitive to every bit."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.trading.journal.contract import GENESIS_HASH, Frame, JournalCorrupt
from tests.unit.journal.frames import chain, next_frame

int64 = st.integers(-(2**63), 2**63 - 1)
NUMBERS = ["shard", "first_sequence", "last_sequence", "epoch", "time_ns", "format_version", "rules_version"]
BYTES = ["commands", "events", "digest", "prev_hash", "hash"]


def changed(frame: Frame, field: str, value: Any) -> Frame:
    return replace(frame, **{field: value})


def test_the_genesis_hash_and_the_seal_never_change() -> None:
    # Journals in the field hold these hashes: a change here is a change of format.
    assert GENESIS_HASH.hex() == "41c2b998331700 84fc159148960fdb8bfb2bcf9850d884737d80e3eb1e5396af".replace(" ", "")
    frame = Frame.seal(
        shard=0,
        first_sequence=1,
        last_sequence=2,
        epoch=1,
        time_ns=5,
        commands=b"a",
        events=b"b",
        digest=bytes(32),
        prev_hash=GENESIS_HASH,
        format_version=1,
        rules_version=1,
    )
    assert frame.hash.hex() == "708b84a3b731cc52bb476a7ca54b131d464a926c05a11ad5be15ab69d69f6f3c"


def test_the_fields_of_this_test_are_all_fields() -> None:
    assert {field.name for field in fields(Frame)} == {*NUMBERS, *BYTES}


@given(field=st.sampled_from(NUMBERS), value=int64)
def test_a_changed_number_is_noticed(field: str, value: int) -> None:
    frame = next_frame(commands=3)
    if getattr(frame, field) == value:
        return
    with pytest.raises(JournalCorrupt):
        changed(frame, field, value).verify()


@given(field=st.sampled_from(BYTES), data=st.data())
def test_a_flipped_bit_is_noticed(field: str, data: st.DataObject) -> None:
    frame = next_frame(commands=3)
    content = bytearray(getattr(frame, field))
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8
    with pytest.raises(JournalCorrupt, match="shard 0, sequence 1"):
        changed(frame, field, bytes(content)).verify()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_sequence": 0}, "from 1 on"),
        ({"last_sequence": 4}, "at least one sequence"),
        ({"last_sequence": 2**63}, "at least one sequence"),
        ({"digest": b"short"}, "32 bytes"),
        ({"prev_hash": b""}, "32 bytes"),
        ({"prev_hash": GENESIS_HASH}, "GENESIS_HASH"),
        ({"first_sequence": 1}, "GENESIS_HASH"),
    ],
)
def test_a_frame_out_of_range_is_not_sealed(change: dict[str, Any], message: str) -> None:
    frame = chain(3)[2]
    given_fields = {field.name: getattr(frame, field.name) for field in fields(Frame) if field.name != "hash"}
    Frame.seal(**given_fields)
    with pytest.raises(ValueError, match=message):
        Frame.seal(**{**given_fields, **change})


def test_an_overlap_is_named() -> None:
    first, second = chain(2, commands=3)
    with pytest.raises(JournalCorrupt, match=r"sequence 4: the frame 4\.\.6 overlaps the one that ends at 5"):
        second.check_follows(5, first.hash)

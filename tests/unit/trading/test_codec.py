"""The journal's format: what goes in comes out, and what this build cannot read is refused by name."""

import zlib

import msgspec
import pytest

from exchange.trading import codec
from exchange.trading.bootstrap import development_commands
from exchange.trading.core import commands as cmd
from exchange.trading.core.constants import RULES_VERSION
from exchange.trading.core.engine import Engine
from exchange.trading.journal.contract import JournalError
from tests.unit.trading.sequencer_rig import order

pytestmark = pytest.mark.core

EXTREMES = [0, 1, -1, 2**31, 2**62, -(2**63), 2**63 - 1]


def test_commands_come_back_as_the_tuples_that_went_in():
    commands = [
        *development_commands(),
        order("é-\N{SNOWMAN}", expire_ns=2**62),
        cmd.update_market("operator", 0, {9: 5, 10: 7}),
        cmd.set_switch("operator", 1, on=False),
        *((number, "", "", 0, "", 0) for number in EXTREMES),
    ]
    decoded = codec.decode_commands(codec.encode_commands(commands))
    assert decoded == commands
    assert {type(command) for command in decoded} == {tuple}


def test_the_same_events_give_the_same_bytes_and_digest():
    engine, again = Engine(), Engine()
    digests = [codec.GENESIS_DIGEST, codec.GENESIS_DIGEST]
    for place, core in enumerate((engine, again)):
        for sequence, command in enumerate([*development_commands(), order("a"), order("b", side=2)], 1):
            events = codec.encode_events([core.apply(sequence, 1_000, command)])
            digests[place] = codec.next_digest(digests[place], events)
    assert digests[0] == digests[1] != codec.GENESIS_DIGEST


def test_the_digest_covers_every_event_byte_and_the_digest_before_it():
    events = codec.encode_events([[(1, 2, "demo")]])
    digest = codec.next_digest(codec.GENESIS_DIGEST, events)
    assert codec.next_digest(codec.GENESIS_DIGEST, codec.encode_events([[(1, 3, "demo")]])) != digest
    assert codec.next_digest(digest, events) != digest


def test_a_snapshot_comes_back_with_the_same_state_hash():
    engine = Engine()
    for sequence, command in enumerate([*development_commands(), order("a"), order("b", side=2)], 1):
        engine.apply(sequence, 1_000 * sequence, command)
    packed = codec.encode_snapshot(engine.snapshot())
    assert Engine.restore(codec.decode_snapshot(packed)).state_hash() == engine.state_hash()


@pytest.mark.parametrize("data", [b"", b"\x93\x01", b"\xc0", b"\x81\xa1a\x01"])
def test_bytes_that_are_no_commands_are_refused(data):
    with pytest.raises(msgspec.DecodeError):
        codec.decode_commands(data)


def test_bytes_that_are_no_snapshot_are_refused():
    with pytest.raises(zlib.error):
        codec.decode_snapshot(b"not compressed")


@pytest.mark.parametrize(
    ("format_version", "rules_version", "named"),
    [
        (0, 1, "its format is 0"),
        (2, 1, "its format is 2"),
        (1, 0, "its rules are 0"),
        (1, RULES_VERSION + 1, f"its rules are {RULES_VERSION + 1}, this build knows 1 to {RULES_VERSION}"),
    ],
)
def test_versions_that_this_build_does_not_know_are_refused_by_name(format_version, rules_version, named):
    with pytest.raises(codec.UnsupportedVersion, match=f"frame 7..9: {named}"):
        codec.check_versions(format_version, rules_version, "frame 7..9")
    assert issubclass(codec.UnsupportedVersion, JournalError)


def test_versions_that_this_build_knows_pass():
    for rules_version in range(1, RULES_VERSION + 1):
        codec.check_versions(1, rules_version, "frame 1..1")

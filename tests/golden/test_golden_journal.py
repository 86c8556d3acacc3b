"""Journals that exchanges have written stay readable, and mean what they meant."""

from hashlib import sha256

import pytest

from exchange.trading import codec, recovery
from exchange.trading.core import commands as cmd
from exchange.trading.core import events as ev
from exchange.trading.core import reasons
from exchange.trading.core.engine import Engine
from exchange.trading.core.invariants import check_market, check_money
from exchange.trading.journal.memory import MemoryJournal, MemoryStore
from tests.golden.golden_file import RULES, golden, read

pytestmark = pytest.mark.core

ALL_COMMANDS = set(range(cmd.PLACE, cmd.SET_RETENTION + 1))
ALL_EVENTS = set(range(ev.ORDER_ACCEPTED, ev.MASS_CANCELLED + 1))


@pytest.mark.parametrize("rules", RULES)
async def test_a_golden_journal_replays_to_the_recorded_hashes(rules):
    header, frames = read(golden(rules))
    recovered = await recovery.recover(MemoryJournal(MemoryStore(frames=frames)))
    engine = recovered.engine
    assert engine.state.sequence == header.sequence
    assert engine.state_hash() == header.state_hash
    assert {symbol: engine.book_hash(symbol) for symbol in header.book_hashes} == header.book_hashes
    assert sha256(b"".join(frame.events for frame in frames)).hexdigest() == header.events_sha256
    findings = [
        *check_money(engine.state),
        *(row for market in engine.state.markets for row in check_market(engine.state, market)),
    ]
    assert [finding for finding in findings if not finding[1]] == []


@pytest.mark.parametrize("rules", RULES)
async def test_a_snapshot_anywhere_in_a_golden_journal_leads_to_the_same_hash(rules):
    header, frames = read(golden(rules))
    journal = MemoryJournal(MemoryStore(frames=frames))
    for frame in frames[:: len(frames) // 12]:
        at = await recovery.recover(journal, to_sequence=frame.last_sequence)
        await journal.save_snapshot(recovery.take_snapshot(at, 0))
        recovered = await recovery.recover(journal)
        assert recovered.snapshot_sequence == frame.last_sequence
        assert recovered.engine.state_hash() == header.state_hash


@pytest.mark.parametrize("rules", RULES)
def test_a_golden_journal_has_every_kind_of_command_and_event(rules):
    _, frames = read(golden(rules))
    commands = [command for frame in frames for command in codec.decode_commands(frame.commands)]
    events = [event for frame in frames for events in codec.decode_events(frame.events) for event in events]
    assert {command[cmd.C_KIND] for command in commands} == ALL_COMMANDS
    assert {event[ev.E_KIND] for event in events} == ALL_EVENTS
    assert {event[ev.OC_REASON] for event in events if event[ev.E_KIND] == ev.ORDER_CANCELLED} >= {1, 2, 3, 4, 5, 6}
    refused = {event[ev.OR_REASON] for event in events if event[ev.E_KIND] == ev.ORDER_REJECTED}
    assert refused >= {reasons.INSUFFICIENT_FUNDS, reasons.TOO_MANY_OPEN_ORDERS}
    versions = {(frame.format_version, frame.rules_version) for frame in frames}
    assert versions == {(1, version) for version in range(1, rules + 1)}


@pytest.mark.parametrize("rules", RULES[1:])
def test_the_golden_journal_of_rules_goes_otherwise_under_the_rules_before(rules):
    """Else it would not notice if they were mixed up."""
    _, frames = read(golden(rules))
    first = next(at for at, frame in enumerate(frames) if frame.rules_version == rules)
    engine = Engine()
    assert all(_replays_alike(engine, frame) for frame in frames[: first + 1])
    assert engine.state.rules_version == rules
    engine.state.rules_version = rules - 1
    assert not all(_replays_alike(engine, frame) for frame in frames[first + 1 :])


def _replays_alike(engine, frame):
    commands = enumerate(codec.decode_commands(frame.commands), frame.first_sequence)
    events = [engine.apply(sequence, frame.time_ns, command) for sequence, command in commands]
    return codec.encode_events(events) == frame.events


def test_every_kind_of_command_and_event_is_counted():
    """A new kind needs a place in the golden journal."""
    assert {value for name, value in vars(cmd).items() if name.isupper() and "_" not in name[:2]} == ALL_COMMANDS
    engine = Engine()
    with pytest.raises(AssertionError):
        engine.apply(1, 1, (cmd.SET_RETENTION + 1, "", "", 0, "", 0))

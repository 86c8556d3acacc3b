"""A process that stands in for an older build: it reads what that build wrote, and names what it does not know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from exchange.trading import codec, recovery, rules
from exchange.trading.core import constants as c
from exchange.trading.journal.memory import MemoryJournal, MemoryStore
from tests.golden.golden_file import golden, read

pytestmark = pytest.mark.core


@contextmanager
def older_build() -> Iterator[None]:
    """The build before rules 2."""
    rules.restrict(1)
    try:
        yield
    finally:
        rules.restrict(c.RULES_VERSION)


def test_a_build_supports_its_newest_rules_and_all_before() -> None:
    assert rules.newest() == c.RULES_VERSION
    assert [version for version in range(-1, 9) if rules.supports(version)] == list(range(1, c.RULES_VERSION + 1))


def test_an_older_build_supports_fewer() -> None:
    with older_build():
        assert (rules.newest(), rules.supports(1), rules.supports(2)) == (1, True, False)


@pytest.mark.parametrize("version", [-1, 0, c.RULES_VERSION + 1])
def test_rules_that_nobody_has_written_cannot_be_asked_for(version: int) -> None:
    with pytest.raises(ValueError, match=f"this build knows 1 to {c.RULES_VERSION}"):
        rules.restrict(version)
    assert rules.newest() == c.RULES_VERSION


async def test_an_older_build_replays_a_journal_of_its_own_rules() -> None:
    header, frames = read(golden(1))
    with older_build():
        recovered = await recovery.recover(MemoryJournal(MemoryStore(frames=frames)))
    assert recovered.engine.state_hash() == header.state_hash


async def test_an_older_build_stops_at_the_frame_that_activates_newer_rules() -> None:
    _, frames = read(golden(2))
    first = next(frame for frame in frames if frame.rules_version == 2)
    journal = MemoryJournal(MemoryStore(frames=frames))
    named = f"frame {first.first_sequence}..{first.last_sequence}: its rules are 2, this build knows 1 to 1"
    with older_build(), pytest.raises(codec.UnsupportedVersion, match=named):
        await recovery.recover(journal)
    assert (await recovery.recover(journal)).engine.state.rules_version == 2


async def test_an_older_build_refuses_a_snapshot_of_newer_rules() -> None:
    _, frames = read(golden(2))
    journal = MemoryJournal(MemoryStore(frames=frames))
    whole = await recovery.recover(journal)
    await journal.save_snapshot(recovery.take_snapshot(whole, 0))
    with older_build(), pytest.raises(codec.UnsupportedVersion, match=r"snapshot at sequence \d+: its rules are 2"):
        await recovery.recover(journal)

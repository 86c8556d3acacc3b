"""What the controller of a pair does about what it sees, and what the state file says after it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from exchange.stack.errors import StackError
from exchange.stack.postgresql.controller import Action, Seen, decide
from exchange.stack.postgresql.state import STATE_FILE, PairState, Standby, load, save

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = Seen(Standby.IN_SYNC)
LOST = replace(WHOLE, standby_answers=False, standby_down=True, streaming=False)


@pytest.mark.parametrize(
    ("seen", "action"),
    [
        (WHOLE, Action.NOTHING),
        # The primary is gone.
        (replace(WHOLE, primary_down=True), Action.FAIL_OVER),
        (replace(WHOLE, primary_down=True, primary_hangs=True), Action.FAIL_OVER),
        # ... and nobody can take its place: it starts again by itself, unless it hangs.
        (replace(LOST, primary_down=True), Action.NOTHING),
        (replace(LOST, primary_down=True, primary_hangs=True), Action.RESTART_PRIMARY),
        (replace(WHOLE, primary_down=True, standby=Standby.FOLLOWING), Action.NOTHING),
        (replace(WHOLE, primary_down=True, primary_hangs=True, standby=Standby.FOLLOWING), Action.RESTART_PRIMARY),
        (replace(WHOLE, primary_down=True, standby=Standby.ABSENT), Action.NOTHING),
        # The standby is gone, or its word does not come.
        (LOST, Action.DEGRADE),
        (replace(WHOLE, standby_answers=False), Action.NOTHING),
        (replace(WHOLE, commits_stuck=True), Action.DEGRADE),
        # It comes back.
        (Seen(Standby.FOLLOWING), Action.ARM),
        (Seen(Standby.FOLLOWING, streaming=False), Action.NOTHING),
        (Seen(Standby.FOLLOWING, streaming=False, cut_off=True), Action.COPY_AGAIN),
        (Seen(Standby.ABSENT, streaming=False, cut_off=True), Action.NOTHING),
        # A fail-over was cut off between its two halves.
        (Seen(Standby.ABSENT, unpromoted=True), Action.FINISH_PROMOTION),
    ],
)
def test_only_a_standby_in_sync_takes_over_and_only_one_thing_is_done(seen: Seen, action: Action) -> None:
    assert decide(seen) is action


def test_no_combination_promotes_a_standby_that_may_lack_commits() -> None:
    for standby in (Standby.ABSENT, Standby.FOLLOWING):
        for bits in range(2**8):
            names = list(Seen.__dataclass_fields__)[1:]
            seen = Seen(standby, **{name: bool(bits >> place & 1) for place, name in enumerate(names)})
            assert decide(seen) is not Action.FAIL_OVER, seen


def test_a_fail_over_counts_the_primary_and_distrusts_the_former_one() -> None:
    state = PairState(3, 1, Standby.IN_SYNC).failed_over()
    assert state == PairState(4, 2, Standby.ABSENT)
    assert state.other == 1


def test_the_state_is_read_as_it_was_saved(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    for standby in Standby:
        state = PairState(7, 2, standby)
        save(tmp_path, state)
        assert load(tmp_path) == state


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"epoch": 1, "primary": 3, "standby": "absent"}', '{"epoch": 1, "primary": 1, "standby": "?"}'],
)
def test_a_state_that_cannot_be_read_is_never_guessed(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE_FILE).write_text(text)
    with pytest.raises(StackError, match="PostgreSQL is the primary"):
        load(tmp_path)

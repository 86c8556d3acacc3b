"""The monkey's verdict can fail: each thing that would be a broken promise is found, and ends the command with 1."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext

import pytest

from tests.chaos import __main__ as command
from tests.chaos.streams import compare_all
from tests.integration.recovery.load import Asked, Load, Told

DUE = ["5-1", "5-2", "9-1"]


def test_a_feed_that_told_all_once_is_sound() -> None:
    compare_all("trades", DUE, DUE, resets=0)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (["5-1", "9-1"], "1 of 3 were not told, and no gap was reported"),
        (["5-1", "5-2", "9-1", "9-1"], "1 were told twice"),
        (["5-1", "5-2", "9-1", "9-2"], r"told, and not in the journal: \['9-2'\]"),
    ],
)
def test_what_a_feed_leaves_out_doubles_or_makes_up_is_found(told: list[str], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        compare_all("trades", told, DUE, resets=0)


def test_only_a_reported_gap_may_leave_something_out() -> None:
    compare_all("trades", ["9-1"], DUE, resets=1)
    with pytest.raises(AssertionError, match="told twice"):
        compare_all("trades", ["9-1", "9-1"], DUE, resets=1)


def test_the_longest_wait_counts_from_the_fault_and_what_is_still_due() -> None:
    load = Load(engine=None, seed=1)  # type: ignore[arg-type]  # nothing is asked here

    def asked(at: float, told_at: float) -> Asked:
        async def never(_: object) -> Told:
            raise NotImplementedError

        return Asked("demo", placed=True, name="", ask=never, asked_at=at, told_at=told_at)

    load.asked = [asked(1.0, 4.0), asked(11.0, 12.5), asked(19.0, 0.0), asked(30.0, 39.0)]
    assert load.longest_wait(10.0, 20.0) == 1.5
    assert load.longest_wait(3.0, 5.0) == 1.0
    assert load.longest_wait(13.0, 25.0) == 6.0
    assert load.longest_wait(5.0, 10.0) == 0.0


@pytest.mark.parametrize("failure", [AssertionError("lost"), TimeoutError()])
def test_a_broken_promise_ends_the_command_with_1(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: object) -> None:
        await asyncio.sleep(0)
        raise failure

    monkeypatch.setattr(sys, "argv", ["chaos", "--seed", "77"])
    monkeypatch.setattr(command, "exchange_of", lambda *_, **__: nullcontext())
    monkeypatch.setattr(command, "logs_kept", lambda _: nullcontext())
    monkeypatch.setattr(command, "AtTheEdge", lambda _: None)
    monkeypatch.setattr(command, "run", broken)

    assert command.main() == 1
    assert "repeat with: --seed 77" in capsys.readouterr().err

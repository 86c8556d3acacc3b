"""The proof: the recorded flow of a real venue through the running exchange makes the venue's fills and book."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from pincex_client.replay.flow import FlowCommand, read_commands
from tests.e2e.real_flow import (
    DEADLINE_S,
    assert_whole,
    engine_sequence,
    replay_command,
    run,
    started,
    whole_flow,
)
from tests.stack_fixture import eventually

if TYPE_CHECKING:
    from tests.stack_fixture import ExchangeStack


def test_every_recorded_fill_and_the_final_book_are_equal(trading_stack: ExchangeStack, recorded_flow: Path) -> None:
    assert_whole(run(trading_stack, whole_flow(recorded_flow, "--symbol", "ESH4")))


def test_a_sigkill_of_the_engine_in_the_middle_changes_nothing(
    trading_stack: ExchangeStack, recorded_flow: Path
) -> None:
    before = engine_sequence(trading_stack)
    with started(trading_stack, whole_flow(recorded_flow, "--symbol", "ESKILL", "--rate", "4000")) as playing:
        # In the live part, with thousands of commands to come.
        eventually(lambda: engine_sequence(trading_stack) > before + 14_000, "half of the flow is played", DEADLINE_S)
        engine = trading_stack.instance("trading-engine-1")
        os.kill(engine["pid"], signal.SIGKILL)
        report = playing.report()
    assert_whole(report)
    assert report["reconnects"] >= 1, "the kill was felt"
    eventually(lambda: trading_stack.instance("trading-engine-1")["state"] == "ready", "the engine is back")


def test_a_changed_recording_is_found_out(trading_stack: ExchangeStack, recorded_flow: Path, tmp_path: Path) -> None:
    """A check that cannot fail is a defect."""
    rows = (recorded_flow / "es-part-a.commands.csv").read_text().splitlines()
    fills = (recorded_flow / "es-part-a.fills.csv").read_text().splitlines()
    commands, expected = tmp_path / "c.csv", tmp_path / "f.csv"
    commands.write_text("\n".join(rows[:9_500]) + "\n")
    kept = [fill for fill in fills[1:] if int(fill.split(",", 1)[0]) < 9_500]
    assert kept, "the part has fills"
    changed = kept[0].rsplit(",", 1)[0] + ",77"
    expected.write_text("\n".join([fills[0], changed, *kept[1:]]) + "\n")
    report = run(trading_stack, replay_command(commands, "--expect", str(expected), "--symbol", "ESX"), status=1)
    assert len(report["differences"]) == 1
    assert " 77 @ " in report["differences"][0]["expected"]


def test_a_replay_that_was_killed_itself_is_continued_by_its_run_id(
    trading_stack: ExchangeStack, recorded_flow: Path
) -> None:
    names = ("--symbol", "ESCUT", "--run-id", f"cut{os.getpid()}")
    before = engine_sequence(trading_stack)
    with started(trading_stack, whole_flow(recorded_flow, *names, "--rate", "4000")):
        eventually(lambda: engine_sequence(trading_stack) > before + 10_000, "a part of the flow is played", DEADLINE_S)
    assert_whole(run(trading_stack, whole_flow(recorded_flow, *names)))


def test_ticks_of_a_cent_and_lots_of_a_hundred_work(trading_stack: ExchangeStack, tmp_path: Path) -> None:
    commands, fills = tmp_path / "aapl.csv", tmp_path / "fills.csv"
    commands.write_text(
        "seq,ts_ns,kind,order_id,side,price,quantity,tif\n"
        "1,0,SEED,11,SELL,192.53,300,GTC\n"
        "2,0,SEED,12,SELL,192.53,100,GTC\n"
        "3,0,NEW,13,BUY,192.54,200,IOC\n"
        "4,0,REPLACE,11,SELL,192.53,400,\n"
        "5,0,NEW,14,BUY,192.53,200,GTC\n"
    )
    fills.write_text(
        "seq,aggressor_order_id,resting_order_id,price,quantity\n"
        "3,13,11,192.53,200\n"
        "5,14,12,192.53,100\n"
        "5,14,11,192.53,100\n"
    )
    flow: list[FlowCommand] = read_commands(commands)
    assert len(flow) == 5
    report = run(trading_stack, replay_command(commands, "--expect", str(fills)))
    assert (report["fills"], report["equal"]) == (3, True)

"""The proof: the recorded flow of a real venue through the running exchange makes the venue's fills and book."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pincex_client.replay.flow import FlowCommand, read_commands
from tests.stack_fixture import eventually

if TYPE_CHECKING:
    from tests.stack_fixture import ExchangeStack

DEADLINE_S = 110.0
COMMANDS, FILLS = 32_060, 2_872


def replay_command(commands: Path, *options: str) -> list[str]:
    code = "import sys; from pincex_client.cli import main; sys.exit(main())"
    return [sys.executable, "-c", code, "replay", str(commands), "--json", *options]


def whole_flow(folder: Path, *options: str) -> list[str]:
    fills, book = folder / "es-part-a.fills.csv", folder / "es-part-a.book.json"
    commands = folder / "es-part-a.commands.csv"
    return replay_command(commands, "--expect", str(fills), "--book", str(book), *options)


def run(stack: ExchangeStack, command: list[str], status: int = 0) -> Any:
    done = subprocess.run(
        command,
        env=dict(stack.folder.environment),
        cwd=stack.home.parent,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == status, done.stdout[-4_000:] + done.stderr[-4_000:]
    return json.loads(done.stdout)


def assert_whole(report: Any) -> None:
    assert report["differences"] == []
    assert (report["commands"], report["fills"], report["fills_compared"]) == (COMMANDS, FILLS, FILLS)
    assert (report["levels_compared"], report["refused"], report["equal"]) == (40, 0, True)


def test_every_recorded_fill_and_the_final_book_are_equal(exchange_stack: ExchangeStack, recorded_flow: Path) -> None:
    assert_whole(run(exchange_stack, whole_flow(recorded_flow, "--symbol", "ESH4")))


def test_a_sigkill_of_the_engine_in_the_middle_changes_nothing(
    exchange_stack: ExchangeStack, recorded_flow: Path
) -> None:
    before = engine_sequence(exchange_stack)
    process = subprocess.Popen(
        whole_flow(recorded_flow, "--symbol", "ESKILL", "--rate", "4000"),
        env=dict(exchange_stack.folder.environment),
        cwd=exchange_stack.home.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # In the live part, with thousands of commands to come.
        eventually(lambda: engine_sequence(exchange_stack) > before + 14_000, "half of the flow is played", DEADLINE_S)
        engine = exchange_stack.instance("trading-engine-1")
        os.kill(engine["pid"], signal.SIGKILL)
        out, err = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, out[-4_000:] + err[-4_000:]
    report = json.loads(out)
    assert_whole(report)
    assert report["reconnects"] >= 1, "the kill was felt"
    eventually(lambda: exchange_stack.instance("trading-engine-1")["state"] == "ready", "the engine is back")


def test_a_changed_recording_is_found_out(exchange_stack: ExchangeStack, recorded_flow: Path, tmp_path: Path) -> None:
    """A check that cannot fail is a defect."""
    rows = (recorded_flow / "es-part-a.commands.csv").read_text().splitlines()
    fills = (recorded_flow / "es-part-a.fills.csv").read_text().splitlines()
    commands, expected = tmp_path / "c.csv", tmp_path / "f.csv"
    commands.write_text("\n".join(rows[:9_500]) + "\n")
    kept = [fill for fill in fills[1:] if int(fill.split(",", 1)[0]) < 9_500]
    assert kept, "the part has fills"
    changed = kept[0].rsplit(",", 1)[0] + ",77"
    expected.write_text("\n".join([fills[0], changed, *kept[1:]]) + "\n")
    report = run(exchange_stack, replay_command(commands, "--expect", str(expected), "--symbol", "ESX"), status=1)
    assert len(report["differences"]) == 1
    assert " 77 @ " in report["differences"][0]["expected"]


def test_a_replay_that_was_killed_itself_is_continued_by_its_run_id(
    exchange_stack: ExchangeStack, recorded_flow: Path
) -> None:
    names = ("--symbol", "ESCUT", "--run-id", f"cut{os.getpid()}")
    before = engine_sequence(exchange_stack)
    first = subprocess.Popen(
        whole_flow(recorded_flow, *names, "--rate", "4000"),
        env=dict(exchange_stack.folder.environment),
        cwd=exchange_stack.home.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(
            lambda: engine_sequence(exchange_stack) > before + 10_000, "a part of the flow is played", DEADLINE_S
        )
    finally:
        first.kill()
        first.wait()
    assert_whole(run(exchange_stack, whole_flow(recorded_flow, *names)))


def test_ticks_of_a_cent_and_lots_of_a_hundred_work(exchange_stack: ExchangeStack, tmp_path: Path) -> None:
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
    report = run(exchange_stack, replay_command(commands, "--expect", str(fills)))
    assert (report["fills"], report["equal"]) == (3, True)


def engine_sequence(stack: ExchangeStack) -> int:
    """The engine's own sequence, from the ops listener; -1 while it cannot be asked."""
    code = "import sys; from pincex_client.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "admin", "state", "--json"],
        env=dict(stack.folder.environment),
        cwd=stack.home.parent,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return int(json.loads(done.stdout)["sequence"]) if done.returncode == 0 else -1

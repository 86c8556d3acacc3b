"""The recorded flow of a real venue, played by `pincex replay`, and what its report must say."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack_fixture import ExchangeStack

DEADLINE_S = 110.0
COMMANDS, FILLS = 32_060, 2_872

_CLI = "import sys; from pincex_client.cli import main; sys.exit(main())"


def replay_command(commands: Path, *options: str) -> list[str]:
    """`pincex replay` of a file."""
    return [sys.executable, "-c", _CLI, "replay", str(commands), "--json", *options]


def whole_flow(folder: Path, *options: str) -> list[str]:
    """`pincex replay` of the first part of the recording, compared with the venue's fills and final book."""
    fills, book = folder / "es-part-a.fills.csv", folder / "es-part-a.book.json"
    commands = folder / "es-part-a.commands.csv"
    return replay_command(commands, "--expect", str(fills), "--book", str(book), *options)


def run(stack: ExchangeStack, command: list[str], status: int = 0) -> Any:
    """Run it to its end; its report."""
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


class Started:
    """A replay under way."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self.process.poll() is not None

    def report(self) -> Any:
        """Wait for its end; its report. Fails where it did not end well."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        assert self.process.returncode == 0, out[-4_000:] + err[-4_000:]
        return json.loads(out)


@contextmanager
def started(stack: ExchangeStack, command: list[str]) -> Iterator[Started]:
    """Run it while the test does something else; it is gone afterwards."""
    process = subprocess.Popen(
        command,
        env=dict(stack.folder.environment),
        cwd=stack.home.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Started(process)
    finally:
        process.kill()
        process.communicate()


def assert_whole(report: Any) -> None:
    """All of the flow was played, and all of it is equal."""
    assert report["differences"] == []
    assert (report["commands"], report["fills"], report["fills_compared"]) == (COMMANDS, FILLS, FILLS)
    assert (report["levels_compared"], report["refused"], report["equal"]) == (40, 0, True)


def engine_sequence(stack: ExchangeStack) -> int:
    """The engine's own sequence, from the ops listener; -1 while it cannot be asked."""
    done = subprocess.run(
        [sys.executable, "-c", _CLI, "admin", "state", "--json"],
        env=dict(stack.folder.environment),
        cwd=stack.home.parent,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return int(json.loads(done.stdout)["sequence"]) if done.returncode == 0 else -1

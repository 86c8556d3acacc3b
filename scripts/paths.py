"""Where the things of the repository lie, and how the tools among them are called."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PROTO: Final = ROOT / "proto"
GENERATED: Final = ROOT / "clients" / "python" / "pincex"
OPENAPI: Final = ROOT / "docs" / "openapi.json"
WEBSOCKET_SCHEMA: Final = ROOT / "docs" / "websocket.schema.json"

_TOOL_TIMEOUT_S: Final = 300


class ToolError(RuntimeError):
    """A tool ended with an error; the text is what it printed."""


def run_tool(arguments: Sequence[str | Path], *, cwd: Path = ROOT) -> str:
    """Run a program of this virtual environment (or of the system) and return its standard output.

    Raises ToolError with both output streams where it exits non-zero.
    """
    beside_python = Path(sys.executable).parent / arguments[0]
    program = str(beside_python) if beside_python.exists() else str(arguments[0])
    done = subprocess.run(  # noqa: S603 - no shell; the arguments are our own
        [program, *map(str, arguments[1:])],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=_TOOL_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise ToolError(f"{arguments[0]} exited with {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout

"""The `pincex` command line. See `docs/CLI.md`."""

# Imported late is what takes long, and what must come after the first lines of `main`.
# ruff: noqa: PLC0415

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 refused, 2 wrong usage, 3 unreachable."""
    # gRPC's C core would write its own view of every lost connection between our lines.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    given = sys.argv[1:] if arguments is None else arguments
    app, given = _application(given)
    try:
        app(args=given, prog_name="pincex")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BrokenPipeError:
        # `pincex events | head`: nobody listens any more. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _application(given: list[str]) -> tuple[typer.Typer, list[str]]:
    """What runs these arguments, and the arguments as it takes them."""
    from pincex_client.cli.stack import STACK_COMMANDS, build_stack_app

    if given and given[0] in STACK_COMMANDS:
        stack = build_stack_app()
        if stack is not None:
            return stack, given
    from pincex_client.cli.app import build_app, hoist_global_options

    return build_app(), hoist_global_options(given)

"""The `pincex` command line. See `docs/CLI.md`."""

import os
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 refused, 2 wrong usage, 3 unreachable."""
    # gRPC's C core would write its own view of every lost connection between our lines.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Imported late: the line above must come first.
    from pincex_client.cli.app import build_app, hoist_global_options  # noqa: PLC0415

    given = sys.argv[1:] if arguments is None else arguments
    try:
        build_app()(args=hoist_global_options(given), prog_name="pincex")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BrokenPipeError:
        # `pincex events | head`: nobody listens any more. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0

"""The supervisor as a process of its own, for `pincex up --detach`: `python -m exchange.stack.daemon`.

It reports to the descriptor `--report-fd`, one JSON object a line, until the exchange is up or has failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from exchange.runtime.ending import end_process
from exchange.stack.config import UpOptions, load_config
from exchange.stack.errors import StackError
from exchange.stack.run import supervise


class Reporter:
    """Writes events to the one who waits for them, and without addresses and secrets to the log."""

    def __init__(self, handle: int | None) -> None:
        """`handle` is an open pipe, None if nobody waits."""
        self._pipe = os.fdopen(handle, "w", buffering=1) if handle is not None else None

    def __call__(self, event: dict[str, object]) -> None:
        """Whoever waited may have given up: that stops nothing."""
        shown = {key: value for key, value in event.items() if key != "status"}
        print(json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **shown}), flush=True)
        if self._pipe is None:
            return
        try:
            self._pipe.write(json.dumps(event) + "\n")
            if event["event"] in {"up", "failed"}:
                self._pipe.close()
        except OSError:
            pass
        if self._pipe.closed:
            self._pipe = None


def main() -> None:
    """Exit status 1 if the exchange did not start."""
    parser = argparse.ArgumentParser(prog="python -m exchange.stack.daemon")
    parser.add_argument("--report-fd", type=int)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--standby", action="store_true")
    arguments = parser.parse_args()
    report = Reporter(arguments.report_fd)
    try:
        config = load_config(os.environ, Path.cwd())
        options = UpOptions(memory=arguments.memory, standby=arguments.standby)
        asyncio.run(supervise(config, options, report))
    except StackError as error:
        report({"event": "failed", "error": str(error)})
        end_process(1)
    report({"event": "stopped"})
    end_process(0)


if __name__ == "__main__":
    main()

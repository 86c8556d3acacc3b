"""Starts the supervisor as a process of its own and waits until the exchange is up."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from exchange.stack.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Callable

    from exchange.stack.config import StackConfig, UpOptions

LAST_STEPS_S = 10.0


def start_detached(config: StackConfig, options: UpOptions, show: Callable[[dict[str, object]], None]) -> None:
    """Returns when all is healthy. Raises StackError with what failed; nothing is left running then.

    `show` gets the supervisor's events as they come.
    """
    log = config.home / "logs" / "supervisor.log"
    reading, writing = os.pipe()
    argv = [sys.executable, "-m", "exchange.stack.daemon", "--report-fd", str(writing)]
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        supervisor = subprocess.Popen(
            [*argv, *options.arguments()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Without `.env`: the supervisor reads it itself, and again when it must.
            env={**config.given, "PINCEX_HOME": str(config.home)},
            pass_fds=(writing,),
            start_new_session=True,
        )
    finally:
        os.close(output)
        os.close(writing)
    with os.fdopen(reading) as events:
        for line in events:
            event = json.loads(line)
            show(event)
            if event["event"] == "up":
                return
            if event["event"] == "failed":
                # All that it had started has ended by now; only it itself may be there for a moment.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    supervisor.wait(LAST_STEPS_S)
                raise StackError(str(event["error"]))
    raise StackError(f"the supervisor ended before the exchange was up; log: {log}")

"""A service as a process: uvloop underneath, SIGTERM ends it."""

import signal
import subprocess
import sys

PROGRAM = """
import asyncio
from exchange.runtime.process import run, stop_signal

async def main() -> int:
    stopped = stop_signal()
    print(type(asyncio.get_running_loop()).__module__, flush=True)
    await stopped.wait()
    return 7

raise SystemExit(run(main))
"""


def test_a_service_runs_on_uvloop_until_it_is_told_to_stop():
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "uvloop"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 7

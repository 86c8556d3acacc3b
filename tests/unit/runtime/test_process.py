"""A service as a process: uvloop underneath, SIGTERM ends it, at once and with all that it has written."""

import os
import signal
import subprocess
import sys

PROGRAM = """
import asyncio, threading, time
from exchange.runtime.ending import end_process
from exchange.runtime.process import run, stop_signal

async def main() -> int:
    stopped = stop_signal()
    print(type(asyncio.get_running_loop()).__module__, flush=True)
    await stopped.wait()
    return 7

threading.Thread(target=time.sleep, args=(3_600,)).start()
status = run(main)
print("written", end="")
end_process(status)
"""


def test_a_service_runs_on_uvloop_until_it_is_told_to_stop_and_leaves_no_word_unwritten():
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=buffered, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "uvloop"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 7
        assert process.stdout.read() == "written"

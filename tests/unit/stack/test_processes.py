"""A process is known by pid and start time."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from exchange.stack.processes import ProcessId, end, identify

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
IGNORE = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)",
]


def identity(process: subprocess.Popen[bytes]) -> ProcessId:
    found = identify(process.pid)
    assert found is not None
    return found


def test_a_reused_pid_is_not_taken_for_the_process_that_had_it() -> None:
    with subprocess.Popen(SLEEP) as process:
        try:
            found = identity(process)
            assert found.is_alive()
            assert not replace(found, start=found.start - 1).is_alive()
            assert not replace(found, boot="another boot").is_alive()

            end([(replace(found, start=found.start - 1), signal.SIGKILL)])

            assert process.poll() is None
        finally:
            process.kill()


def test_a_process_that_ended_is_not_alive_even_before_it_is_reaped() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        found = identity(process)
        assert process.stdin is not None
        process.stdin.close()
        # Not poll(): that would reap it.
        while identify(process.pid) is not None:
            pass
        assert not found.is_alive()


def test_who_does_not_go_in_time_is_killed() -> None:
    with subprocess.Popen(IGNORE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end([(identity(process), signal.SIGTERM)], timeout_s=0.1)

        assert process.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize("value", [None, {}, {"pid": "1", "start": 2, "boot": "b"}, [1]])
def test_a_state_file_of_another_form_names_no_process(value: object) -> None:
    assert ProcessId.from_json(value) is None


def test_the_state_file_keeps_an_identity() -> None:
    found = ProcessId(1, 2, "b")
    assert ProcessId.from_json(found.to_json()) == found

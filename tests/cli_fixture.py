"""`pincex` for tests that call it often: a process for each command, but without the half second that loading it takes.

That the command line also starts from nothing is tested where it is typed: in the README's and the runbooks' examples.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

START_DEADLINE_S = 60.0
DEADLINE_S = 60.0
POLL_S = 0.01


class Cli:
    """Commands, in any number of threads at once."""

    def __init__(self, path: str) -> None:
        """`path` is the socket of `tests.cli_forks`."""
        self._path = path

    def run(
        self,
        *arguments: str,
        folder: Path,
        environment: Mapping[str, str],
        given: str = "",
        deadline_s: float = DEADLINE_S,
    ) -> subprocess.CompletedProcess[str]:
        """`pincex ARGUMENTS` with `given` as its standard input; never raises for its exit status, TimeoutError if it goes on."""
        with tempfile.TemporaryFile() as entered, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            entered.write(given.encode())
            entered.seek(0)
            request = {"arguments": arguments, "environment": dict(environment), "folder": str(folder)}
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(deadline_s)
                connection.connect(self._path)
                files = [file.fileno() for file in (entered, out, err)]
                line = json.dumps(request).encode() + b"\n"
                sent = socket.send_fds(connection, [line], files)
                connection.sendall(line[sent:])
                status = connection.recv(16)
            out.seek(0)
            err.seek(0)
            said = (out.read().decode(), err.read().decode())
        assert status, f"pincex {' '.join(arguments)} was killed: {said}"
        return subprocess.CompletedProcess(["pincex", *arguments], int(status), *said)


@pytest.fixture(scope="session")
def cli(repository: Path) -> Iterator[Cli]:
    """The command line, loaded once for all tests of a worker."""
    with tempfile.TemporaryDirectory(prefix="pincex-cli-") as folder:
        path = Path(folder) / "socket"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PINCEX_")}
        forks = subprocess.Popen(
            [sys.executable, "-m", "tests.cli_forks", str(path)],
            cwd=repository,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + START_DEADLINE_S
            while not _listens(path):
                assert forks.poll() is None, "tests.cli_forks ended"
                assert time.monotonic() < deadline, "tests.cli_forks does not listen"
                time.sleep(POLL_S)
            yield Cli(str(path))
        finally:
            # With what is left of its commands.
            os.killpg(forks.pid, signal.SIGKILL)
            forks.wait()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True

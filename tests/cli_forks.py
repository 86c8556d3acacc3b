"""Runs `pincex` again and again, each time in a process of its own that is forked off this one, which has loaded the command line.

`python -m tests.cli_forks SOCKET`. For each connection: one line of JSON (`arguments`, `environment`, `folder`) together with three
descriptors (standard input, output, error); the answer is the exit status, nothing where the process was killed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
import traceback
from pathlib import Path

from pincex_client.cli import main

REQUEST_LIMIT_BYTES = 1 << 20


def serve(path: str) -> None:
    # Loaded by use: arguments are read, and then one is missing. Nothing of gRPC runs before there is a channel, so a fork finds all
    # as after a start.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        main(["--timeout", "1", "order"])
    importlib.import_module("uvloop")
    gc.freeze()
    # Nobody waits for the forks here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        while True:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    become_a_command(connection)


def become_a_command(connection: socket.socket) -> None:
    """Runs the command to its end, and the process with it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    random.seed()
    text, descriptors, _, _ = socket.recv_fds(connection, REQUEST_LIMIT_BYTES, 3)
    while not text.endswith(b"\n"):
        more = connection.recv(REQUEST_LIMIT_BYTES)
        if not more:
            os._exit(0)  # somebody only looked whether we listen
        text += more
    request = json.loads(text)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]
    try:
        status = main()
    except Exception:  # noqa: BLE001 - as the interpreter does at the end of a program
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(status).encode())
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])

"""How the command line reaches the supervisor: a lock that says whether it lives, and a socket that it listens on.

The lock is the kernel's: it is gone when the supervisor is, however that ended, so no stale file can lie. One request
is one line of JSON each way: `{"command": "status"}` gets `{"result": ...}` or `{"error": "..."}`.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from exchange.stack.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

LOCK_FILE = "supervisor.lock"
SOCKET_FILE = "control.sock"
REQUEST_LIMIT_BYTES = 64 << 10
# A scale waits until the new instance is ready.
ANSWER_TIMEOUT_S = 150.0
CONNECT_TIMEOUT_S = 10.0
GONE_TIMEOUT_S = 1.0

_POLL_S = 0.02
_NOT_RUNNING = "the exchange is not running: start it with `pincex up`"


class NotRunning(StackError):
    """No supervisor runs with this data folder."""


def take_lock(home: Path) -> int | None:
    """The descriptor that holds the data folder until it is closed, None if a supervisor has it."""
    handle = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def is_running(home: Path) -> bool:
    """Whether a supervisor has this data folder now."""
    if not (home / LOCK_FILE).exists():
        return False
    handle = take_lock(home)
    if handle is None:
        return True
    os.close(handle)
    return False


def request(home: Path, command: str, **arguments: object) -> Any:
    """The supervisor's result. Raises NotRunning, or StackError with what it refused."""
    line = json.dumps({"command": command, **arguments}).encode() + b"\n"
    try:
        with _connect(home) as connection, connection.makefile("rb") as answers:
            connection.sendall(line)
            answer = answers.readline()
    except OSError as error:
        _raise_if_gone(home)
        raise StackError(f"the supervisor does not answer ({error}); log: {home}/logs/supervisor.log") from error
    if not answer:
        _raise_if_gone(home)
        raise StackError(f"the supervisor did not answer; log: {home}/logs/supervisor.log")
    found = json.loads(answer)
    if "error" in found:
        raise StackError(found["error"])
    return found["result"]


def _connect(home: Path) -> socket.socket:
    """A connection; waits while a supervisor that has just begun does not listen yet. Raises NotRunning, OSError."""
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        if not is_running(home):
            raise NotRunning(_NOT_RUNNING)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            with _short_path(home) as path:
                connection.connect(path)
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)
        else:
            return connection


def _raise_if_gone(home: Path) -> None:
    """Raises NotRunning if the supervisor is gone, or is within a moment: its socket dies before its lock does."""
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while is_running(home):
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL_S)
    raise NotRunning(_NOT_RUNNING)


async def serve(home: Path, handle: Callable[[dict[str, Any]], Awaitable[object]]) -> asyncio.Server:
    """Listens until closed; what `handle` raises as StackError goes back as the error."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            try:
                reply: dict[str, object] = {"result": await handle(json.loads(line))}
            except StackError as error:
                reply = {"error": str(error)}
            except ValueError as error:
                reply = {"error": f"not a request: {error}"}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    (home / SOCKET_FILE).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with _short_path(home) as path:
        listener.bind(path)
    (home / SOCKET_FILE).chmod(0o600)
    return await asyncio.start_unix_server(answer, sock=listener, limit=REQUEST_LIMIT_BYTES)


@contextmanager
def _short_path(home: Path) -> Iterator[str]:
    """The socket's path through an open folder: the path of a socket may have 107 bytes, a data folder's has no limit."""
    folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_FILE}"
    finally:
        os.close(folder)

"""Work beside the process that serves orders: a child of its own, on processor time that nobody else wants.

A replay takes seconds, and in the serving process every one of them would be taken from somebody's order. The child
reads the journal itself, so that it needs nothing of its parent but the journal's address.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from typing import Final

from exchange.runtime.config import Secret

MAX_LINE_BYTES: Final = 8 * 1024 * 1024
"""Longest line of an answer: a book of ten thousand levels takes about half a megabyte."""

MAX_ERROR_BYTES: Final = 2_000
"""How much of what a child complained of is kept: the end of it."""


class ApartFailed(RuntimeError):
    """The child ended without an answer; the text says how, with the end of what it wrote to stderr."""


def idle_only() -> None:
    """Give this process only processor time that nobody else wants: a replay can wait, orders can not."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


async def lines(module: str, *arguments: str, dsn: Secret) -> AsyncGenerator[bytes]:
    """Run `python -m module arguments` with DATABASE_URL as its whole environment; yields what it prints, line by line.

    Whoever stops reading, by `aclose` or by being cancelled, kills the child. Raises ApartFailed when it ends with
    another status than 0.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        env={"DATABASE_URL": dsn.reveal()},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=MAX_LINE_BYTES,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    complaints = asyncio.create_task(_tail(child.stderr))
    try:
        async for line in child.stdout:
            yield line
        status = await child.wait()
        if status != 0:
            raise ApartFailed(f"{module} ended with {status}: {await complaints}")
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
        complaints.cancel()


async def _tail(stream: asyncio.StreamReader) -> str:
    """The end of what a stream says until it is closed."""
    kept = b""
    while chunk := await stream.read(MAX_ERROR_BYTES):
        kept = (kept + chunk)[-MAX_ERROR_BYTES:]
    return kept.decode(errors="replace").strip()

"""One verification of the whole trail at a time, however many ask."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from exchange.admin.chain import Verdict, verify_all
from exchange.admin.reader import RecordReader

KEPT_S: Final = 60.0
"""A verdict that nobody waited for is kept so long for whoever asks again."""


class SharedVerification:
    """Who asks while one runs waits for that one.

    A long trail takes longer than a call may last. The verification goes on when its caller has given up, and the next
    call takes up the wait or gets the verdict; one that somebody got is not given again.
    """

    def __init__(self, reader: RecordReader) -> None:
        self._reader = reader
        self._task: asyncio.Task[Verdict] | None = None
        self._finished = 0.0

    async def verdict(self) -> Verdict:
        """The verdict on all records that were there when it began. Raises ServiceError AUDIT_UNAVAILABLE."""
        task = self._task
        if task is None or (task.done() and time.monotonic() > self._finished + KEPT_S):
            task = self._task = asyncio.create_task(self._run())
            task.add_done_callback(self._done)
        # Cancelled here: only this caller's wait ends.
        await asyncio.wait({task})
        if self._task is task:
            self._task = None
        return task.result()

    async def close(self) -> None:
        """End what runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> Verdict:
        newest = await self._reader.newest()
        return await verify_all(self._reader, newest.sequence if newest is not None else 0)

    def _done(self, task: asyncio.Task[Verdict]) -> None:
        self._finished = time.monotonic()
        if not task.cancelled():
            # Taken here too: nobody may be left to take it.
            task.exception()

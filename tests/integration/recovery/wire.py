"""The network between one engine and its database, which can be partitioned: nothing passes, and nobody is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

CHUNK_BYTES = 1 << 16


class Wire:
    """A TCP proxy. While `cut`, bytes of both sides wait here, as they would for retransmission."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._passing = asyncio.Event()
        self._passing.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The database's, through this wire."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return self._parts._replace(netloc=f"{self._parts.username}@127.0.0.1:{port}").geturl()

    def cut(self) -> None:
        """Let nothing pass."""
        self._passing.clear()

    def mend(self) -> None:
        """Let everything pass, what has waited first."""
        self._passing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._passing.wait()
            assert self._parts.hostname is not None
            far_reader, far_writer = await asyncio.open_connection(self._parts.hostname, self._parts.port)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._forward(reader, far_writer))
                    group.create_task(self._forward(far_reader, writer))
            finally:
                far_writer.transport.abort()
        except* (OSError, EOFError):
            pass
        finally:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._passing.wait()
            writer.write(data)
            await writer.drain()
        # Either end's end is the other's; it passes like everything else.
        await self._passing.wait()
        raise EOFError

    @asynccontextmanager
    async def strung(self) -> AsyncIterator[Wire]:
        """Listens meanwhile."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

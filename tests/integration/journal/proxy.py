"""A TCP proxy before PostgreSQL that breaks a connection at the worst moment, on demand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import Enum
from urllib.parse import urlsplit


class Cut(Enum):
    """Where to cut a statement that holds the watched bytes."""

    NEVER = 0
    BEFORE_SERVER = 1
    """The server never sees it."""
    AFTER_COMMIT = 2
    """The server has answered, but the client does not hear it."""


class CuttingProxy:
    """Forwards bytes to the server of a URL; `cut` applies to the next message that holds `watched`, once."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._parts = parts
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.cut = Cut.NEVER
        self.watched = b""
        self.cuts = 0
        # Set by a cut; connections are refused while it is clear, so that a test acts between cut and reconnect.
        self.open = asyncio.Event()
        self.was_cut = asyncio.Event()
        self.open.set()

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return self._parts._replace(netloc=f"{self._parts.username}@127.0.0.1:{port}").geturl()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open.is_set():
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream_reader, upstream = await asyncio.open_connection(*self._target)
        doomed = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._to_server(reader, upstream, doomed))
                group.create_task(self._to_client(upstream_reader, writer, doomed))
        except* (ConnectionError, EOFError):
            pass
        finally:
            self._tasks.discard(task)
            upstream.transport.abort()
            writer.transport.abort()

    async def _to_server(
        self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await reader.read(1 << 16):
            if self.cut is not Cut.NEVER and self.watched in data:
                if self.cut is Cut.BEFORE_SERVER:
                    self._note_cut()
                    break
                doomed.set()
            upstream.write(data)
            await upstream.drain()
        raise EOFError

    async def _to_client(
        self, upstream_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await upstream_reader.read(1 << 16):
            # ReadyForQuery ends the answer: the statement has committed.
            if doomed.is_set() and data.endswith((b"Z\x00\x00\x00\x05I",)):
                self._note_cut()
                break
            writer.write(data)
            await writer.drain()
        raise EOFError

    def _note_cut(self) -> None:
        self.cut = Cut.NEVER
        self.cuts += 1
        self.open.clear()
        self.was_cut.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["CuttingProxy"]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

"""Small questions to servers on this machine, by asyncio alone."""

from __future__ import annotations

import asyncio

from exchange.stack.edge.plan import LOOPBACK

_ANSWER_LIMIT_BYTES = 16 << 20


async def http(port: int, path: str, *, method: str = "GET", timeout_s: float = 2.0) -> tuple[int, bytes] | None:
    """Status and body of one HTTP/1.1 request, None if there is no answer in time."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _http(port, path, method)
    except (OSError, TimeoutError, ValueError, IndexError, EOFError):
        return None


async def _http(port: int, path: str, method: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        status = int((await reader.readline()).split(b" ", 2)[1])
        headers: dict[bytes, bytes] = {}
        while line := (await reader.readline()).strip():
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip()
        return status, await _body(reader, headers)
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> bytes:
    """The body by its announced length: Envoy keeps a closing connection open for a second."""
    if headers.get(b"transfer-encoding", b"").lower() != b"chunked":
        length = int(headers.get(b"content-length", b"-1"))
        return await reader.readexactly(length) if length >= 0 else await reader.read(_ANSWER_LIMIT_BYTES)
    found = bytearray()
    while size := int((await reader.readline()).split(b";")[0], 16):
        found += await reader.readexactly(size)
        await reader.readline()
        if len(found) > _ANSWER_LIMIT_BYTES:
            raise ValueError("the answer is too large")
    return bytes(found)


async def answers(port: int, path: str) -> bool:
    """Whether a GET is answered with 200."""
    found = await http(port, path)
    return found is not None and found[0] == 200


async def valkey_ping(port: int, password: str) -> bool:
    """Whether Valkey takes the password and answers a PING."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(f"AUTH {password}\r\nPING\r\n".encode())
                await writer.drain()
                return [await reader.readline(), await reader.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False

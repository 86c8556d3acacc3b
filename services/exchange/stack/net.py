"""Small questions to servers on this machine, by asyncio alone."""

from __future__ import annotations

import asyncio

from exchange.stack.edge.plan import LOOPBACK

_ANSWER_LIMIT_BYTES = 16 << 20


async def http(port: int, path: str, *, method: str = "GET", timeout_s: float = 2.0) -> tuple[int, bytes] | None:
    """Status and body of one HTTP/1.0 request, None if there is no answer in time."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _http(port, path, method)
    except (OSError, TimeoutError, ValueError, EOFError):
        return None


async def _http(port: int, path: str, method: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        answer = bytearray()
        while chunk := await reader.read(1 << 16):
            answer += chunk
            if len(answer) > _ANSWER_LIMIT_BYTES:
                raise ValueError("the answer is too large")
    finally:
        writer.close()
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    return status, _dechunk(body) if b"transfer-encoding: chunked" in head.lower() else body


def _dechunk(body: bytes) -> bytes:
    found = bytearray()
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            break
        found += rest[:length]
        body = rest[length + 2 :]
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

"""A client of the protocol for tests: what the server sends is held to docs/websocket.schema.json."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections import Counter
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # dev, and its stubs are another package
from websockets.asyncio.client import ClientConnection, connect

from scripts.paths import WEBSOCKET_SCHEMA

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DEADLINE_S = 10.0
CHECKED_OF_A_KIND = 20
Message = dict[str, Any]


@lru_cache(maxsize=1)
def document() -> Message:
    """The schema."""
    found: Message = json.loads(WEBSOCKET_SCHEMA.read_text(encoding="utf-8"))
    return found


@lru_cache(maxsize=64)
def _validator(side: str, name: str, value: str, channel: str) -> Draft202012Validator:
    """Of the messages with this `type` or `op`, and this channel: one of all choices, so that what is wrong is named."""
    for choice in document()["$defs"][side]["oneOf"]:
        properties = choice["properties"]
        same_channel = properties.get("channel", {}).get("const", "") == channel
        same_op = side == "client" or name != "result" or properties.get("op", {}).get("const") == value
        if properties["type" if side == "server" else "op"]["const"] == name and same_channel and same_op:
            return Draft202012Validator({**choice, "$defs": document()["$defs"]})
    raise AssertionError(f"no {side} message {name} {value} {channel} is described")


def check(message: Message) -> None:
    """Fail where a message of the server is not as the schema has it."""
    name = message["type"]
    _validator("server", name, message.get("op", ""), message.get("channel", "")).validate(message)


def check_request(message: Message) -> None:
    """The same for one of a client."""
    _validator("client", message["op"], "", message.get("channel", "")).validate(message)


class Speaker:
    """One connection. Messages are kept until a test asks for them."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[Message] = []
        self._ids = 0
        self._checked: Counter[str] = Counter()

    async def send(self, **fields: Any) -> None:
        """A request as it is."""
        await self.socket.send(json.dumps(fields))

    async def next(self) -> Message:
        """The next message, whatever it is."""
        async with asyncio.timeout(DEADLINE_S):
            text = await self.socket.recv()
        message: Message = json.loads(text)
        # Of a flood the first ones: checking costs far more than sending.
        kind = f"{message['type']} {message.get('reason')} {message.get('channel')} {sorted(message.get('data', ()))}"
        self._checked[kind] += 1
        if self._checked[kind] <= CHECKED_OF_A_KIND:
            check(message)
        self.seen.append(message)
        return message

    async def until(self, found: Callable[[Message], bool]) -> Message:
        """The first message from here on that is so."""
        while True:
            message = await self.next()
            if found(message):
                return message

    async def ask(self, op: str, **fields: Any) -> Message:
        """Send a request with an id of its own, and return its answer; what comes before it is passed over."""
        self._ids += 1
        request_id = f"r{self._ids}"
        request = {"op": op, "id": request_id, **fields}
        await self.send(**request)
        answer = await self.until(lambda message: message.get("id") == request_id)
        if answer["type"] != "error":
            check_request(request)
        return answer

    async def subscribe(self, channel: str, **fields: Any) -> Message:
        """Subscribe, and return the first message that the channel shows."""
        answer = await self.ask("subscribe", channel=channel, **fields)
        assert answer["type"] == "subscribed", answer
        return await self.update(channel)

    async def update(self, channel: str, *, heartbeats: bool = False) -> Message:
        """The next `data` of a channel."""
        message = await self.until(
            lambda one: (
                one["type"] == "update" and one["channel"] == channel and (heartbeats or "heartbeat" not in one["data"])
            )
        )
        data: Message = message["data"]
        return data

    async def closed(self) -> tuple[int | None, str | None]:
        """Code and reason, once the server has closed it."""
        async with asyncio.timeout(DEADLINE_S):
            await self.socket.wait_closed()
        return self.socket.close_code, self.socket.close_reason


@asynccontextmanager
async def speaking(url: str, *, welcomed: bool = True, **options: Any) -> AsyncIterator[Speaker]:
    """A connection; its first message has been read."""
    async with connect(url, open_timeout=DEADLINE_S, close_timeout=1.0, **options) as socket:
        speaker = Speaker(socket)
        if welcomed:
            assert (await speaker.next())["type"] == "welcome"
        yield speaker


def mute_client(port: int, **request: str) -> socket.socket:
    """A client that asks for something and never reads a byte, so that it answers no ping either; close it."""
    mute = socket.socket()
    # What the kernel keeps for it is little.
    mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    mute.connect(("127.0.0.1", port))
    key = base64.b64encode(b"0123456789abcdef").decode()
    shake = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}"
    text = json.dumps(request).encode()
    assert len(text) < 126, "one byte says how long it is"
    # A mask of zeros changes nothing.
    mute.sendall(
        f"GET /ws HTTP/1.1\r\nHost: x\r\n{shake}\r\n\r\n".encode() + bytes((0x81, 0x80 | len(text), 0, 0, 0, 0))
    )
    mute.sendall(text)
    return mute

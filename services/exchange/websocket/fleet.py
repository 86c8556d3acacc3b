"""All instances of this process together: who counts what, and what is asked of all. They meet in Valkey.

An instance writes what it counts every second, with an expiry: what is there is what answered of late. Where Valkey is
away, each instance speaks for itself alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from redis.exceptions import RedisError

from exchange.runtime.valkey import valkey_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from exchange.runtime.config import Secret

PREFIX: Final = "websocket:"
COUNTS: Final = f"{PREFIX}counts:"
CLEAN_UP: Final = f"{PREFIX}clean-up"
ANSWERS: Final = f"{PREFIX}cleaned:"
PUBLISH_S: Final = 0.3
# Who was silent for longer does not count, as `ConnectionCount.instances` says.
EXPIRY_S: Final = 1.0
ANSWER_S: Final = 1.0
ASK_S: Final = 0.5
REST_S: Final = 1.0
MAX_INSTANCES: Final = 1_000
_ERRORS: Final = (RedisError, OSError, TimeoutError)


class Share(msgspec.Struct, frozen=True):
    """What one instance has: connections in all and by address, subscriptions in all, connections by channel."""

    instance: str
    connections: int = 0
    authenticated: int = 0
    subscriptions: int = 0
    channels: dict[str, int] = msgspec.field(default_factory=dict)
    addresses: dict[str, int] = msgspec.field(default_factory=dict)


class _Order(msgspec.Struct, frozen=True):
    """Close what is idle, and say under `answer` how many that were."""

    answer: str
    idle_s: float


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How many were closed, by how many instances."""

    closed: int
    instances: int


class Fleet:
    """See the module. `count` gives this instance's share, `clean_up` closes what is idle here."""

    def __init__(self, url: Secret | None, count: Callable[[], Share], clean_up: Callable[[float], int]) -> None:
        self._count = count
        self._clean_up = clean_up
        self._client: Any = None
        if url is not None:
            self._client = valkey_client(url, connect_s=ASK_S)
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("fleet")

    async def shares(self) -> list[Share]:
        """Of all instances, this one's first."""
        mine = self._count()
        others: list[Share] = []
        if self._client is not None:
            with contextlib.suppress(*_ERRORS):
                async with asyncio.timeout(ASK_S):
                    others = [share for share in await self._published() if share.instance != mine.instance]
        return [mine, *sorted(others, key=lambda share: share.instance)]

    async def clean_up(self, idle_s: float) -> Cleaned:
        """Have all instances close what is idle; returns once all have, or after a second."""
        if self._client is not None:
            with contextlib.suppress(*_ERRORS):
                async with asyncio.timeout(ASK_S + ANSWER_S):
                    return await self._ask_all(idle_s)
        return Cleaned(self._clean_up(idle_s), 1)

    async def publish(self) -> None:
        """Say again and again what this instance counts, until cancelled."""
        while self._client is not None:
            with contextlib.suppress(*_ERRORS):
                share = self._count()
                async with asyncio.timeout(ASK_S):
                    await self._client.set(COUNTS + share.instance, msgspec.json.encode(share), px=int(EXPIRY_S * 1000))
            await asyncio.sleep(PUBLISH_S)

    async def obey(self) -> None:
        """Do what is asked of all, until cancelled."""
        said = False
        while self._client is not None:
            try:
                async with self._client.pubsub() as orders:
                    async with asyncio.timeout(ASK_S):
                        await orders.subscribe(CLEAN_UP)
                    said = False
                    while True:
                        message = await orders.get_message(ignore_subscribe_messages=True, timeout=None)
                        if message is not None:
                            await self._carry_out(message["data"])
            except _ERRORS as error:
                if not said:
                    said = True
                    self._log.warning("Valkey does not answer: instances count for themselves", error=str(error))
                await asyncio.sleep(REST_S)

    async def close(self) -> None:
        """Count no more."""
        if self._client is not None:
            with contextlib.suppress(*_ERRORS):
                async with asyncio.timeout(ASK_S):
                    await self._client.delete(COUNTS + self._count().instance)
            await self._client.aclose()

    async def _published(self) -> list[Share]:
        keys: list[bytes] = []
        async for key in self._client.scan_iter(match=f"{COUNTS}*", count=MAX_INSTANCES):
            keys.append(key)
            if len(keys) == MAX_INSTANCES:
                break
        values = await self._client.mget(keys) if keys else []
        found: list[Share] = []
        for value in values:
            with contextlib.suppress(msgspec.MsgspecError):
                if value is not None:
                    found.append(msgspec.json.decode(value, type=Share))
        return found

    async def _ask_all(self, idle_s: float) -> Cleaned:
        order = _Order(ANSWERS + secrets.token_hex(8), idle_s)
        heard = int(await self._client.publish(CLEAN_UP, msgspec.json.encode(order)))
        if not heard:
            return Cleaned(self._clean_up(idle_s), 1)
        counts: list[int] = []
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ANSWER_S
        while len(counts) < heard and loop.time() < deadline:
            answer = await self._client.lpop(order.answer)
            if answer is None:
                await asyncio.sleep(0.01)
            else:
                counts.append(int(answer))
        return Cleaned(sum(counts), len(counts))

    async def _carry_out(self, data: bytes) -> None:
        try:
            order = msgspec.json.decode(data, type=_Order)
        except msgspec.MsgspecError:
            return
        if not order.answer.startswith(ANSWERS) or order.idle_s <= 0:
            return
        closed = self._clean_up(order.idle_s)
        async with asyncio.timeout(ASK_S), self._client.pipeline() as answer:
            answer.rpush(order.answer, closed)
            answer.pexpire(order.answer, 10_000)
            await answer.execute()

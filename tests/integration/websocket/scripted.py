"""An exchange whose streams say what a test has them say: sources, accounts and orders without any server."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.websocket.states import checksum
from exchange.websocket.updates import Kind, Update

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from exchange.websocket.channels import Key
    from exchange.websocket.credentials import Credentials

HEARTBEAT = {"head_sequence": "1", "resume_token": ""}


class Script:
    """One stream that was opened. It ends, like a cut one, after `cut`."""

    def __init__(self, key: Key, token: str, credentials: Credentials | None) -> None:
        self.key = key
        self.token = token
        self.credentials = credentials
        self.closed = False
        self._queue: asyncio.Queue[Update | ServiceError | None] = asyncio.Queue()

    def say(self, *updates: Update) -> None:
        for update in updates:
            self._queue.put_nowait(update)

    def fail(self, reason: int) -> None:
        """End with a status, as a refused call does."""
        self._queue.put_nowait(ServiceError(reason))

    def cut(self) -> None:
        """End without a word."""
        self._queue.put_nowait(None)

    async def run(self) -> AsyncGenerator[Update, None]:
        try:
            while (item := await self._queue.get()) is not None:
                if isinstance(item, ServiceError):
                    raise item
                yield item
        finally:
            self.closed = True


class ScriptedExchange:
    """See `session.Exchange`. `on_open` may say the first words of each stream; every stream is in `opened`."""

    def __init__(self) -> None:
        self.opened: dict[str, list[Script]] = defaultdict(list)
        self.on_open: Callable[[Script], None] = lambda script: None
        self.refusal: int = 0
        self.accounts: dict[str, str] = {"good": "100001", "other": "100002"}
        self.orders: list[tuple[str, dict[str, Any], Credentials]] = []
        self.order_gate: asyncio.Event | None = None
        self._changed = asyncio.Event()

    def source(self, key: Key) -> _Source:
        return _Source(self, key, None)

    def own_source(self, key: Key, credentials: Callable[[], Credentials]) -> _Source:
        return _Source(self, key, credentials)

    async def account(self, credentials: Credentials) -> str:
        if credentials.token and credentials.token not in self.accounts:
            raise ServiceError(ErrorReason.TOKEN_REFUSED)
        return self.accounts.get(credentials.token, credentials.account or "demo")

    async def order(self, op: str, body: dict[str, Any], credentials: Credentials) -> dict[str, Any]:
        if self.order_gate is not None:
            await self.order_gate.wait()
        self.orders.append((op, body, credentials))
        raise ServiceError(ErrorReason.INSUFFICIENT_FUNDS, metadata={"asset": "USD"})

    async def stream(self, channel: str, number: int = 1) -> Script:
        """The stream of a channel that was opened as the so-manieth, once it is."""
        async with asyncio.timeout(10):
            while len(self.opened[channel]) < number:
                self._changed.clear()
                await self._changed.wait()
        return self.opened[channel][number - 1]

    def open(self, script: Script) -> None:
        if self.refusal:
            raise ServiceError(self.refusal)
        self.opened[script.key.channel].append(script)
        self._changed.set()
        self.on_open(script)


class _Source:
    def __init__(self, exchange: ScriptedExchange, key: Key, credentials: Callable[[], Credentials] | None) -> None:
        self._exchange = exchange
        self._key = key
        self._credentials = credentials

    async def open(self, resume_token: str) -> AsyncGenerator[Update, None]:
        script = Script(self._key, resume_token, self._credentials() if self._credentials is not None else None)
        self._exchange.open(script)
        async for update in script.run():
            yield update


def level(price: str, quantity: str) -> dict[str, Any]:
    return {"price": price, "quantity": quantity, "order_count": 1}


def book(sequence: int, bids: list[dict[str, Any]], asks: list[dict[str, Any]], symbol: str = "BTCUSD") -> Update:
    """A snapshot."""
    body = {
        **_book_head(symbol, sequence, 0, checksum(bids, asks)),
        "snapshot": {"bids": bids, "asks": asks, "mode": "OPEN"},
    }
    return Update(Kind.SNAPSHOT, sequence, 0, f"t{sequence}", body)


def book_change(sequence: int, prev: int, bids: list[dict[str, Any]], check: int, symbol: str = "BTCUSD") -> Update:
    """A delta of bids; `check` is the checksum after it."""
    body = {**_book_head(symbol, sequence, prev, check), "delta": {"bids": bids, "asks": []}}
    return Update(Kind.CHANGE, sequence, prev, f"t{sequence}", body)


def _book_head(symbol: str, sequence: int, prev: int, check: int) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "sequence": str(sequence),
        "prev_sequence": str(prev),
        "checksum": check,
        "resume_token": f"t{sequence}",
    }


def tape(sequence: int, *ids: str, prev: int = 0, snapshot: bool = False) -> Update:
    """Trades; with `snapshot` those that a stream begins with."""
    trades = [
        {
            "trade_id": trade,
            "symbol": "BTCUSD",
            "price": "100.00",
            "quantity": "1.00000",
            "taker_side": "BUY",
            "trade_time": "2026-01-01T00:00:00Z",
            "sequence": str(sequence),
        }
        for trade in ids
    ]
    kind = Kind.SNAPSHOT if snapshot else Kind.CHANGE
    body = {
        "sequence": str(sequence),
        "prev_sequence": str(prev),
        "resume_token": f"t{sequence}",
        "snapshot" if snapshot else "trades": {"trades": trades},
    }
    return Update(kind, sequence, prev, f"t{sequence}", body)


def status(sequence: int, prev: int, mode: str, *, symbol: str = "BTCUSD", snapshot: bool = False) -> Update:
    """A message of the channel `status`, the shortest of those whose newest value counts."""
    found = {
        "symbol": symbol,
        "mode": mode,
        "maintenance": False,
        "circuit_breaker": False,
        "accepts_new_orders": True,
    }
    body = {
        "sequence": str(sequence),
        "prev_sequence": str(prev),
        "resume_token": f"t{sequence}",
        "snapshot": snapshot,
        "statuses": {"statuses": [found]},
    }
    return Update(Kind.SNAPSHOT if snapshot else Kind.CHANGE, sequence, prev, f"t{sequence}", body)


def special(kind: Kind, sequence: int, reason: int = 0) -> Update:
    """A heartbeat, drain notice or end at the place of the message before it, of a book."""
    body = {**_book_head("BTCUSD", sequence, sequence, 0), "heartbeat": {**HEARTBEAT, "resume_token": f"t{sequence}"}}
    return Update(kind, sequence, sequence, f"t{sequence}", body, reason)

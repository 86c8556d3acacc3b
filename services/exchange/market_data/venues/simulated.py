"""A venue of our own, so that everything moves without a network: Coinbase's format, on this machine, a price that walks.

The same seed makes the same walk, step for step; the time between steps is the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Self

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from exchange.domain.decimals import format_units

LEVELS: Final = 10
HOST: Final = "127.0.0.1"
HEARTBEAT_S: Final = 1.0
# Messages to a client that does not read; then its connection ends.
MAX_BEHIND: Final = 256
MAX_REQUEST_BYTES: Final = 16 * 1024

# Where the walk begins and to where it is drawn back, in cents; those of the development profile's markets.
ANCHORS: Final[Mapping[str, int]] = MappingProxyType({"BTC-USD": 5_000_000, "ETH-USD": 300_000})
_DECIMALS: Final = 2
_LOTS: Final = 4


@dataclass(frozen=True, slots=True)
class Change:
    """A level: `bid` or `offer`, price in cents, quantity in 0.0001; zero removes it."""

    side: str
    price: int
    quantity: int


@dataclass(slots=True)
class Step:
    """What one step of the walk did."""

    changes: list[Change] = field(default_factory=list)
    trade: tuple[str, int, int] | None = None


class Walk:
    """The market of one product. The middle goes up or down by up to 0.02 % a step, with a pull to its anchor."""

    def __init__(self, anchor: int, rng: random.Random) -> None:
        self._anchor = anchor
        self._rng = rng
        self.middle = anchor
        self.levels: dict[tuple[str, int], int] = {}
        self.step()

    def step(self) -> Step:
        """One step: the changes from the last book to this one, and now and then a trade."""
        rng, widest = self._rng, max(1, self._anchor // 5_000)
        pull = (self._anchor - self.middle) // 100
        self.middle = max(2 * LEVELS * widest, self.middle + rng.randint(-widest, widest) + pull)
        half, gap = rng.randint(1, max(1, widest // 4)), max(1, widest // 10)
        book: dict[tuple[str, int], int] = {}
        for level in range(LEVELS):
            book["bid", self.middle - half - level * gap] = rng.randint(1_000, 50_000)
            book["offer", self.middle + half + level * gap] = rng.randint(1_000, 50_000)
        done = Step([Change(side, price, 0) for side, price in self.levels if (side, price) not in book])
        done.changes += [Change(side, price, quantity) for (side, price), quantity in book.items()]
        self.levels = book
        if rng.random() < 0.5:
            side = rng.choice(("BUY", "SELL"))
            done.trade = (side, self.middle + (half if side == "BUY" else -half), rng.randint(10, 5_000))
        return done

    def snapshot(self) -> list[Change]:
        """The whole book."""
        return [Change(side, price, quantity) for (side, price), quantity in self.levels.items()]


class _Client:
    """One connection: its own sequence, and what it has subscribed to as (channel, product)."""

    def __init__(self) -> None:
        self.sequence = 0
        self.beats = 0
        self.subscribed: set[tuple[str, str]] = set()
        self.outgoing: asyncio.Queue[str] = asyncio.Queue(MAX_BEHIND)
        self.is_behind = False

    def refuse(self) -> None:
        """Say that it was no subscription."""
        self._put('{"type":"error","message":"failure to subscribe"}')

    def send(self, channel: str, events: Sequence[object]) -> None:
        """Put a message behind those that wait; one who does not read is cut off."""
        message = {
            "channel": channel,
            "client_id": "",
            "timestamp": _now(),
            "sequence_num": self.sequence,
            "events": events,
        }
        self.sequence += 1
        self._put(msgspec.json.encode(message).decode())

    def _put(self, text: str) -> None:
        try:
            self.outgoing.put_nowait(text)
        except asyncio.QueueFull:
            self.is_behind = True


class SimulatedVenue:
    """`async with` it: it listens at `url`, and walks every `every_s` seconds."""

    def __init__(self, seed: int, every_s: float, anchors: Mapping[str, int] = ANCHORS, *, port: int = 0) -> None:
        """The same seed and products make the same walk."""
        self.walks = {
            product: Walk(anchor, random.Random(f"{seed} {product}"))  # noqa: S311 - a simulation, to be repeated
            for product, anchor in anchors.items()
        }
        self._every_s = every_s
        self._port = port
        self._clients: set[_Client] = set()
        self._trades = 0
        self._server: Server | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None, "it listens inside `async with`"
        return f"ws://{HOST}:{next(iter(self._server.sockets)).getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await serve(self._serve, HOST, self._port, max_size=MAX_REQUEST_BYTES, compression=None)
        self._tasks = (asyncio.create_task(self._walk()), asyncio.create_task(self._beat()))
        return self

    async def __aexit__(self, *_error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, connection: ServerConnection) -> None:
        client = _Client()
        self._clients.add(client)
        writing = asyncio.create_task(_write(connection, client))
        try:
            async for message in connection:
                self._asked(client, message)
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    def _asked(self, client: _Client, message: str | bytes) -> None:
        """A subscription, answered as Coinbase does: by the snapshot, then by what is subscribed now."""
        wanted = _request(message)
        if wanted is None:
            client.refuse()
            return
        channel, products = wanted
        if channel == "heartbeats":
            # They are of the connection, whatever products are named.
            products = [""]
        for product in products:
            if product in self.walks and (channel, product) not in client.subscribed and channel == "level2":
                client.send("l2_data", [_book("snapshot", product, self.walks[product].snapshot())])
            client.subscribed.add((channel, product))
        subscriptions: dict[str, list[str]] = {}
        for name, product in sorted(client.subscribed):
            subscriptions.setdefault(name, []).append(product or "heartbeats")
        client.send("subscriptions", [{"subscriptions": subscriptions}])

    async def _walk(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            for product, walk in self.walks.items():
                step = walk.step()
                for client in self._clients:
                    if ("level2", product) in client.subscribed:
                        client.send("l2_data", [_book("update", product, step.changes)])
                if step.trade is not None:
                    self._trades += 1
                    event = {"type": "update", "trades": [_trade(self._trades, product, step.trade)]}
                    for client in self._clients:
                        if ("market_trades", product) in client.subscribed:
                            client.send("market_trades", [event])

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            for client in self._clients:
                if any(channel == "heartbeats" for channel, _ in client.subscribed):
                    client.beats += 1
                    client.send("heartbeats", [{"current_time": _now(), "heartbeat_counter": client.beats}])


async def _write(connection: ServerConnection, client: _Client) -> None:
    with contextlib.suppress(ConnectionClosed):
        while not client.is_behind:
            await connection.send(await client.outgoing.get())
        await connection.close(1008, "too slow")


def _request(message: str | bytes) -> tuple[str, list[str]] | None:
    """Channel and products of a subscription; None for anything else."""
    try:
        found: Any = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeError):
        return None
    if not isinstance(found, dict) or found.get("type") != "subscribe" or not isinstance(found.get("channel"), str):
        return None
    products = found.get("product_ids", [])
    if not isinstance(products, list) or not all(isinstance(product, str) for product in products):
        return None
    return found["channel"], products


def _book(kind: str, product: str, changes: Sequence[Change]) -> dict[str, object]:
    now = _now()
    updates = [
        {
            "side": change.side,
            "event_time": now,
            "price_level": format_units(change.price, _DECIMALS),
            "new_quantity": format_units(change.quantity, _LOTS) if change.quantity else "0",
        }
        for change in changes
    ]
    return {"type": kind, "product_id": product, "updates": updates}


def _trade(number: int, product: str, trade: tuple[str, int, int]) -> dict[str, str]:
    side, price, quantity = trade
    return {
        "trade_id": str(number),
        "product_id": product,
        "price": format_units(price, _DECIMALS),
        "size": format_units(quantity, _LOTS),
        "side": side,
        "time": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def price_of(walk: Walk) -> Decimal:
    """The middle of a walk as a price."""
    return Decimal(format_units(walk.middle, _DECIMALS))

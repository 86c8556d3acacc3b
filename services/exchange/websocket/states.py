"""What a public channel shows now, kept from its messages, for those who join later: a snapshot needs no server.

All of it is in the JSON form of the contracts: decimals are texts, and so are 64-bit numbers.
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import Any, Final, Protocol
from zlib import crc32

from exchange.websocket.channels import BEST_PRICES, BOOK, BOOK_ORDERS, CANDLES, STATUS, TICKER, TRADES, Key
from exchange.websocket.updates import Kind, Update

TRADES_SHOWN: Final = 100
CHECKSUM_LEVELS: Final = 10


class WrongState(Exception):
    """What was kept is not what the exchange has."""


class State(Protocol):
    """Of one channel."""

    def apply(self, update: Update) -> None:
        """Take a snapshot or a change."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """All of it as the body of a snapshot, at the place of the last update. Raises WrongState."""
        ...


class BookState:
    """An aggregated book."""

    def __init__(self) -> None:
        self._bids: dict[str, dict[str, Any]] = {}
        self._asks: dict[str, dict[str, Any]] = {}
        self._mode = ""
        self._last: dict[str, Any] = {}

    def apply(self, update: Update) -> None:
        """See `State`."""
        body = update.body
        self._last = body
        content = body.get("snapshot")
        if content is not None:
            self._bids, self._asks = {}, {}
            self._mode = content["mode"]
        else:
            content = body.get("delta", {})
            self._mode = body.get("mode", self._mode)
        for side, levels in ((self._bids, content.get("bids", ())), (self._asks, content.get("asks", ()))):
            for level in levels:
                if _is_zero(level["quantity"]):
                    side.pop(level["price"], None)
                else:
                    side[level["price"]] = level

    def snapshot(self) -> dict[str, Any]:
        """See `State`; the checksum is computed, and must be the one that came."""
        bids = sorted(self._bids.values(), key=_price, reverse=True)
        asks = sorted(self._asks.values(), key=_price)
        last = self._last
        if checksum(bids, asks) != last["checksum"]:
            raise WrongState(f"the book of {last['symbol']} at {last['sequence']}")
        return {
            "symbol": last["symbol"],
            "sequence": last["sequence"],
            "prev_sequence": "0",
            "checksum": last["checksum"],
            "resume_token": last["resume_token"],
            "snapshot": {"bids": bids, "asks": asks, "mode": self._mode},
        }


class OrderBookState:
    """A book order by order; `docs/MARKET_DATA.md` says how its messages are applied."""

    def __init__(self) -> None:
        # By price, in no order, its orders by id in the order of priority: a dictionary keeps the order in which they came.
        self._sides: dict[str, dict[str, dict[str, dict[str, Any]]]] = {"BUY": {}, "SELL": {}}
        self._orders: dict[str, dict[str, Any]] = {}
        self._last: dict[str, Any] = {}

    def apply(self, update: Update) -> None:
        """See `State`."""
        self._last = body = update.body
        if update.kind is Kind.SNAPSHOT:
            self._sides = {"BUY": {}, "SELL": {}}
            self._orders.clear()
        content = body.get("snapshot") or body.get("delta") or {}
        moved = set(content.get("moved_to_back", ()))
        for order in content.get("orders", ()):
            self._take(order, moved=order["order_id"] in moved)

    def _take(self, order: dict[str, Any], *, moved: bool) -> None:
        order_id, side = order["order_id"], self._sides[order["side"]]
        before = self._orders.get(order_id)
        gone = _is_zero(order["quantity"])
        if before is not None and (gone or moved or before["price"] != order["price"]):
            queue = side[before["price"]]
            del queue[order_id], self._orders[order_id]
            if not queue:
                del side[before["price"]]
        if not gone:
            self._orders[order_id] = order
            side.setdefault(order["price"], {})[order_id] = order

    def snapshot(self) -> dict[str, Any]:
        """See `State`; the checksum is computed, and must be the one that came."""
        bids, asks = (
            [queues[price] for price in sorted(queues, key=Decimal, reverse=side == "BUY")]
            for side, queues in self._sides.items()
        )
        last = self._last
        if checksum(_levels(bids), _levels(asks)) != last["checksum"]:
            raise WrongState(f"the book of {last['symbol']} by orders at {last['sequence']}")
        return {
            "symbol": last["symbol"],
            "sequence": last["sequence"],
            "prev_sequence": "0",
            "checksum": last["checksum"],
            "resume_token": last["resume_token"],
            "snapshot": {
                "orders": [order for queue in (*bids, *asks) for order in queue.values()],
                "moved_to_back": [],
            },
        }


class TapeState:
    """The latest trades."""

    def __init__(self) -> None:
        self._trades: deque[dict[str, Any]] = deque(maxlen=TRADES_SHOWN)
        self._newest_time: str | None = None
        self._last: dict[str, Any] = {}

    def apply(self, update: Update) -> None:
        """See `State`."""
        self._last = update.body
        if update.kind is Kind.SNAPSHOT:
            self._trades.clear()
            self._newest_time = None
        batch = update.body.get("snapshot") or update.body.get("trades") or {}
        self._trades.extend(batch.get("trades", ()))
        self._newest_time = batch.get("newest_trade_time", self._newest_time)

    def snapshot(self) -> dict[str, Any]:
        """See `State`."""
        batch: dict[str, Any] = {"trades": list(self._trades)}
        if self._newest_time is not None:
            batch["newest_trade_time"] = self._newest_time
        last = self._last
        return {
            "sequence": last["sequence"],
            "prev_sequence": "0",
            "resume_token": last["resume_token"],
            "snapshot": batch,
        }


class LatestState:
    """The newest value of each thing that the channel names by `by`. Its batch is the field `name`, of items `items`.

    `bounded`: no more things than the exchange's own snapshot had, those with the greatest name, which is their time.
    """

    def __init__(self, name: str, items: str, by: str, *, bounded: bool = False) -> None:
        self._name = name
        self._items = items
        self._by = by
        self._bounded = bounded
        self._most = 1
        self._values: dict[str, dict[str, Any]] = {}
        self._last: dict[str, Any] = {}

    def apply(self, update: Update) -> None:
        """See `State`."""
        self._last = update.body
        found = update.body.get(self._name, {}).get(self._items, ())
        if update.kind is Kind.SNAPSHOT:
            self._values.clear()
            self._most = max(len(found), 1)
        for value in found:
            self._values[value[self._by]] = value
        if self._bounded:
            while len(self._values) > self._most:
                del self._values[min(self._values)]

    def snapshot(self) -> dict[str, Any]:
        """See `State`."""
        last = self._last
        return {
            "sequence": last["sequence"],
            "prev_sequence": "0",
            "resume_token": last["resume_token"],
            "snapshot": True,
            self._name: {self._items: [self._values[name] for name in sorted(self._values)]},
        }


def state_of(key: Key) -> State:
    """An empty one for a channel. Raises KeyError for a private one: those are nobody else's."""
    if key.channel == BOOK:
        return BookState()
    if key.channel == BOOK_ORDERS:
        return OrderBookState()
    if key.channel == TRADES:
        return TapeState()
    if key.channel == CANDLES:
        return LatestState("candles", "candles", "open_time", bounded=True)
    return LatestState(*_LATEST[key.channel], "symbol")


def checksum(bids: list[dict[str, Any]], asks: list[dict[str, Any]]) -> int:
    """As `docs/FEEDS.md` defines it, of levels that are sorted best first."""
    parts = [
        f"{side[rank]['price']}:{side[rank]['quantity']}"
        for rank in range(min(max(len(bids), len(asks)), CHECKSUM_LEVELS))
        for side in (bids, asks)
        if rank < len(side)
    ]
    return crc32(":".join(parts).encode())


_LATEST: Final = {
    TICKER: ("tickers", "tickers"),
    BEST_PRICES: ("best_prices", "best_prices"),
    STATUS: ("statuses", "statuses"),
}


def _price(level: dict[str, Any]) -> Decimal:
    return Decimal(level["price"])


def _levels(queues: list[dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The levels that the checksum is of, from the orders of each price."""
    found = []
    for queue in queues[:CHECKSUM_LEVELS]:
        orders = list(queue.values())
        # A sum of amounts has as many digits behind the point as they.
        total = sum((Decimal(order["quantity"]) for order in orders), Decimal(0))
        found.append({"price": orders[0]["price"], "quantity": f"{total:f}"})
    return found


def _is_zero(quantity: str) -> bool:
    return not quantity.strip("0.")

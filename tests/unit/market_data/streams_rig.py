"""An instance of market data without its process, and clients that keep copies from the contract alone."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

from exchange.market_data.books import Books
from exchange.market_data.service.book_streams import BookStreams
from exchange.market_data.service.feeds import Counts
from exchange.market_data.service.order_streams import OrderStreams
from exchange.market_data.service.places import Places
from exchange.market_data.service.trade_streams import TradeStreams
from exchange.market_data.service.value_streams import BestPrices, Statuses, ValueStreams
from exchange.runtime.errors import ErrorReason, ServiceError
from pincex.marketdata.v1 import market_data_service_pb2 as data_pb
from pincex.trading.v1 import market_service_pb2 as pb
from tests.integration.trading.book_copy import BookCopy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from exchange.market_data.events import Batch, Snapshot


class FollowerAt:
    """Stands in for the follower: where the instance is."""

    def __init__(self) -> None:
        self.sequence = 0

    async def reached(self, sequence: int, timeout_s: float) -> bool:
        del timeout_s
        return self.sequence >= sequence


class Instance:
    """Books and streams; `asked` are the places that the engine had to judge."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.asked: list[Any] = []
        self.follower = FollowerAt()
        self.places = Places(cast("Any", self.follower), self._ask)
        self.books, self.counts = Books(), Counts()
        past: Any = None
        self.levels = BookStreams(self.books, self.places, self.counts)
        self.orders = OrderStreams(self.books, self.places, self.counts)
        self.trades = TradeStreams(self.books, self.places, past, self.counts)
        self.best = ValueStreams("best-prices", BestPrices(self.books), self.books, self.places, self.counts)
        self.status = ValueStreams("market-status", Statuses(self.books), self.books, self.places, self.counts)
        self.kinds: list[Any] = [self.levels, self.orders, self.trades, self.best, self.status]
        for kind in self.kinds:
            self.books.add(kind)
        self.begin(snapshot)

    async def _ask(self, position: Any) -> None:
        self.asked.append(position)

    def begin(self, snapshot: Snapshot) -> None:
        self.places.begin(snapshot)
        self.books.begin(snapshot)
        self.follower.sequence = snapshot.sequence

    def take(self, batch: Batch) -> None:
        self.places.take(batch)
        self.books.take(batch)
        self.follower.sequence = batch.last_sequence

    def flush(self) -> None:
        """As if every interval had passed."""
        for feed in self.levels._feeds.values():
            for interval_ms in (100, 250, 1000):
                feed.flush(interval_ms)

    def stream(self, what: str, token: str = "") -> AsyncIterator[bytes]:
        kind, *more = what.split()
        if kind == "levels":
            return self.levels.serve("XY", int(more[0]), int(more[1]), token)
        if kind == "orders":
            return self.orders.serve("XY", token)
        if kind == "trades":
            return self.trades.serve("XY", token)
        return {"best": self.best, "status": self.status}[kind].serve(more, token)


MESSAGES: dict[str, Any] = {
    "levels": pb.OrderBookUpdate,
    "orders": data_pb.BookOrdersUpdate,
    "trades": pb.TradeUpdate,
    "best": data_pb.MarketDataUpdate,
    "status": data_pb.MarketDataUpdate,
}


class Reader:
    """One subscriber, who reads at once what there is."""

    def __init__(self, instance: Instance, what: str, token: str = "") -> None:
        self.make = MESSAGES[what.split(maxsplit=1)[0]]
        self.messages: list[Any] = []
        self.error: ServiceError | None = None
        self._task = asyncio.create_task(self._read(instance.stream(what, token)))

    async def _read(self, stream: AsyncIterator[bytes]) -> None:
        try:
            async for message in stream:
                self.messages.append(self.make.FromString(message))
        except ServiceError as error:
            self.error = error

    @property
    def ended(self) -> bool:
        return self._task.done()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def settle() -> None:
    """Let every reader take what there is."""
    for _ in range(4):
        await asyncio.sleep(0)


class LevelCopy(BookCopy):
    """As the engine's streams are read; a level that came and went within a frame may be told as gone."""

    def _take(self, levels: pb.BookSnapshot | pb.BookDelta) -> None:
        for side, changed in ((self.bids, levels.bids), (self.asks, levels.asks)):
            for level in changed:
                if float(level.quantity) == 0:
                    side.pop(level.price, None)
                else:
                    side[level.price] = (level.quantity, level.order_count)


class OrderCopy:
    """A book order by order, from the contract: id to (side, price, quantity) for each side and price, in order."""

    def __init__(self) -> None:
        self.queues: dict[tuple[int, str], dict[str, str]] = {}
        self.places: dict[str, tuple[int, str]] = {}
        self.sequence = 0

    def apply(self, update: Any) -> None:
        kind = update.WhichOneof("update")
        if kind == "snapshot":
            assert update.prev_sequence == 0
            self.queues, self.places = {}, {}
        else:
            assert update.prev_sequence == self.sequence, "a gap"
        if kind in ("snapshot", "delta"):
            changed = getattr(update, kind)
            for order in changed.orders:
                self._order(order, moved=order.order_id in changed.moved_to_back)
        self.sequence = update.sequence
        assert update.checksum == self.checksum()

    def _order(self, order: Any, *, moved: bool) -> None:
        place = (order.side, order.price)
        before = self.places.get(order.order_id)
        if float(order.quantity) == 0:
            assert before is not None, "it went, and was not there"
            self._leave(order.order_id, before)
            return
        if before is not None and (moved or before != place):
            self._leave(order.order_id, before)
        self.queues.setdefault(place, {})[order.order_id] = order.quantity
        self.places[order.order_id] = place

    def _leave(self, order_id: str, place: tuple[int, str]) -> None:
        del self.queues[place][order_id]
        del self.places[order_id]
        if not self.queues[place]:
            del self.queues[place]

    def _prices(self, side: int) -> list[str]:
        return sorted((price for at, price in self.queues if at == side), key=float, reverse=side == 1)

    def in_priority(self, side: int) -> list[tuple[str, str, str]]:
        """(price, id, quantity), best first, first come first."""
        return [(price, *row) for price in self._prices(side) for row in self.queues[side, price].items()]

    def checksum(self) -> int:
        sides = []
        for side in (1, 2):
            best = self._prices(side)[:10]
            # The sum of amounts has as many digits behind the point as they.
            sides.append([f"{price}:{sum(map(Decimal, self.queues[side, price].values()))}" for price in best])
        parts = [side[rank] for rank in range(10) for side in sides if rank < len(side)]
        return crc32(":".join(parts).encode())


class ValueCopy:
    """The newest value of each market."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.sequence = 0

    def apply(self, update: Any) -> None:
        kind = update.WhichOneof("update")
        if update.snapshot:
            assert update.prev_sequence == 0
            self.values = {}
        else:
            assert update.prev_sequence == self.sequence, "a gap"
        if kind in ("best_prices", "statuses"):
            for one in getattr(getattr(update, kind), kind):
                assert update.snapshot or self.values.get(one.symbol) != one, "told twice"
                self.values[one.symbol] = one
        self.sequence = update.sequence


class TradeCopy:
    """All trades that were told since the snapshot."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.sequence = 0

    def apply(self, update: Any) -> None:
        assert update.prev_sequence == (0 if update.HasField("snapshot") else self.sequence), "a gap"
        self.ids += [trade.trade_id for trade in update.trades.trades]
        self.sequence = update.sequence


def copy_of(what: str) -> Any:
    """A client's copy of a stream."""
    kinds: dict[str, Any] = {"levels": LevelCopy, "orders": OrderCopy, "trades": TradeCopy}
    return kinds.get(what.split(maxsplit=1)[0], ValueCopy)()


def refused(reader: Reader) -> str:
    """The reason of a refusal."""
    assert reader.error is not None
    return ErrorReason.Name(reader.error.reason)  # type: ignore[arg-type]

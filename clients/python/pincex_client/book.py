"""A local order book that is right or says so, and the stream that feeds it."""

import zlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from pincex.marketdata.v1 import market_data_service_pb2
from pincex.trading.v1 import market_service_pb2, types_pb2
from pincex_client.errors import ExchangeError, Unavailable
from pincex_client.models import Level
from pincex_client.streams import Reconnect, ResumableStream
from pincex_client.transport import Identity, Metadata

if TYPE_CHECKING:
    from pincex.marketdata.v1.market_data_service_pb2_grpc import MarketDataServiceAsyncStub
    from pincex.trading.v1.market_service_pb2_grpc import MarketServiceAsyncStub

CHECKSUM_LEVELS = 10


class BookSide:
    """The levels of one side, best first. Prices are keyed as numbers and kept as sent."""

    def __init__(self, *, descending: bool) -> None:
        self._sign = -1 if descending else 1
        self._keys: list[Decimal] = []
        self._levels: dict[Decimal, tuple[str, str, int]] = {}

    def __len__(self) -> int:
        """Return how many levels there are."""
        return len(self._keys)

    def set(self, price: str, quantity: str, order_count: int) -> None:
        """Give a level its new quantity; zero takes it away."""
        key = self._sign * Decimal(price)
        known = key in self._levels
        if not Decimal(quantity):
            if known:
                del self._levels[key]
                del self._keys[bisect_left(self._keys, key)]
            return
        if not known:
            insort(self._keys, key)
        self._levels[key] = (price, quantity, order_count)

    def trim(self, depth: int) -> None:
        """Forget what lies beyond `depth` levels: the stream no longer speaks of it."""
        for key in self._keys[depth:]:
            del self._levels[key]
        del self._keys[depth:]

    def clear(self) -> None:
        """Forget everything."""
        self._keys.clear()
        self._levels.clear()

    def best(self) -> Decimal | None:
        """Best price, None without levels."""
        return self._sign * self._keys[0] if self._keys else None

    def levels(self, depth: int | None = None) -> tuple[Level, ...]:
        """The best `depth` levels, best first; all for None."""
        shown = self._keys if depth is None else self._keys[:depth]
        entries = (self._levels[key] for key in shown)
        return tuple(Level(Decimal(price), Decimal(quantity), count) for price, quantity, count in entries)

    def texts(self, depth: int) -> list[str]:
        """`price:quantity` of the best levels, exactly as sent."""
        return [f"{self._levels[key][0]}:{self._levels[key][1]}" for key in self._keys[:depth]]


class LiveBook:
    """An aggregated book kept by a `BookStream`.

    While `live` is False the book is empty: it is being fetched anew, and a wrong one is never shown. While `stale` is True
    it is the last one that was right, and may be old: the connection is lost, silent, or behind the exchange.
    """

    def __init__(self, symbol: str, depth: int = 0, trouble: Callable[[], str] = str) -> None:
        self._trouble = trouble
        self.symbol = symbol
        self.depth = depth
        self.sequence = 0
        self.mode = ""
        self.live = False
        self.bid_side = BookSide(descending=True)
        self.ask_side = BookSide(descending=False)

    def bids(self, depth: int | None = None) -> tuple[Level, ...]:
        """Bids, best first."""
        return self.bid_side.levels(depth)

    def asks(self, depth: int | None = None) -> tuple[Level, ...]:
        """Asks, best first."""
        return self.ask_side.levels(depth)

    @property
    def stale(self) -> bool:
        """Whether the book may be old."""
        return bool(self._trouble())

    @property
    def best_bid(self) -> Decimal | None:
        """Highest bid, None without one."""
        return self.bid_side.best()

    @property
    def best_ask(self) -> Decimal | None:
        """Lowest ask, None without one."""
        return self.ask_side.best()

    @property
    def crossed(self) -> bool:
        """Whether the best bid is not below the best ask, which no book of the exchange ever is."""
        bid, ask = self.best_bid, self.best_ask
        return bid is not None and ask is not None and bid >= ask

    def replace(self, bids: Iterable[types_pb2.PriceLevel], asks: Iterable[types_pb2.PriceLevel]) -> None:
        """Take a snapshot."""
        self.bid_side.clear()
        self.ask_side.clear()
        self.change(bids, asks)
        self.live = True

    def change(self, bids: Iterable[types_pb2.PriceLevel], asks: Iterable[types_pb2.PriceLevel]) -> None:
        """Apply changed levels."""
        for side, levels in ((self.bid_side, bids), (self.ask_side, asks)):
            for level in levels:
                side.set(level.price, level.quantity, level.order_count)
            if self.depth:
                side.trim(self.depth)

    def clear(self) -> None:
        """Forget everything; not live until the next snapshot."""
        self.bid_side.clear()
        self.ask_side.clear()
        self.live = False
        self.sequence = 0

    def checksum(self) -> int:
        """Return the checksum that the exchange sends with each message; see `checksum_of`."""
        return checksum_of(self.bid_side.texts(CHECKSUM_LEVELS), self.ask_side.texts(CHECKSUM_LEVELS))


def checksum_of(bids: list[str], asks: list[str]) -> int:
    """CRC-32 (IEEE) over `price:quantity` texts, best first, bid and ask in turn, joined by `:`.

    Where one side has fewer levels its turn is left out; both empty: 0. Test vectors: `docs/FEEDS.md`.
    """
    turns = (text for pair in zip_longest(bids, asks) for text in pair if text is not None)
    return zlib.crc32(":".join(turns).encode("ascii"))


class BookStubs(NamedTuple):
    """Who sends books: each change as it comes, or conflated."""

    markets: "MarketServiceAsyncStub"
    market_data: "MarketDataServiceAsyncStub"


class BookStream(ResumableStream[LiveBook]):
    """A live book: each iteration gives the same `LiveBook`, changed by one message and verified.

    Sequence, checksum and "not crossed" are checked on every message; whatever does not add up empties the book,
    counts in `gaps` or `mismatches`, and fetches a fresh snapshot. With `tell_stale` an iteration ends, too, when the
    connection is lost and the book becomes `stale`. With `interval_ms` (100, 250, 1000) the exchange sends at most one
    message in that time, with all that changed.
    """

    def __init__(
        self,
        stubs: "BookStubs",
        identity: Identity,
        symbol: str,
        depth: int = 0,
        *,
        interval_ms: int = 0,
        tell_stale: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(identity, **options)
        self.book = LiveBook(symbol, depth, lambda: self.trouble)
        self._stubs = stubs
        self._interval_ms = interval_ms
        self._tell_stale = tell_stale
        # A token without the book it continues would build on nothing.
        self.resume_token = ""

    def _call(self, resume_token: str, metadata: Metadata) -> Any:
        symbol, depth = self.book.symbol, self.book.depth
        if self._interval_ms:
            conflated = market_data_service_pb2.StreamBookRequest(
                symbol=symbol, depth=depth, interval_ms=self._interval_ms, resume_token=resume_token
            )
            return self._stubs.market_data.StreamBook(conflated, metadata=metadata)
        request = market_service_pb2.StreamOrderBookRequest(symbol=symbol, depth=depth, resume_token=resume_token)
        return self._stubs.markets.StreamOrderBook(request, metadata=metadata)

    def _apply(self, kind: str, message: Any) -> Iterable[LiveBook]:
        match kind:
            case "snapshot":
                self.book.replace(message.snapshot.bids, message.snapshot.asks)
                self.book.mode = types_pb2.MarketMode.Name(message.snapshot.mode)
            case "delta":
                self.book.change(message.delta.bids, message.delta.asks)
            case "mode":
                self.book.mode = types_pb2.MarketMode.Name(message.mode)
            case _:
                return ()
        self.book.sequence = message.sequence
        return (self.book,)

    def _check(self, message: Any) -> None:
        if not self.book.live:
            return
        control = message.WhichOneof("update") in {"heartbeat", "drain", "mode"}
        if control and not message.checksum:
            return
        if message.checksum != self.book.checksum() or self.book.crossed:
            self.mismatches += 1
            raise Reconnect(_wrong_book(message.checksum, self.book), reset=True)

    def _discard(self, *, history_changed: bool) -> None:
        del history_changed
        self.book.clear()

    def _interrupted(self) -> Iterable[LiveBook]:
        return (self.book,) if self._tell_stale else ()


def _wrong_book(checksum: int, book: LiveBook) -> ExchangeError:
    text = f"book of {book.symbol} at {book.sequence}: checksum {book.checksum()}, the exchange says {checksum}"
    return Unavailable(text + (", crossed" if book.crossed else ""), reason="UPSTREAM_UNAVAILABLE")

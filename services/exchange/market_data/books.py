"""All markets as the events make them: books, rules, modes, switches and latest trades; and who is told when they change."""

from __future__ import annotations

from typing import Protocol

import structlog

from exchange.domain.symbols import canonical_symbol
from exchange.market_data import events as ev
from exchange.market_data.book import OrderBook
from exchange.market_data.follower import Inconsistent
from exchange.market_data.tape import Tape
from exchange.runtime.errors import ErrorReason, ServiceError


class Market:
    """One market. `definition` is its message as of its last change: what trades and the book say goes before it."""

    def __init__(self, changed: ev.MarketChanged) -> None:
        self.symbol = changed.symbol
        self.book = OrderBook(changed.symbol, changed.tick_size, changed.lot_size)
        self.tape = Tape()
        self.mode = changed.mode
        self.definition = changed.definition
        self.last_price = changed.last_price

    def change(self, changed: ev.MarketChanged) -> None:
        """Take new rules or a new mode: tick and lot never change."""
        self.mode = changed.mode
        self.definition = changed.definition


class Frame:
    """What one frame changed: the batch, symbols whose book did, symbols whose rules or mode did or that are new, trades by
    symbol, and whether the switches did.
    """

    __slots__ = ("batch", "books", "markets", "switches", "trades")

    def __init__(self, batch: ev.Batch) -> None:
        self.batch = batch
        self.books: set[str] = set()
        self.markets: set[str] = set()
        self.trades: dict[str, list[ev.TradeExecuted]] = {}
        self.switches = False


class Listener(Protocol):
    """Something that sends what books hold. Neither method waits or fails."""

    def start_over(self, *, same_history: bool) -> None:
        """All books were replaced; `same_history`: by later ones of the history that was followed before."""
        ...

    def frame(self, frame: Frame) -> None:
        """The books went on by one frame."""
        ...


class Books:
    """See the module; a consumer of the follower."""

    def __init__(self) -> None:
        self.markets: dict[str, Market] = {}
        self.switches = ev.SwitchesChanged(0, 0, accept_new_orders=True, maintenance=False, circuit_breaker=False)
        self.sequence = 0
        self.frame_hash = b""
        self.verified = 0
        self.differed = 0
        self._history: tuple[str, int] | None = None
        self._listeners: list[Listener] = []
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("books")

    def add(self, listener: Listener) -> None:
        """Tell a listener of everything from now on."""
        self._listeners.append(listener)

    # --- following ---

    def begin(self, snapshot: ev.Snapshot) -> None:
        """See `follower.Consumer`."""
        markets: dict[str, Market] = {}
        for changed in snapshot.markets:
            market = markets[changed.symbol] = Market(changed)
            market.book.fill(snapshot.resting.get(changed.symbol, ()))
            market.tape = Tape(snapshot.trades.get(changed.symbol, ()))
        self.markets = markets
        self.switches = snapshot.switches
        self.sequence, self.frame_hash = snapshot.sequence, snapshot.frame_hash
        history = (snapshot.incarnation, snapshot.shard)
        same_history = self._history == history
        self._history = history
        for listener in self._listeners:
            listener.start_over(same_history=same_history)

    def take(self, batch: ev.Batch) -> None:
        """See `follower.Consumer`."""
        frame = Frame(batch)
        for event in batch.events:
            self._apply(event, frame)
        for symbol in frame.books:
            if self.markets[symbol].book.is_crossed():
                raise Inconsistent(f"the book of {symbol} is crossed after sequence {batch.last_sequence}")
        self.sequence, self.frame_hash = batch.last_sequence, batch.frame_hash
        for listener in self._listeners:
            listener.frame(frame)

    def _apply(self, event: ev.Event, frame: Frame) -> None:
        if isinstance(event, ev.SwitchesChanged):
            self.switches = event
            frame.switches = True
            return
        symbol = event.symbol
        market = self.markets.get(symbol)
        if isinstance(event, ev.MarketChanged):
            if market is None:
                self.markets[symbol] = Market(event)
            else:
                market.change(event)
            frame.markets.add(symbol)
            return
        if market is None:
            raise Inconsistent(f"sequence {event.sequence}: no market {symbol} is known here")
        if isinstance(event, ev.BookHashed):
            self._verify(market.book, event)
            return
        market.book.apply(event)
        frame.books.add(symbol)
        if isinstance(event, ev.TradeExecuted):
            market.tape.add(event)
            market.last_price = event.price
            frame.trades.setdefault(symbol, []).append(event)

    def _verify(self, book: OrderBook, event: ev.BookHashed) -> None:
        self.verified += 1
        found = book.book_hash()
        if found != event.book_hash:
            self.differed += 1
            self._log.error(
                "a book is not the engine's",
                symbol=book.symbol,
                sequence=event.sequence,
                ours=found,
                its=event.book_hash,
            )
            raise Inconsistent(f"the book of {book.symbol} is not the engine's after sequence {event.sequence}")

    # --- reading ---

    def market(self, symbol: str) -> Market:
        """A market by any form of its name. Raises ServiceError NOT_READY before the first snapshot, FIELD_REQUIRED or
        UNKNOWN_SYMBOL.
        """
        market = self.markets.get(symbol)
        if market is None:
            if not self.sequence:
                raise ServiceError(ErrorReason.NOT_READY)
            if not symbol:
                raise ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": "symbol"})
            market = self.markets.get(canonical_symbol(symbol))
            if market is None:
                raise ServiceError(ErrorReason.UNKNOWN_SYMBOL, metadata={"symbol": symbol})
        return market

"""Readers of every kind of feed, who keep what they were told and compare it at the end with what was to be told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from exchange.trading import codec
from exchange.trading.core.events import E_KIND, T_INDEX, T_MAKER_ACCOUNT, T_MARKET, T_TAKER_ACCOUNT, TRADE
from exchange.trading.journal.contract import Journal
from exchange.trading.journal.postgres import PostgresJournal
from pincex_client import ExchangeClient, Fill, Order
from pincex_client.feeds import OrdersSnapshot
from pincex_client.streams import ResumableStream
from tests.integration.recovery.load import SYMBOL, Target

ALL_LEVELS = 5_000
FIRST_DEADLINE_S = 20.0
LAST_DEADLINE_S = 30.0
OPEN = frozenset({"PENDING", "PARTIAL"})
MARKET = 0
"""The number of the first market that an exchange makes."""

TradeSide = tuple[str, bool]


@dataclass(slots=True)
class Counts:
    """Of one feed: messages with content, connections after the first, and what it has said of itself."""

    updates: int
    reconnects: int
    resets: int


@dataclass
class Streams:
    """The book, the trades, an account's own events and its balances, read until `finish`.

    Each connects through the edge and resumes by itself; an error that ends one is a defect.
    """

    exchange: Target
    account: str
    updates: dict[str, int] = field(default_factory=dict)
    trades: list[str] = field(default_factory=list)
    fills: list[TradeSide] = field(default_factory=list)
    orders: dict[str, Order] = field(default_factory=dict)
    since: int = 0
    """What comes after this sequence was to be told in full."""

    async def start(self) -> None:
        """Connect all; returns once each has told its first snapshot."""
        self._exits = AsyncExitStack()
        client = self._client = await self._exits.enter_async_context(self.exchange.client(self.account))
        self._book, self._trade_stream = client.book_stream(SYMBOL), client.trade_stream(SYMBOL)
        self._events, self._balances = client.order_events(), client.balance_stream()
        readers = [self._read_book(), self._read_trades(), self._read_events(), self._read_balances()]
        self._tasks = [asyncio.create_task(reader) for reader in readers]
        sequence = (await client.admin.engine_state()).sequence
        await self._all_reached(sequence, FIRST_DEADLINE_S)
        self.since = max(sequence, *(stream.sequence for stream in self._named.values()))

    @property
    def _named(self) -> dict[str, ResumableStream[Any]]:
        return {
            "book": self._book,
            "trades": self._trade_stream,
            "order events": self._events,
            "balances": self._balances,
        }

    @property
    def counts(self) -> dict[str, Counts]:
        """What each feed has done so far."""
        return {
            name: Counts(self.updates.get(name, 0), stream.reconnects, stream.resets)
            for name, stream in self._named.items()
        }

    def check(self) -> None:
        """Raise what has ended a feed so far."""
        for task in self._tasks:
            if task.done():
                task.result()
                raise AssertionError("a feed ended by itself")

    async def finish(self) -> None:
        """Once nobody trades any more: read to the end, stop, and compare. Raises AssertionError."""
        journal = await PostgresJournal.open(self.exchange.database.trading_url)
        try:
            await self._finish((await self._client.admin.engine_state()).sequence, journal)
        finally:
            await journal.close()

    async def _finish(self, sequence: int, journal: Journal) -> None:
        """Read up to `sequence`, stop, and compare. Raises AssertionError."""
        try:
            await self._all_reached(sequence, LAST_DEADLINE_S)
            self.check()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for stream in self._named.values():
                await stream.aclose()
        try:
            await self._compare(self._client, journal)
        finally:
            await self._exits.aclose()

    async def _all_reached(self, sequence: int, deadline_s: float) -> None:
        waits = [asyncio.ensure_future(stream.reached(sequence)) for stream in self._named.values()]
        try:
            async with asyncio.timeout(deadline_s):
                while not all(wait.done() for wait in waits):
                    running = [one for one in (*waits, *self._tasks) if not one.done()]
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    self.check()
        finally:
            for wait in waits:
                wait.cancel()

    # --- reading ---

    def _count(self, name: str) -> None:
        self.updates[name] = self.updates.get(name, 0) + 1

    async def _read_book(self) -> None:
        async for _ in self._book:
            self._count("book")

    async def _read_trades(self) -> None:
        async for trade in self._trade_stream:
            self._count("trades")
            self.trades.append(trade.trade_id)

    async def _read_events(self) -> None:
        async for update in self._events:
            self._count("order events")
            match update:
                case OrdersSnapshot():
                    self.orders = {order.order_id: order for order in update.orders}
                case Fill():
                    self.fills.append((update.trade_id, update.is_maker))
                case Order():
                    if update.status in OPEN:
                        self.orders[update.order_id] = update
                    else:
                        self.orders.pop(update.order_id, None)

    async def _read_balances(self) -> None:
        async for _ in self._balances:
            self._count("balances")

    # --- comparing ---

    async def _compare(self, client: ExchangeClient, journal: Journal) -> None:
        for name, stream in self._named.items():
            assert (stream.gaps, stream.mismatches) == (0, 0), f"{name}: content that does not follow, or is wrong"
        trades, fills = await self._told_by_journal(journal)
        compare_all(
            "trades",
            [one for one in self.trades if _sequence(one) > self.since],
            trades,
            resets=self._trade_stream.resets,
        )
        own = [one for one in self.fills if _sequence(one[0]) > self.since]
        compare_all("fills", own, fills, resets=self._events.resets)
        book = await client.get_order_book(SYMBOL, depth=ALL_LEVELS)
        assert (self._book.book.bids(), self._book.book.asks()) == (book.bids, book.asks), "the book of the feed"
        listed = {order.order_id: order.open_quantity async for order in client.iter_orders()}
        told = {order.order_id: order.open_quantity for order in self.orders.values()}
        assert told == listed, "open orders by the account's events"
        balances = {one.asset: (one.available, one.held) for one in await client.list_balances()}
        streamed = {one.asset: (one.available, one.held) for one in self._balances.balances.values()}
        assert streamed == balances, "balances by their feed"

    async def _told_by_journal(self, journal: Journal) -> tuple[list[str], list[TradeSide]]:
        """The trades of the market, and the account's sides of them, after `since`."""
        trades: list[str] = []
        sides: list[TradeSide] = []
        async for frame in journal.read(self.since + 1):
            for sequence, events in enumerate(codec.decode_events(frame.events), frame.first_sequence):
                for event in events:
                    if event[E_KIND] != TRADE or sequence <= self.since:
                        continue
                    trade = f"{sequence}-{event[T_INDEX]}"
                    if event[T_MARKET] == MARKET:
                        trades.append(trade)
                    sides += [
                        (trade, is_maker)
                        for is_maker, place in ((False, T_TAKER_ACCOUNT), (True, T_MAKER_ACCOUNT))
                        if event[place] == self.account
                    ]
        return trades, sides


def _sequence(trade_id: str) -> int:
    return int(trade_id.partition("-")[0])


def compare_all(name: str, told: Sequence[Any], due: Sequence[Any], *, resets: int) -> None:
    """Everything once; a feed that has begun anew, and said so, may have left some out."""
    doubled = len(told) - len(set(told))
    assert doubled == 0, f"{name}: {doubled} were told twice"
    assert set(told) <= set(due), f"{name}: told, and not in the journal: {sorted(map(str, set(told) - set(due)))[:5]}"
    missing = set(due) - set(told)
    assert not missing or resets, f"{name}: {len(missing)} of {len(due)} were not told, and no gap was reported"

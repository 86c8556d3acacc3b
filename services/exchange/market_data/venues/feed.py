"""One feed: a connection to a venue that is opened again and again, and says how it stands."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from exchange.market_data.venues.dialect import Broken, Counts, Fault, Heard
from exchange.market_data.venues.limits import Limits, is_local
from exchange.market_data.venues.pace import Backoff, LatencyWindow
from exchange.market_data.venues.snapshots import Snapshots
from exchange.market_data.venues.ticks import Tick
from exchange.market_data.venues.watch import Watch

if TYPE_CHECKING:
    from decimal import Decimal

    from exchange.market_data.venues.book import VenueBook
    from exchange.market_data.venues.catalogue import Venue
    from exchange.market_data.venues.dialect import Dialect
    from exchange.runtime.clock import Clock

MAX_PROBLEM: Final = 300


class State(Enum):
    """As `FeedState` of the contract."""

    CONNECTING = "CONNECTING"
    SUBSCRIBING = "SUBSCRIBING"
    LIVE = "LIVE"
    STALE = "STALE"
    BACKING_OFF = "BACKING_OFF"


class Feed:
    """`run` is its one task. Ticks go to `sink`, which must not wait."""

    def __init__(
        self,
        venue: Venue,
        sink: Callable[[Tick], None],
        clock: Clock,
        *,
        limits: Limits,
        rng: random.Random,
    ) -> None:
        self.venue = venue
        self.symbols = tuple(venue.products)
        self.state = State.CONNECTING
        self.problem = ""
        self.counts = Counts()
        self.latency = LatencyWindow()
        self.connected_ns: int | None = None
        self.last_message_ns: int | None = None
        self._sink = sink
        self._clock = clock
        self._limits = limits
        self._backoff = Backoff(limits.first_pause_s, limits.longest_pause_s, rng)
        self._restart = asyncio.Event()
        # What was last said of each market, and when.
        self._said: dict[str, tuple[tuple[Decimal | None, Decimal | None], float]] = {}
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("feed").bind(feed=venue.name)

    @property
    def name(self) -> str:
        """The venue's."""
        return self.venue.name

    def restart(self) -> None:
        """Drop the connection, or the pause, and begin anew at once."""
        self._restart.set()

    async def run(self) -> None:
        """Until cancelled. Nothing that a venue sends ends it."""
        while True:
            self._restart.clear()
            await self._until_restart(self._one_connection())
            if not self._restart.is_set():
                self.state = State.BACKING_OFF
                await self._until_restart(asyncio.sleep(self._backoff.next_s()))
            if self._restart.is_set():
                self._backoff.begin_anew()
                self.problem = "restarted by an operator"
            self.counts.reconnects += 1

    async def _until_restart(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it to its end, or until a restart is asked for."""
        tasks = (asyncio.create_task(work), asyncio.create_task(self._until_asked()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_asked(self) -> None:
        await self._restart.wait()

    async def _one_connection(self) -> None:
        """Open it and follow it to its end; why it ended is in `problem`."""
        self.state = State.CONNECTING
        try:
            await self._follow()
        except Broken as error:
            if error.fault is Fault.GARBAGE:
                self.counts.count(error.fault)
            self._ended(str(error))
        except (OSError, TimeoutError, WebSocketException) as error:
            self._ended(f"{type(error).__name__}: {error}"[:MAX_PROBLEM])
        except Exception as error:  # noqa: BLE001 - a defect of ours must end neither the other feeds nor this one
            self._log.exception("the feed has failed")
            self._ended(f"{type(error).__name__}: {error}"[:MAX_PROBLEM])
        finally:
            self._withdraw()

    def _ended(self, why: str) -> None:
        self.problem = why
        self._log.warning("the connection has ended", problem=why)

    async def _follow(self) -> None:
        limits, dialect = self._limits, self.venue.dialect(self.venue.products, self.counts)
        opening = connect(
            self.venue.url + dialect.path(),
            open_timeout=limits.open_s,
            close_timeout=limits.close_s,
            max_size=limits.max_message_bytes,
            # Another's proxy has no business between us and ourselves.
            proxy=None if is_local(self.venue.url) else True,
        )
        async with opening as connection, Snapshots(self.venue, dialect, limits) as snapshots:
            self.connected_ns, self.state = self._clock.time_ns(), State.SUBSCRIBING
            for message in dialect.greeting():
                await connection.send(message)
            await self._read(connection, dialect, snapshots)

    async def _read(self, connection: ClientConnection, dialect: Dialect, snapshots: Snapshots) -> None:
        """Until the connection ends or is of no use; raises what `_one_connection` handles."""
        limits, monotonic = self._limits, self._clock.monotonic
        began = heard_at = monotonic()
        watch = Watch(limits, began)
        while True:
            message = await _received(connection, limits.stale_s)
            now = monotonic()
            if message is not None:
                heard_at = now
                self._take(dialect.receive(message), dialect)
                snapshots.ask()
            elif now - heard_at >= limits.silent_s:
                raise Broken(Fault.SILENT, f"nothing came for {limits.silent_s:g} s")
            for symbol, body in snapshots.come():
                self._take(dialect.snapshot(symbol, body), dialect, is_message=False)
            watch.look(dialect, now)
            if len(dialect.books) < len(self.symbols):
                self.state = State.SUBSCRIBING
            elif message is None:
                self.state, self.problem = State.STALE, f"nothing came for {now - heard_at:.0f} s"
            elif self.state is not State.LIVE:
                self.state, self.problem = State.LIVE, ""
            if self.state is State.LIVE and now - began >= limits.steady_s:
                self._backoff.begin_anew()

    def _take(self, heard: Heard, dialect: Dialect, *, is_message: bool = True) -> None:
        """Count it, and say what it changed."""
        now_ns, now = self._clock.time_ns(), self._clock.monotonic()
        if is_message:
            self.counts.messages += 1
            self.last_message_ns = now_ns
            if heard.venue_ns is not None:
                self.latency.add(now, (now_ns - heard.venue_ns) / 1e6)
        for symbol in self.symbols:
            trade = heard.trades.get(symbol)
            _, at = self._said.get(symbol, (None, float("-inf")))
            if trade is not None or symbol in heard.moved or now - at >= self._limits.repeat_s:
                self._say(symbol, dialect.books.get(symbol), trade, heard.venue_ns, now_ns, now)

    def _say(
        self,
        symbol: str,
        book: VenueBook | None,
        trade: Decimal | None,
        venue_ns: int | None,
        now_ns: int,
        now: float,
    ) -> None:
        bid, ask = (book.best_bid, book.best_ask) if book is not None else (None, None)
        best = (bid[0] if bid else None, ask[0] if ask else None)
        said, at = self._said.get(symbol, (None, float("-inf")))
        if best == said and trade is None and now - at < self._limits.repeat_s:
            return
        self._said[symbol] = (best, now)
        self._sink(
            Tick(
                venue=self.name,
                symbol=symbol,
                bid=best[0],
                ask=best[1],
                trade=trade,
                venue_ns=venue_ns,
                received_ns=now_ns,
            )
        )

    def _withdraw(self) -> None:
        """Without a connection there is no book, and no price."""
        self.connected_ns = None
        self._said.clear()
        for symbol in self.symbols:
            self._sink(Tick(venue=self.name, symbol=symbol, received_ns=self._clock.time_ns()))


async def _received(connection: ClientConnection, patience_s: float) -> str | bytes | None:
    """The next message, or None if none comes so long."""
    try:
        async with asyncio.timeout(patience_s):
            return await connection.recv()
    except TimeoutError:
        return None

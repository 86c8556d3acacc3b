"""Which instance quotes, and its life while it does: one holds the lock in PostgreSQL, the others stand by.

Settings, positions and reports go over the connection that holds the lock: without it an instance knows neither what it shall
do nor that it may, and takes its quotes back.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from exchange.market_maker import store
from exchange.market_maker.account import AccountBook
from exchange.market_maker.decision import QUOTING
from exchange.market_maker.exchange import Away
from exchange.market_maker.rules import default_settings
from exchange.runtime import postgres

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import asyncpg

    from exchange.market_maker.exchange import Follower, Markets
    from exchange.market_maker.metrics import MarketMakerMetrics
    from exchange.market_maker.quoter import Quoter
    from exchange.market_maker.store import Report, Settings

STANDBY_S: Final = 1.0
DATABASE_S: Final = 5.0
# New markets get settings within this.
NEW_MARKETS_S: Final = 5.0
# What has not changed is reported again after this: a report that is much older is of nobody.
REPORT_S: Final = 1.0


class EventsTask(Protocol):
    """A follower, and what keeps it going."""

    async def run(self) -> None:
        """Until cancelled."""
        ...


class Leader:
    """One instance. `open_quoter` makes what quotes as the account whose book it is given, `seed` gives the account money where
    the profile is development: both are asked anew each time that this instance becomes the one that quotes.
    """

    def __init__(
        self,
        url: str,
        instance: str,
        markets: Markets,
        open_quoter: Callable[[AccountBook], tuple[Quoter, Follower, EventsTask]],
        account: Callable[[], str],
        metrics: MarketMakerMetrics,
        *,
        interval_s: float,
        enabled_at_first: bool,
        seed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._url = url
        self._instance = instance
        self._markets = markets
        self._open_quoter = open_quoter
        self._account = account
        self._metrics = metrics
        self._interval_s = interval_s
        self._enabled_at_first = enabled_at_first
        self._seed = seed
        self._wake = asyncio.Event()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("leader")
        self.is_leading = False

    def wake(self) -> None:
        """The next round begins now: settings have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Quote, or wait for the one that does to go; until cancelled."""
        while True:
            try:
                connection = await postgres.connect(self._url, application_name=f"pincex-{self._instance}")
                try:
                    if await store.become_quoter(connection):
                        await self._lead(connection)
                finally:
                    await connection.close(timeout=DATABASE_S)
            except postgres.CONNECTION_ERRORS as error:
                self._log.warning("the database did not answer", error=repr(error))
            except Exception:  # noqa: BLE001 - a defect in one round must not end the others; the quotes are back already
                self._log.exception("quoting broke")
            await asyncio.sleep(STANDBY_S)

    async def _lead(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        await store.begin(connection, enabled=self._enabled_at_first)
        book = AccountBook(await store.positions(connection), (await store.progress(connection)).resume_token)
        quoter, follower, events = self._open_quoter(book)
        following = asyncio.create_task(events.run())
        self._log.info("this instance quotes now")
        self.is_leading = True
        self._metrics.leading.set(1)
        try:
            await self._rounds(connection, quoter, follower)
        finally:
            self.is_leading = False
            self._metrics.leading.set(0)
            await quoter.close()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _rounds(self, connection: asyncpg.Connection[asyncpg.Record], quoter: Quoter, follower: Follower) -> None:
        seeded = self._seed is None
        known_at = reported_at = float("-inf")
        reported: Sequence[Report] = ()
        revision = -1
        while True:
            self._wake.clear()
            began = time.monotonic()
            if not seeded:
                seeded = await self._seeded()
            if began >= known_at + NEW_MARKETS_S:
                known_at = began if await self._know_markets(connection) else known_at
            async with asyncio.timeout(DATABASE_S):
                settings = await store.settings(connection)
            reports = await quoter.round(settings)
            if reports != reported or settings.revision != revision or began >= reported_at + REPORT_S:
                await self._report(connection, follower, settings, reports, connected=quoter.connected)
                reported, revision, reported_at = reports, settings.revision, began
            try:
                async with asyncio.timeout(max(began + self._interval_s - time.monotonic(), 0.01)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _seeded(self) -> bool:
        assert self._seed is not None, "asked only where there is one"
        try:
            await self._seed()
        except Away as error:
            self._log.warning("no money yet", error=str(error))
            return False
        return True

    async def _know_markets(self, connection: asyncpg.Connection[asyncpg.Record]) -> bool:
        """Every market has settings, until an operator gives it others."""
        try:
            found = await self._markets.markets()
        except Away as error:
            self._log.warning("the markets are not known", error=str(error))
            return False
        async with asyncio.timeout(DATABASE_S):
            known = (await store.settings(connection)).markets
            added = [
                default_settings(rules, enabled=self._enabled_at_first) for rules in found if rules.symbol not in known
            ]
            if added:
                await store.add_markets(connection, added)
        return bool(found)

    async def _report(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        follower: Follower,
        settings: Settings,
        reports: Sequence[Report],
        *,
        connected: bool,
    ) -> None:
        positions = list(follower.book.positions.values())
        async with asyncio.timeout(DATABASE_S):
            await store.report(
                connection,
                self._account(),
                follower.book.token,
                positions,
                reports,
                connected=connected,
                revision=settings.revision,
            )
        self._metrics.reported(reports, positions, QUOTING)

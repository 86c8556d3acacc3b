"""Books that are fetched beside a connection, by the venue's REST interface."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

import aiohttp
import structlog

from exchange.market_data.venues.dialect import Broken, Fault
from exchange.market_data.venues.limits import Limits, is_local

if TYPE_CHECKING:
    from exchange.market_data.venues.catalogue import Venue
    from exchange.market_data.venues.dialect import Dialect

HTTP_OK: Final = 200


class Snapshots:
    """Of one connection: what is asked for is fetched by tasks of its own, and taken when the feed looks for it."""

    def __init__(self, venue: Venue, dialect: Dialect, limits: Limits) -> None:
        self._venue = venue
        self._dialect = dialect
        self._limits = limits
        self._tasks: set[asyncio.Task[None]] = set()
        self._come: list[tuple[str, bytes | None]] = []
        # How many in a row for a book, and when the last one was due (the loop's time).
        self._fetches: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def ask(self) -> None:
        """Fetch what the dialect wants. Raises Broken after too many fetches in a row for one book."""
        for symbol in self._dialect.snapshots_wanted():
            tried = self._fetches[symbol] = self._fetches.get(symbol, 0) + 1
            if tried > self._limits.max_fetches:
                raise Broken(Fault.SILENT, f"{self._limits.max_fetches} snapshots of {symbol} did not make a book")
            now = asyncio.get_running_loop().time()
            # Never two of a book within the pause, however often it breaks: venues ban who asks too much.
            due = max(now, self._due[symbol] + self._limits.fetch_pause_s * tried) if symbol in self._due else now
            self._due[symbol] = due
            task = asyncio.create_task(self._fetch(symbol, due - now))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def come(self) -> list[tuple[str, bytes]]:
        """Those that have come since; what could not be fetched is wanted again."""
        come, self._come = self._come, []
        for symbol in self._fetches:
            if symbol in self._dialect.books:
                self._fetches[symbol] = 0
        for symbol, body in come:
            if body is None:
                self._dialect.snapshot_failed(symbol)
        return [(symbol, body) for symbol, body in come if body is not None]

    async def _fetch(self, symbol: str, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        body = await self._body(self._venue.rest_url + self._dialect.snapshot_path(symbol))
        # Not in one line with the `await`: the list of before it may have been taken meanwhile.
        self._come.append((symbol, body))

    async def _body(self, url: str) -> bytes | None:
        """What the address answers; None for a refusal, for too much, and for no answer in time."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._limits.fetch_s)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=not is_local(url))
        try:
            async with self._session.get(url) as answer:
                if answer.status != HTTP_OK:
                    return None
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > self._limits.max_message_bytes:
                        return None
                return bytes(body)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        except Exception:  # noqa: BLE001 - by a defect too it is wanted again, and the feed given up after max_fetches
            structlog.get_logger("feed").exception("a snapshot could not be fetched", feed=self._venue.name)
            return None

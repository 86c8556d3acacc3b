"""Market data as a process: reads the environment once, builds everything, runs until a signal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from exchange.market_data.config import SERVICE, Config
from exchange.market_data.service.parts import BookPart, HistoryPart, services_of
from exchange.market_data.service.register import add_client_services, add_operator_services
from exchange.market_data.service.venues import add_operator_venue_services, add_public_venue_services
from exchange.market_data.venues.part import VenuesPart
from exchange.runtime.database import Database
from exchange.runtime.ending import end_process
from exchange.runtime.grpc_server import ServerLimits
from exchange.runtime.http_server import Readiness
from exchange.runtime.service_app import ServiceApp, run_service

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

# A book order by order of some 100,000 orders.
MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024
SERVING_LOOK_S: Final = 0.1


class App(ServiceApp):
    """Everything of one instance, wired."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.common, config.database_url, limits=ServerLimits(max_response_bytes=MAX_RESPONSE_BYTES))
        self.database = Database(config.database_url.reveal(), self.instance)
        self.books = BookPart(self.client, self.clock, self.drain, self.registry)
        self.history = HistoryPart(
            self.books,
            self.client,
            self.clock,
            self.database,
            config.database_url.reveal(),
            self.instance,
            self.registry,
        )
        self.venues = VenuesPart(
            config.venues,
            database=self.database,
            database_url=config.database_url,
            redis_url=config.redis_url,
            instance=self.instance,
            clock=self.clock,
            registry=self.registry,
        )
        market, market_data, status = services_of(self.instance, self.books, self.history)
        for server in (self.public, self.ops):
            add_client_services(server, market, market_data)
            add_public_venue_services(server, self.venues)
        add_operator_services(self.ops, status)
        add_operator_venue_services(self.ops, self.venues, self.books.best_of_own_book)

    def ready(self) -> Readiness:
        """Once there are books, and as long as the engines are heard of."""
        if self.books.streams.stale:
            return Readiness(ready=False, why="the engines have not been heard of")
        return Readiness(ready=self.books.follower.ready, why="there are no books yet")

    async def open(self) -> None:
        """Connects to the database."""
        await self.database.open()

    def tasks(self) -> Iterable[Coroutine[Any, Any, None]]:
        """Following, sending, recording, and the venues."""
        return *self.books.tasks(), *self.history.tasks(), *self.venues.tasks(), self._say_whether_serving()

    async def _say_whether_serving(self) -> None:
        """Health of the public server, by which the edge sends calls here or to the engines."""
        said: bool | None = None
        while not self.drain.is_set():
            serving = self.ready().ready
            if serving != said:
                said = serving
                await self.public.set_serving(serving)
            await asyncio.sleep(SERVING_LOOK_S)

    async def close(self) -> None:
        """Gives the connections back."""
        await self.venues.close()
        await self.database.close()


if __name__ == "__main__":
    end_process(run_service(SERVICE, Config.read, App))

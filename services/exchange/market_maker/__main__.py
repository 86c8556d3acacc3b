"""The market maker as a process: reads the environment once, builds everything, runs until a signal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from exchange.market_maker.config import SERVICE, Config
from exchange.market_maker.leader import EventsTask, Leader
from exchange.market_maker.metrics import MarketMakerMetrics
from exchange.market_maker.quoter import Quoter
from exchange.market_maker.service.edge import DEVELOPMENT_ACCOUNT, open_edge
from exchange.market_maker.service.funding import Seed
from exchange.market_maker.service.market_maker import MarketMakerService
from exchange.market_maker.service.markets import EdgeMarkets
from exchange.market_maker.service.order_session import EdgeSession
from exchange.market_maker.service.own_events import OwnEvents
from exchange.market_maker.service.register import add_operator_services
from exchange.runtime.database import Database
from exchange.runtime.ending import end_process
from exchange.runtime.service_app import ServiceApp, run_service

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from exchange.market_maker.account import AccountBook
    from exchange.market_maker.exchange import Follower


class App(ServiceApp):
    """Everything of one instance, wired."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.common, config.database_url)
        self.config = config
        development = config.common.runtime.development
        url = config.database_url.reveal()
        self.database = Database(url, self.instance)
        self.metrics = MarketMakerMetrics(self.registry)
        self.edge = open_edge(config.edge_target, None if development else config.key_file)
        self.markets = EdgeMarkets(self.edge)
        self.leader = Leader(
            url,
            self.instance,
            self.markets,
            self._open_quoter,
            lambda: self.edge.account,
            self.metrics,
            interval_s=config.interval_s,
            # With real money nothing is quoted before an operator says so.
            enabled_at_first=development,
            seed=Seed(self.client, DEVELOPMENT_ACCOUNT) if development else None,
        )
        service = MarketMakerService(self.database, self.markets, enabled_at_first=development, wake=self.leader.wake)
        add_operator_services(self.ops, service)

    def _open_quoter(self, book: AccountBook) -> tuple[Quoter, Follower, EventsTask]:
        events = OwnEvents(self.edge, book)
        quoter = Quoter(
            self.markets,
            EdgeSession(self.edge),
            events,
            self.clock,
            self.metrics,
            stale_after_s=self.config.stale_after_s,
            now=lambda: datetime.now(UTC),
        )
        return quoter, events, events

    def role(self) -> str:
        """Who quotes, and who waits to."""
        return "quoter" if self.leader.is_leading else "standby"

    async def open(self) -> None:
        """The database may come later."""
        await self.database.open()

    def tasks(self) -> Iterable[Coroutine[Any, Any, None]]:
        """The one that quotes, or waits to."""
        return (self.leader.run(),)

    async def close(self) -> None:
        """Quotes are back already."""
        await self.edge.channel.close(None)
        await self.database.close()


if __name__ == "__main__":
    end_process(run_service(SERVICE, Config.read, App))

"""Settlement as a process: reads the environment once, builds everything, runs until a signal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exchange.runtime.database import Database
from exchange.runtime.ending import end_process
from exchange.runtime.event_feed import EventFeed, FeedError
from exchange.runtime.http_server import Readiness
from exchange.runtime.service_app import ServiceApp, run_service
from exchange.settlement.config import SERVICE, Config
from exchange.settlement.corrections import Corrections
from exchange.settlement.gate import WithdrawalGate
from exchange.settlement.metrics import SettlementMetrics
from exchange.settlement.reconciliation import Reconciler
from exchange.settlement.service.engine import EngineLink
from exchange.settlement.service.intake import Intake
from exchange.settlement.service.register import add_client_services, add_operator_services
from exchange.settlement.service.settlement import SettlementService
from exchange.settlement.service.statements import StatementService
from exchange.settlement.settler import Settler, State
from exchange.settlement.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Any

_NOT_YET: Final = frozenset({State.STARTING, State.WAITING_FOR_DATABASE})


class App(ServiceApp):
    """Everything of one instance, wired."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.common, config.database_url)
        url = config.database_url.reveal()
        engine = EngineLink(self.client)
        self.settler = Settler(
            url, self.instance, EventFeed(self.client, through_restores=True), Intake, passing=(FeedError,)
        )
        self.database = Database(url, self.instance)
        self.reconciler = Reconciler(self.database, engine, self.audit.trail)
        self.settler.metrics = self.reconciler.metrics = SettlementMetrics(
            self.registry, lambda: self.settler.offset.sequence, lambda: self.settler.lag_s
        )
        corrections = Corrections(self.database, engine)
        every_s = config.reconcile_every_s
        self._upkeep = Upkeep(self.settler, self.reconciler, corrections, every_s)
        statements = StatementService(self.database)
        for server in (self.public, self.ops):
            add_client_services(server, statements)
        settlement = SettlementService(
            settler=self.settler,
            database=self.database,
            reconciler=self.reconciler,
            corrections=corrections,
            gate=WithdrawalGate(self.settler, self.database, every_s),
            clock=self.clock,
            instance=self.instance,
        )
        add_operator_services(self.ops, settlement)

    def ready(self) -> Readiness:
        """Once the books are open."""
        return Readiness(ready=self.settler.state not in _NOT_YET, why="the books are not open yet")

    def role(self) -> str:
        """Whether this instance writes."""
        return "standby" if self.settler.state is State.STANDBY else "writer"

    async def open(self) -> None:
        """Connects to the database."""
        await self.database.open()

    def tasks(self) -> Iterable[Coroutine[Any, Any, None]]:
        """Settling, and what is done again and again beside it."""
        return self.settler.run(), self._upkeep.run()

    async def close(self) -> None:
        """Gives the connections back."""
        await self.database.close()


if __name__ == "__main__":
    end_process(run_service(SERVICE, Config.read, App))

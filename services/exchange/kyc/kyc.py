"""KYC as the process that serves it builds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.kyc.metrics import KycMetrics
from exchange.kyc.review import Review
from exchange.kyc.screening import LocalList
from exchange.kyc.submissions import Submissions
from exchange.kyc.tiers import KycTiers
from exchange.kyc.vault import Vault
from exchange.kyc.worker import TradingTiers, Worker

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from exchange.kyc.config import KycConfig
    from exchange.kyc.screening import ScreeningProvider
    from exchange.runtime.audit.contract import AuditTrail
    from exchange.runtime.clock import Clock
    from exchange.runtime.database import Database


class Kyc:
    """All of it, wired. `database` is of the role wallet_user and opened by its owner; `run` must run beside the servers.

    `auth` is `exchange.kyc.service.trading_tiers.AuthLink` in a process. `screening` None: the local list of the config.
    """

    def __init__(
        self,
        config: KycConfig,
        database: Database,
        auth: TradingTiers,
        *,
        trail: AuditTrail,
        registry: CollectorRegistry,
        clock: Clock,
        screening: ScreeningProvider | None = None,
    ) -> None:
        self.metrics = KycMetrics(registry)
        vault = Vault(config.secret)
        self.tiers = KycTiers(database, config.tiers)
        self.worker = Worker(
            database, vault, self.tiers, screening or LocalList(config.screening_list), auth, trail, self.metrics
        )
        self.submissions = Submissions(database, vault, self.tiers, clock, self.worker.wake)
        self.review = Review(database, vault, self.tiers, self._decided)

    async def run(self) -> None:
        """Until cancelled: screening, expiry, and telling the auth service."""
        await self.worker.run()

    def _decided(self, decision: str) -> None:
        self.metrics.decisions.labels(decision).inc()
        self.worker.wake()
